"""Whether the cited lines bear the cause, as far as the rule library can tell without a model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from doctor.diagnose.choose import is_mild
from doctor.diagnose.matcher import Matcher
from doctor.model import Channel, Evidence, Kind, Line, Strength


class Support(Enum):
    """What the rules say of the cited lines."""

    BORNE = "borne out by a rule"
    OPEN = "no rule knows the lines"
    AGAINST = "a rule knows the lines as something else"


@dataclass(frozen=True, slots=True)
class Judged:
    support: Support
    reason: str


def judge_support(cause: str, cited: list[Evidence], matcher: Matcher) -> Judged:
    """A rule that reads a cited line as this cause bears it out; specific rules for others alone speak against it.

    Only causes about the very line count: that the program ended with an error at all
    (``user-code/application-error``) contradicts no closer reading of it.
    """
    against = ""
    harmless = 0
    for one in cited:
        if matcher.is_benign(one.text) or (is_mild(one.text) and one.kind is not Kind.TRANSFER):
            harmless += 1
            continue
        channel = Channel(one.kind, one.file, (Line(one.text, one.line),), accept=frozenset({one.kind}))
        for finding in matcher.match(channel):
            if finding.cause == cause:
                return Judged(Support.BORNE, f"rule {finding.rule} reads the cited line the same way")
            general = {"user-code/application-error", "staging/transfer-failed", "user-code/declared-output-not-produced"}
            if finding.strength is Strength.SPECIFIC and finding.cause not in general and not against:
                explains = matcher.by_id[finding.rule].explains
                against = "" if cause in explains else f"the cited line is known as {finding.cause}"
    if harmless == len(cited):
        return Judged(Support.AGAINST, "the cited lines are warnings or harmless ones")
    if against:
        return Judged(Support.AGAINST, against)
    return Judged(Support.OPEN, "no rule knows the cited lines")
