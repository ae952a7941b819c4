"""A draft rule from a diagnosis of the model that a person confirmed: next time a rule knows it, for nothing."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from doctor.diagnose.library import patterns_dir, read_sources
from doctor.diagnose.ruletest import problems
from doctor.errors import DoctorError, RuleError
from doctor.llm.redact import Redactor
from doctor.model import Diagnosis, Evidence, Kind

_WORDS = re.compile(r"[A-Za-z][A-Za-z]{2,}")
#: What differs between two equal failures, as a pattern; the first that fits a place wins.
_BLANKS = re.compile(
    r"(?P<mark><[A-Z]{2,12}_\d{1,6}>)|(?P<stamp>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,]?\d*)|(?P<path>(?:\.{0,2}/[\w.+@%~<>-]+)+/?)|"
    r"(?P<quoted>'[^'\n]{1,120}'|\"[^\"\n]{1,120}\")|(?P<hex>\b0x[0-9a-fA-F]+\b)|(?P<number>\d+(?:\.\d+)?)"
)
_AS_PATTERN = {"mark": r"\S+", "stamp": r"\S+ ?\S*", "path": r"\S+", "hex": "0x[0-9a-fA-F]+", "number": r"[\d.]+"}
_NEAR_MISSES = ("All steps finished without errors.", "Reading the configuration ... done")


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule file that the loader accepts. ``remarks``: what a person should still look at."""

    id: str
    text: str
    remarks: tuple[str, ...]


def pattern_of(text: str) -> str:
    """An RE2 pattern for lines that say the same: names, numbers, paths and times left open."""
    parts: list[str] = []
    place = 0
    for found in _BLANKS.finditer(text):
        parts.append(_quote(text[place : found.start()]))
        kind = found.lastgroup or "number"
        if kind == "quoted":
            mark = found[0][0]
            parts.append(f"{mark}[^{mark}]+{mark}")
        else:
            parts.append(_AS_PATTERN[kind])
        place = found.end()
    parts.append(_quote(text[place:]))
    return re.sub(r" +", " +", "".join(parts).strip())


def _quote(text: str) -> str:
    return "".join(f"\\{c}" if c in r"\.^$*+?{}[]|()" else c for c in text)


def draft(diagnosis: Diagnosis, origin: str, names: Sequence[tuple[str, str]] = (), root: Path | None = None) -> Draft:
    """A draft rule from the first cited line that is specific enough; checked by the rule loader and its own samples.

    Raises :class:`~doctor.errors.DoctorError` when the model decided nothing here or no line makes a rule.
    """
    if not diagnosis.by_model:
        raise DoctorError(f"this was decided by {diagnosis.decided_by}, not by the model; there is nothing to turn into a rule")
    redactor = Redactor(names)
    refused = "its evidence holds no line with words of its own"
    for one in diagnosis.evidence:
        if one.kind in (Kind.SUBMIT, Kind.RUN) or len(_WORDS.findall(pattern_of(redactor.line(one.text)))) < 2:
            continue
        rule = _rule(diagnosis, one, origin, redactor)
        found = _complaints(rule, root)
        if not found:
            text = "# A draft: it reports and never acts. Sharpen the pattern, add real samples, then set its status to test.\n"
            text += yaml.safe_dump(rule, sort_keys=False, allow_unicode=True, width=140)
            return Draft(rule["id"], text, _remarks(rule))
        refused = found[0]
    raise DoctorError(f"no rule can be made of this diagnosis: {refused}")


def _rule(diagnosis: Diagnosis, one: Evidence, origin: str, redactor: Redactor) -> dict[str, Any]:
    text = redactor.line(one.text)
    pattern = pattern_of(text)
    words = [word.lower() for word in _WORDS.findall(re.sub(r"\\.|\[[^\]]*\]|<[A-Z]+_\d+>", " ", pattern))][:4]
    slug = "-".join(["draft", diagnosis.cause.split("/")[1], *words])[:60].strip("-")
    others = [redactor.line(other.text) for other in diagnosis.evidence if other is not one]
    misses = [other for other in others if other.strip() and not re.search(pattern, other)][:1] or [_NEAR_MISSES[0]]
    return {
        "id": re.sub(r"-+", "-", slug),
        "title": f"Draft: {' '.join(words)[:80]} ({diagnosis.cause})"[:120],
        "status": "draft",
        "cause": diagnosis.cause,
        "evidence": [one.kind.value],
        "strength": "general",
        "match": {"any": [pattern]},
        "reference": f"from {origin}, decided by {diagnosis.decided_by} and confirmed by a person",
        "samples": {
            "match": [{"text": text, "from": origin}],
            "no_match": [{"text": miss, "why": "stands beside it in the same log, or is normal output"} for miss in misses],
        },
    }


def _complaints(rule: dict[str, Any], root: Path | None) -> list[str]:
    """What the loader and the generic sample test say of the rule among all others."""
    with tempfile.TemporaryDirectory(prefix="pegasus-doctor-") as folder:
        place = Path(folder) / "patterns"
        shutil.copytree(root or patterns_dir(), place)
        path = place / rule["cause"].split("/")[0] / f"{rule['id']}.yaml"
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            return [f"there is a rule {rule['id']} already"]
        path.write_text(yaml.safe_dump(rule, sort_keys=False, allow_unicode=True), "utf-8")
        try:
            read_sources(place)
        except RuleError as problem:
            return [text.replace(folder, "") for text in problem.problems if path.name in text] or [str(problem).replace(folder, "")]
        mine = [text for text in problems(place) if path.name in text or rule["id"] in text]
        return [text.replace(f"{place}/", "") for text in mine]


def _remarks(rule: dict[str, Any]) -> tuple[str, ...]:
    remarks = ["read the pattern: what may differ in this message is left open by guess"]
    if rule["samples"]["no_match"][0]["text"] in _NEAR_MISSES:
        remarks.append("replace the near miss by a real line that looks alike")
    remarks.append("then move it to patterns/ and run `pegasus-doctor rules check` and `rules test`")
    return tuple(remarks)
