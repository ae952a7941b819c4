"""Matching the rule library against bounded text, in time linear in the text.

All text patterns of the library (and the veto patterns of ``benign/``) stand behind one
:class:`Sieve`; each line is looked at once, whatever the number of rules. Captures, ``none`` and ``all``
patterns cost something only on lines that already matched.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import re2

from doctor.diagnose.library import CompiledRule, Library
from doctor.diagnose.literals import Sieve, options
from doctor.model import Channel, Evidence, Finding, Line

MAX_LINE = 4096  # characters of a line that are looked at; longer lines are cut by the readers too
_MEMO = 20_000  # lines remembered with their matches: 1,000 equal failures cost one


class Matcher:
    """The library in matchable form. Safe to share; holds only caches."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.by_id = {rule.id: rule for rule in library.rules}
        self._compiled: dict[str, Any] = {}
        self._memo: dict[str, tuple[int, ...]] = {}
        self._by_codes: dict[tuple[Any, ...], list[CompiledRule]] = {}
        self._coded = tuple(r for r in library.rules if (r.code or r.exit or r.signal) and not r.any)

    @cached_property
    def _patterns(self) -> list[tuple[CompiledRule, str]]:
        return [(rule, pattern) for rule in self.library.rules for pattern in rule.any]

    @cached_property
    def _filter(self) -> Sieve:
        """All patterns behind one search for their literal parts; those of the harmless lines come last."""
        table, always = self.library.literals
        return Sieve(self.library.patterns, table, always, self._regex)

    def _regex(self, pattern: str) -> Any:
        compiled = self._compiled.get(pattern)
        if compiled is None:
            compiled = self._compiled[pattern] = re2.compile(pattern, options())
        return compiled

    def _hits(self, text: str) -> tuple[int, ...]:
        """Indexes of the patterns that match a line; of a harmless line only those about silent failures.

        A veto says that the line is no error; that a program fell back to made-up data is no error
        either, and just what the rules about silent failures look for.
        """
        known = self._memo.get(text)
        if known is not None:
            return known
        found = sorted(self._filter.Match(text) or ()) if text else []
        count = len(self._patterns)
        if found and found[-1] >= count:
            found = [index for index in found if index < count and self._patterns[index][0].cause.startswith("silent/")]
        hits = tuple(found)
        if len(self._memo) >= _MEMO:
            self._memo.clear()
        self._memo[text] = hits
        return hits

    def is_benign(self, text: str) -> bool:
        """Whether a veto pattern of the benign library matches this line."""
        return any(index >= len(self._patterns) for index in self._filter.Match(text[:MAX_LINE]) or ())

    def match(self, channel: Channel) -> list[Finding]:
        """All findings in one channel, in the order of its lines; codes without text come last."""
        findings: list[Finding] = []
        patterns = self._patterns
        for line in channel.lines:
            text = line.text[:MAX_LINE]
            fired: set[str] = set()
            for index in self._hits(text):
                rule, pattern = patterns[index]
                if rule.id in fired or not _reads(rule, channel):
                    continue
                if not self._conditions(rule, channel, text):
                    continue
                fired.add(rule.id)
                captures = self._regex(pattern).search(text).groupdict()
                findings.append(
                    Finding(
                        rule.id,
                        rule.cause,
                        rule.strength,
                        Evidence(channel.file, line.number, text, channel.kind),
                        {name: value for name, value in captures.items() if value},
                        rule.rank,
                    )
                )
        findings += self._by_code(channel)
        return findings

    def _conditions(self, rule: CompiledRule, channel: Channel, text: str) -> bool:
        if not _codes_fit(rule, channel):
            return False
        if any(self._regex(pattern).search(text) for pattern in rule.none):
            return False
        return all(_somewhere(self._regex(pattern), channel.lines) for pattern in rule.all)

    def _by_code(self, channel: Channel) -> Iterable[Finding]:
        """Findings of the rules that need no text, with the channel's first line as evidence."""
        if channel.hold is None and channel.exit_code is None and channel.signal is None:
            return
        first = channel.lines[0] if channel.lines else Line("")
        key = (channel.kind, channel.accept, channel.hold, channel.exit_code, channel.signal)
        rules = self._by_codes.get(key)
        if rules is None:
            rules = self._by_codes[key] = [rule for rule in self._coded if _reads(rule, channel) and _codes_fit(rule, channel)]
        for rule in rules:
            evidence = Evidence(channel.file, first.number, first.text[:MAX_LINE], channel.kind)
            yield Finding(rule.id, rule.cause, rule.strength, evidence, {}, rule.rank)


def _reads(rule: CompiledRule, channel: Channel) -> bool:
    return channel.kind in rule.kinds or not channel.accept.isdisjoint(rule.kinds)


def _somewhere(regex: Any, lines: Iterable[Line]) -> bool:
    return any(regex.search(line.text[:MAX_LINE]) for line in lines)


def _codes_fit(rule: CompiledRule, channel: Channel) -> bool:
    if rule.code and channel.hold is None and not rule.any:
        return False
    if rule.code and channel.hold is not None and not _hold_fits(rule, channel.hold):
        return False  # a text without a code (database, pasted message) is judged by its words
    if rule.exit and channel.exit_code not in rule.exit:
        return False
    return not (rule.signal and channel.signal not in rule.signal)


def _hold_fits(rule: CompiledRule, hold: tuple[int, int]) -> bool:
    return any(hold[0] == code and sub in ("*", hold[1]) for code, sub in rule.code)
