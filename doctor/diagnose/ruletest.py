"""Proving the whole library on its own samples: the generic test behind ``rules test``.

Every positive must fire with its captures, every negative must stay silent, and every benign sample
must match nothing. No rule may fire on another cause's positive unless it says so: in the sample's
``also``, or by declaring a lower strength than the sample's rule, because then it never wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from doctor.diagnose.library import compile_library, read_sources
from doctor.diagnose.matcher import Matcher
from doctor.diagnose.rules import NegativeSample, PositiveSample, Rule
from doctor.model import Channel, Finding, Kind, Line


def channel_for(sample: PositiveSample | NegativeSample, kind: Kind) -> Channel:
    """A sample as the channel that a reader would have made of it."""
    lines = tuple(Line(text, number) for number, text in enumerate(sample.text.splitlines(), 1))
    return Channel(kind, "sample", lines, sample.code, sample.exit, sample.signal)


def problems(root: Path | None = None) -> Iterator[str]:
    """Every way in which the library contradicts its samples, one line each, with the file."""
    sources, harmless, _, _ = read_sources(root)
    matcher = Matcher(compile_library(root))
    rules = {source.rule.id: source.rule for source in sources}
    for source in sources:
        rule = source.rule
        for sample in rule.samples.match:
            yield from (f"{source.file}: {text}" for text in _positive(matcher, rule, sample, rules))
        for negative in rule.samples.no_match:
            for kind in rule.kinds():
                if any(finding.rule == rule.id for finding in matcher.match(channel_for(negative, kind))):
                    yield f"{source.file}: fires on its negative ({kind.value}): {negative.text!r}"
                    break
    texts = [(entry.id, text) for part in harmless for entry in part.patterns for text in entry.samples]
    texts += [(negative.why, negative.text) for part in harmless for negative in part.samples]
    for name, text in texts:
        for line in text.splitlines():
            for kind in Kind:
                fired = matcher.match(Channel(kind, "sample", (Line(line, 1),)))
                if fired:
                    yield f"benign: {name}: {fired[0].rule} fires on {line!r}"
                    break


def _positive(matcher: Matcher, rule: Rule, sample: PositiveSample, rules: dict[str, Rule]) -> Iterator[str]:
    fired: list[Finding] = []
    for kind in rule.kinds():
        found = matcher.match(channel_for(sample, kind))
        mine = [finding for finding in found if finding.rule == rule.id]
        if not mine:
            yield f"does not fire ({kind.value}) on its own sample {sample.text!r}"
            return
        if not any(sample.captures.items() <= finding.captures.items() for finding in mine):
            yield f"captures {mine[0].captures} instead of {sample.captures} on {sample.text!r}"
            return
        fired += found
    for name in sorted({finding.rule for finding in fired} - {rule.id, *sample.also}):
        other = rules[name]
        if other.cause != rule.cause and other.strength.order >= rule.strength.order:
            yield f"{name} ({other.cause}) fires too on {sample.text!r}; list it under also, or sharpen one"
