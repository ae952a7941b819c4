"""Words that a line must contain before a pattern can match it, so that few patterns are tried on a line.

From each pattern of the library a few literals are derived of which every match contains at least one
(all in lower case). They are computed when the library is compiled and kept in its cache; matching
looks a line's three-letter pieces up in one table and tries only the patterns that are left.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import re2

GRAM = 3
_MAX_CHOICES = 64  # literals of one pattern; beyond, a shorter common piece would serve better
#: Three letters -> (literal, numbers of the patterns that may match where it occurs).
Index = dict[str, list[tuple[str, list[int]]]]


def options() -> Any:
    """How all patterns are compiled."""
    made = re2.Options()
    made.log_errors = False
    made.max_mem = 256 << 20
    return made


class Sieve:
    """Many patterns asked together: which of them match a line?

    One automaton of thousands of patterns grows state by state on varied lines, and compiling them all
    takes longer than the rest of a small run's diagnosis; here a pattern is compiled when a line first
    holds one of its literals.
    """

    def __init__(self, patterns: Sequence[str], table: Index, always: Sequence[int], regex: Callable[[str], Any]) -> None:
        self._patterns, self._table, self._always, self._regex = patterns, table, always, regex

    @cached_property
    def _rest(self) -> Any:
        """The few patterns without a literal."""
        bundle = re2.Set.SearchSet(options())
        for number in self._always:
            bundle.Add(self._patterns[number])
        bundle.Compile()
        return bundle

    def Match(self, text: str) -> list[int]:
        """Numbers of the patterns that match, in their order."""
        folded, table = text.casefold(), self._table
        near = {folded[at : at + GRAM] for at in range(len(folded) - GRAM + 1)} & table.keys()
        found = {number for gram in near for literal, numbers in table[gram] if literal in folded for number in numbers}
        hits = [number for number in found if self._regex(self._patterns[number]).search(text)]
        if self._always and text:
            hits += [self._always[number] for number in self._rest.Match(text) or ()]
        return sorted(hits)


def index(patterns: Sequence[str]) -> tuple[Index, list[int]]:
    """The table for patterns in their order, and the numbers of those that have no literal and are always tried."""
    literals: dict[str, list[int]] = {}
    always = []
    for number, pattern in enumerate(patterns):
        choices = required(pattern)
        if not choices:
            always.append(number)
        for choice in choices:
            literals.setdefault(choice, []).append(number)
    common = Counter(gram for literal in literals for gram in grams(literal))
    table: Index = {}
    for literal, numbers in literals.items():
        table.setdefault(min(sorted(grams(literal)), key=common.__getitem__), []).append((literal, numbers))
    return table, always


def grams(text: str) -> set[str]:
    """All pieces of three characters."""
    return {text[at : at + GRAM] for at in range(len(text) - GRAM + 1)}


def required(pattern: str) -> frozenset[str]:
    """Literals of which each match of the pattern contains one; empty when there are none that serve."""
    try:
        from re import _parser as parser  # type: ignore[attr-defined]  # the standard library's own reader of patterns
    except ImportError:  # Python 3.10
        import sre_parse as parser
    if "[[:" in pattern:
        return frozenset()  # a class that only RE2 knows
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = parser.parse(pattern)
    except Exception:  # noqa: BLE001 - RE2 reads some patterns that the standard library does not
        return frozenset()
    found = _of_sequence(tree)
    return found if found and all(literal.isascii() for literal in found) else frozenset()


def _of_sequence(items: Iterable[tuple[Any, Any]]) -> frozenset[str]:
    """The best choice that one of the parts, which all have to match, offers."""
    best: frozenset[str] = frozenset()
    run = ""
    for kind, value in [*items, (None, None)]:
        if str(kind) == "LITERAL":
            run += chr(value).lower()
            continue
        best = _better(best, frozenset([run]))
        run = ""
        best = _better(best, _of_part(str(kind), value))
    return best


def _of_part(kind: str, value: Any) -> frozenset[str]:
    if kind == "SUBPATTERN":
        return _of_sequence(value[3])
    if kind == "ATOMIC_GROUP":
        return _of_sequence(value)
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT") and value[0] > 0:
        return _of_sequence(value[2])
    if kind == "BRANCH":
        parts = [_of_sequence(branch) for branch in value[1]]
        return frozenset().union(*parts) if all(parts) else frozenset()
    return frozenset()


def _better(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    return max(one, other, key=_worth)


def _worth(choices: frozenset[str]) -> tuple[int, int]:
    """Longer literals first, then fewer of them; what is too short or too much is worth nothing."""
    shortest = min(map(len, choices), default=0)
    if shortest < GRAM or len(choices) > _MAX_CHOICES:
        return (0, 0)
    return (min(shortest, 8), -len(choices))
