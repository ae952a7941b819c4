"""Choosing among the findings of one attempt: which line is the cause and which only looks like one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from doctor.diagnose.evidence import Facts
from doctor.diagnose.matcher import Matcher
from doctor.model import Channel, Evidence, Finding, Kind, Line, Strength

_STRENGTH = {Strength.SPECIFIC: 100.0, Strength.GENERAL: 60.0, Strength.WEAK: 30.0}
#: The user program's error outranks the wrapper's, which outranks the hold reason, which outranks the exit code.
_KIND = {
    Kind.STDERR: 20.0,
    Kind.TRANSFER: 18.0,
    Kind.INTEGRITY: 18.0,
    Kind.PLANNER: 18.0,
    Kind.STDOUT: 10.0,
    Kind.LITE: 8.0,
    Kind.DAGMAN: 6.0,
    Kind.HOLD: 4.0,
    Kind.EVENT: 2.0,
    Kind.STATUS: 0.0,
}
_NEAR = 6  # lines around a finding that are looked at for context
_GOOD = 60.0  # score from which a finding counts as an explanation
_MILD = re.compile(
    r"(?i)^[\W\d\sTZ:.,+-]*(?:\S+\s+){0,3}?[\[(<|]?\s*(?:warn(?:ing)?|info|debug|notice|trace)\b\s*[\])>|:]?"
    r"|\b\w*Warning:|\b(?:will retry|retrying|trying again|falling back|fallback|ignored|ignoring|skipping)\b"
)
_LOUD = re.compile(
    r"(?i)(?:^|[^a-z])(?:error|errors|fatal|critical|panic|exception|abort(?:ed|ing)?|fail(?:ed|ure)?|cannot|can't|could not"
    r"|unable|denied|invalid|not found|no such|refused|out of range|missing|killed|terminated|violat\w+)(?:[^a-z]|$)"
    r"|\w(?:Error|Exception)\b"
)
_QUIET_ERRORS = re.compile(r"(?i)\b(?:0|no|zero|without)\s+(?:\w+\s+)?(?:errors?|failures?)\b|\berrors?\s*[:=]\s*0\b")
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Warning|Failure)\b(?::|$)")


@dataclass(frozen=True, slots=True)
class Scored:
    """A finding with its score; higher explains better."""

    finding: Finding
    score: float


@lru_cache(maxsize=20_000)
def is_mild(text: str) -> bool:
    """A line that itself says it is no error: a warning, a notice, a retry, a fall-back."""
    head = text[:200]
    return bool(_MILD.search(head)) and not re.search(r"(?i)\b(?:error|fatal|critical)\b\s*[\])>|:]", head)


@lru_cache(maxsize=20_000)
def is_loud(text: str) -> bool:
    """A line in which a program complains of an error."""
    return bool(_LOUD.search(text)) and not _QUIET_ERRORS.search(text) and not is_mild(text)


def rank_findings(facts: Facts, matcher: Matcher) -> list[Scored]:
    """All findings of the attempt's channels, best first; silent-failure rules are left out."""
    scored: list[Scored] = []
    for channel in facts.channels:
        final = _final_lines(channel)
        for finding in matcher.match(channel):
            if finding.cause.startswith("silent/"):
                continue
            scored.append(Scored(finding, score(finding, channel, final)))
    scored = _without_symptoms(scored, matcher)
    scored.sort(key=lambda one: (-one.score, one.finding.rule))
    return scored


def _without_symptoms(scored: list[Scored], matcher: Matcher) -> list[Scored]:
    """Findings that another one explains (its rule says so) lose what a stronger one would have over them."""
    explained = {cause for one in scored if one.score >= _GOOD for cause in matcher.by_id[one.finding.rule].explains}
    strong = {one.finding.cause for one in scored if one.score >= _GOOD and one.finding.cause not in explained}
    if not strong:
        return scored
    return [Scored(one.finding, one.score - 45) if one.finding.cause in explained else one for one in scored]


def score(finding: Finding, channel: Channel, final: frozenset[int | None]) -> float:
    """How well this finding explains the failure. Only the order of scores has a meaning."""
    points = _STRENGTH[finding.strength] + _KIND.get(channel.kind, 0.0) + (finding.rank - 50) / 5
    if is_mild(finding.evidence.text) and not (channel.kind is Kind.TRANSFER and " INFO: " in finding.evidence.text):
        points -= 55  # pegasus-transfer logs what its tools complain of as INFO
    if finding.evidence.line in final and channel.kind in (Kind.STDERR, Kind.STDOUT):
        points += 12
    return points


def _final_lines(channel: Channel) -> frozenset[int | None]:
    """Line numbers of the end of the text, where programs say what they died of."""
    tail = [line for line in channel.lines if line.text.strip()][-6:]
    return frozenset(line.number for line in tail)


def last_words(facts: Facts) -> list[Evidence]:
    """The best lines of the program itself when no rule explains them: its last exception or error lines.

    Order of preference: the last exception line of stderr (with the line of code above it), the last
    loud lines of stderr, of stdout, the last lines of stderr at all, then of the wrapper.
    """
    groups = [
        [channel for channel in facts.channels if channel.kind in kinds and channel.lines]
        for kinds in ((Kind.STDERR, Kind.TRANSFER, Kind.PLANNER), (Kind.STDOUT,), (Kind.LITE, Kind.INTEGRITY, Kind.DAGMAN))
    ]
    for channels in groups:
        for channel in channels:
            if found := _exception(channel):
                return found
        for channel in channels:
            loud = [line for line in channel.lines if is_loud(line.text)]
            if loud:
                return [_evidence(channel, line) for line in loud[-2:]]
    for channel in groups[0]:
        quiet = [line for line in channel.lines if line.text.strip() and not is_mild(line.text)]
        if quiet:
            return [_evidence(channel, line) for line in quiet[-2:]]
    return []


def context(facts: Facts, first: Evidence) -> list[Evidence]:
    """Up to two further complaints close to a line, such as the server's status above a tool's message."""
    if first.line is None:
        return []
    for channel in facts.channels:
        if channel.file == first.file and channel.kind is first.kind:
            near = [line for line in channel.lines if line.number and abs(line.number - first.line) <= _NEAR and line.number != first.line]
            loud = [line for line in near if is_loud(line.text) and line.text.strip() not in first.text]
            if loud:
                return [_evidence(channel, line) for line in sorted(loud, key=lambda line: abs((line.number or 0) - (first.line or 0)))[:2]]
    return []


def _exception(channel: Channel) -> list[Evidence]:
    lines = channel.lines
    for index in range(len(lines) - 1, -1, -1):
        if _EXCEPTION.match(lines[index].text) and not is_mild(lines[index].text):
            place = next((line for line in reversed(lines[max(0, index - 12) : index]) if line.text.lstrip().startswith("File ")), None)
            return [_evidence(channel, lines[index]), *([_evidence(channel, place)] if place else [])]
    return []


def _evidence(channel: Channel, line: Line) -> Evidence:
    return Evidence(channel.file, line.number, line.text.strip(), channel.kind)
