"""Words that a line must contain before a pattern can match it, so that few patterns are tried on a line.

From each pattern of the library a few literals are derived of which every match contains at least one
(all in lower case). They are computed when the library is compiled and kept in its cache; matching
looks a line's three-letter pieces up in one table and tries only the patterns that are left.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

GRAM = 3
_MAX_CHOICES = 64  # literals of one pattern; beyond, a shorter common piece would serve better
#: Three letters -> (literal, numbers of the patterns that may match where it occurs).
Index = dict[str, list[tuple[str, list[int]]]]


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
    from re import _parser  # type: ignore[attr-defined]  # the standard library's own reader of patterns

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _parser.parse(pattern)
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
