"""The shape of one rule file, checked by pydantic (``patterns/<area>/<rule-id>.yaml``).

This module is the strict gate: it runs when rules are checked, tested or compiled into the cache
(:mod:`doctor.diagnose.library`), not on every start of the program.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import re2
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from doctor.model import Kind, Strength

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]

#: Names that stand for several kinds of text, so that a rule for an operating-system error is written once.
GROUPS: dict[str, tuple[Kind, ...]] = {
    "program": (Kind.STDERR, Kind.STDOUT),
    "any-text": (
        Kind.STDERR,
        Kind.STDOUT,
        Kind.TRANSFER,
        Kind.LITE,
        Kind.INTEGRITY,
        Kind.HOLD,
        Kind.EVENT,
        Kind.PLANNER,
        Kind.DAGMAN,
        Kind.DAEMON,
    ),
}


def compile_pattern(pattern: str) -> Any:
    """Compile one RE2 pattern; raises ``ValueError`` with RE2's own words when it is wrong."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as problem:
        text = problem.args[0]
        raise ValueError(f"pattern {pattern!r}: {text.decode() if isinstance(text, bytes) else text}") from None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(Strict):
    """What must be there. Text patterns are RE2, matched against one line at a time.

    ``any``: one of these on a line fires the rule. ``none``: any of these on the same line vetoes it.
    ``all``: each of these must stand somewhere in the same text (any line). ``code``: hold code and
    subcode pairs, ``*`` for any subcode. ``exit``/``signal``: of the user program (kickstart).
    A rule with codes *and* text needs both.
    """

    any: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()
    code: tuple[tuple[int, int | Literal["*"]], ...] = ()
    exit: tuple[int, ...] = ()
    signal: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _something(self) -> Match:
        if not (self.any or self.code or self.exit or self.signal):
            raise ValueError("match needs at least one of any, code, exit, signal")
        for pattern in (*self.any, *self.all, *self.none):
            compiled = compile_pattern(pattern)
            if compiled.search(""):
                raise ValueError(f"pattern {pattern!r} matches the empty line")
        return self

    def groups(self) -> set[str]:
        """Names of all capture groups that the ``any`` patterns define."""
        return {name for pattern in self.any for name in re.findall(r"\(\?P?<([A-Za-z_]\w*)>", pattern)}


class RemedySpec(Strict):
    """Which action may cure this, and which parameters come from captures."""

    action: Slug
    with_: dict[str, str] = Field(default_factory=dict, alias="with")


class PositiveSample(Strict):
    """A real text that must fire the rule, where it comes from, and what it must capture."""

    text: str = ""
    from_: str = Field(alias="from", min_length=3)
    captures: dict[str, str] = Field(default_factory=dict)
    code: tuple[int, int] | None = None
    exit: int | None = None
    signal: int | None = None
    also: tuple[Slug, ...] = ()  # other rules that may fire on the same text


class NegativeSample(Strict):
    """A text that looks alike and must not fire the rule, and why."""

    text: str = ""
    why: str = Field(min_length=3)
    code: tuple[int, int] | None = None
    exit: int | None = None
    signal: int | None = None


class Samples(Strict):
    match: tuple[PositiveSample, ...] = Field(min_length=1)
    no_match: tuple[NegativeSample, ...] = Field(min_length=1)


class Rule(Strict):
    """One rule. See CONTRIBUTING for how to write one."""

    id: Slug
    title: str = Field(min_length=8, max_length=120)
    status: Literal["draft", "test", "stable"]
    cause: Annotated[str, StringConstraints(pattern=r"^[a-z-]+/[a-z0-9-]+$")]
    evidence: tuple[str, ...] = Field(min_length=1)
    strength: Strength = Strength.SPECIFIC
    rank: int = Field(default=50, ge=0, le=100)
    match: Match
    subject: str = ""  # the capture that names what the failure is about (module, file, host)
    explains: tuple[str, ...] = ()  # causes that are mere symptoms beside this one
    advice: str = ""
    remedy: RemedySpec | None = None
    recovered_when: Literal["job-succeeded"] = "job-succeeded"
    reference: str = Field(min_length=8)
    samples: Samples

    @field_validator("evidence")
    @classmethod
    def _kinds(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = {kind.value for kind in Kind} | set(GROUPS)
        for name in names:
            if name not in known:
                raise ValueError(f"unknown evidence kind {name!r} (known: {', '.join(sorted(known))})")
        return names

    @model_validator(mode="after")
    def _captures(self) -> Rule:
        groups = self.match.groups()
        wanted = set(self.remedy.with_.values()) if self.remedy else set()
        if self.subject:
            wanted.add(self.subject)
        for sample in self.samples.match:
            wanted |= set(sample.captures)
        for name in sorted(wanted - groups):
            raise ValueError(f"capture {name!r} is defined by no pattern")
        return self

    def kinds(self) -> tuple[Kind, ...]:
        """The evidence kinds with groups expanded, each once, in order."""
        out: list[Kind] = []
        for name in self.evidence:
            out.extend(GROUPS[name] if name in GROUPS else (Kind(name),))
        return tuple(dict.fromkeys(out))


class BenignPattern(Strict):
    """A line that looks alarming and is harmless: it silences every rule on that line."""

    id: Slug
    any: tuple[str, ...] = Field(min_length=1)
    why: str = Field(min_length=8)
    samples: tuple[str, ...] = Field(min_length=1)
    reference: str = ""

    @field_validator("any")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            compile_pattern(pattern)
        return patterns


class Benign(Strict):
    """One ``patterns/benign/<area>.yaml``: the veto patterns, and plain samples that must match nothing."""

    patterns: tuple[BenignPattern, ...] = ()
    samples: tuple[NegativeSample, ...] = ()


class Cause(Strict):
    """One entry of ``patterns/causes.yaml``."""

    definition: str = Field(min_length=5)
    advice: str = ""
    remedies: tuple[Slug, ...] = ()
