"""A pasted message to cause, meaning and advice, with the same rules and the same ranking as a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from doctor.diagnose.choose import is_mild, score
from doctor.diagnose.matcher import Matcher
from doctor.model import Channel, Finding, Kind, Line
from doctor.run.files import to_lines
from doctor.run.kickstart import parse_output
from doctor.run.planner import telling_lines

#: ``--kind`` of the command line -> the kinds of evidence it may be.
KINDS: dict[str, tuple[Kind, ...]] = {
    "job-stderr": (Kind.STDERR, Kind.STDOUT),
    "hold-reason": (Kind.HOLD, Kind.EVENT),
    "pegasus-transfer": (Kind.TRANSFER, Kind.INTEGRITY),
    "pegasuslite-err": (Kind.LITE, Kind.TRANSFER, Kind.INTEGRITY, Kind.STDERR),
    "dagman-out": (Kind.DAGMAN, Kind.EXITCODE, Kind.EVENT),
    "planner": (Kind.PLANNER,),
    "condor-daemon": (Kind.DAEMON, Kind.EVENT, Kind.DAGMAN),
    "kickstart": (Kind.STATUS, Kind.STDERR, Kind.STDOUT, Kind.INTEGRITY),
}
MAX_BYTES = 4 << 20
_HOLD_CODE = re.compile(r"(?i)\bcode\s*[=:]?\s*(\d{1,4})[,;]?\s*sub\s*code\s*[=:]?\s*(-?\d{1,9})")
_STATUS = re.compile(r"^\s*regular_exitcode:\s*(\d{1,3})\s*$|^\s*si(?:gn|ng)alled_signal:\s*(\d{1,3})\s*$", re.MULTILINE)
_PLANNER_LEVEL = re.compile(r"^\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d\.\d{3} ", re.MULTILINE)
_FLOOR = 25.0  # below it a match is a hint on a line that itself is no error


@dataclass(frozen=True, slots=True)
class Explanation:
    """One cause that the message may have, with the line that says so."""

    cause: str
    confidence: float
    decided_by: str
    advice: str
    definition: str
    line: Line


def explain(data: bytes, matcher: Matcher, kind: str | None = None) -> list[Explanation]:
    """Causes of a message, best first; empty when it is harmless or unknown.

    ``kind`` (a key of :data:`KINDS`) narrows the rules; when they know nothing, all rules are asked.
    """
    lines = _lines(data[:MAX_BYTES])
    scored = _findings(lines, matcher, KINDS[kind]) if kind else []
    if not scored:
        scored = _findings(lines, matcher, tuple(Kind))
    best: dict[str, tuple[float, Finding]] = {}
    for points, finding in scored:
        if finding.cause not in best or points > best[finding.cause][0]:
            best[finding.cause] = (points, finding)
    ordered = sorted(best.values(), key=lambda one: (-one[0], one[1].rule))
    return [_explanation(points, ordered[0][0], finding, matcher) for points, finding in ordered]


def _lines(data: bytes) -> tuple[Line, ...]:
    lines = list(to_lines(data))
    text = "\n".join(line.text for line in lines)
    if _PLANNER_LEVEL.search(text):
        return tuple(telling_lines(lines))
    return tuple(lines)


def _findings(lines: Sequence[Line], matcher: Matcher, kinds: tuple[Kind, ...]) -> list[tuple[float, Finding]]:
    text = "\n".join(line.text for line in lines)
    hold = _HOLD_CODE.search(text)
    status = _STATUS.search(text)
    signal = int(status[2]) if status and status[2] else None
    code = int(status[1]) if status and status[1] and status[1] != "0" else None
    channel = Channel(
        kinds[0], "message", tuple(lines), (int(hold[1]), int(hold[2])) if hold and Kind.HOLD in kinds else None,
        code if Kind.STATUS in kinds else None, signal if Kind.STATUS in kinds else None, accept=frozenset(kinds),
    )  # fmt: skip
    plain = Channel(Kind.STDERR, "message", channel.lines)
    findings = matcher.match(channel)
    for record in parse_output(lines).records:
        embedded = Channel(Kind.STDERR, "message", (*record.stderr, *record.stdout))
        findings += matcher.match(embedded)
    final = frozenset(line.number for line in [line for line in lines if line.text.strip()][-6:])
    scored = [(points, finding) for finding in findings if (points := score(finding, plain, final)) >= _FLOOR]
    return scored


def _explanation(points: float, top: float, finding: Finding, matcher: Matcher) -> Explanation:
    info, rule = matcher.library.causes[finding.cause], matcher.by_id[finding.rule]
    confidence = min(0.95, points / 140) * (1.0 if points >= top else 0.7)
    if is_mild(finding.evidence.text):
        confidence *= 0.6
    line = Line(finding.evidence.text.strip(), finding.evidence.line)
    return Explanation(finding.cause, round(confidence, 2), f"rule:{finding.rule}", rule.advice or info.advice, info.definition, line)
