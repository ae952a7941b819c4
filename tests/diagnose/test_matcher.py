"""Matching: conditions, codes, vetoes, hostile text."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from doctor.diagnose import matcher as module
from doctor.diagnose.library import compile_library, read_sources
from doctor.diagnose.matcher import MAX_LINE, Matcher
from doctor.model import Channel, Finding, Kind, Line
from doctor.run.files import to_lines
from tests.diagnose.test_library import RULE, changed, write


def rule(name: str, **changes: Any) -> dict[str, Any]:
    return changed(id=name, subject=None, remedy=None, samples__match__0__captures={}, **changes)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    rules = [
        RULE,
        rule("both", match={"any": ["alpha"], "all": ["beta", "gamma"]}, evidence=["stderr"]),
        rule("never", match={"any": ["error"], "none": ["harmless"]}, evidence=["stderr"]),
        rule("held", match={"code": [[21, 102], [34, "*"]]}, evidence=["hold"]),
        rule("held-text", match={"any": ["memory"], "code": [[26, "*"]]}, evidence=["hold"]),
        rule("exit", match={"exit": [126, 127]}, evidence=["status"]),
        rule("signal", match={"signal": [11]}, evidence=["status"]),
    ]
    benign = {"patterns": [{"id": "goes-on", "any": ["^warning:"], "why": "the program goes on", "samples": ["warning: error"]}]}
    return Matcher(compile_library(write(tmp_path_factory.mktemp("patterns"), rules, benign)))


def channel(kind: Kind, *rows: str, **facts: Any) -> Channel:
    return Channel(kind, "f", tuple(Line(row, number) for number, row in enumerate(rows, 1)), **facts)


def fired(found: list[Finding]) -> list[str]:
    return [finding.rule for finding in found]


def test_findings_carry_line_text_and_captures(small: Matcher) -> None:
    (found,) = small.match(channel(Kind.STDERR, "fine", "OSError: No space left on device"))
    assert (found.rule, found.cause, found.evidence.line, found.captures) == ("disk-full", "disk/full", 2, {"what": "device"})
    assert found.evidence.text == "OSError: No space left on device"


def test_only_rules_for_this_kind_of_text_fire(small: Matcher) -> None:
    assert fired(small.match(channel(Kind.HOLD, "No space left on device"))) == []
    assert fired(small.match(channel(Kind.HOLD, "No space left on device", accept=frozenset({Kind.STDOUT})))) == ["disk-full"]


def test_all_patterns_may_stand_on_any_line(small: Matcher) -> None:
    assert fired(small.match(channel(Kind.STDERR, "gamma", "alpha", "beta"))) == ["both"]
    assert fired(small.match(channel(Kind.STDERR, "alpha", "beta"))) == []


def test_none_patterns_veto_their_line_only(small: Matcher) -> None:
    assert fired(small.match(channel(Kind.STDERR, "error but harmless"))) == []
    assert [one.evidence.line for one in small.match(channel(Kind.STDERR, "error but harmless", "error"))] == [2]


def test_benign_lines_silence_every_rule(small: Matcher) -> None:
    assert fired(small.match(channel(Kind.STDERR, "warning: error: No space left on device"))) == []
    assert small.is_benign("warning: error")
    assert not small.is_benign("error")


@pytest.mark.parametrize(
    ("hold", "text", "expected"),
    [
        ((21, 102), "", ["held"]),
        ((21, 1), "", []),
        ((34, 7), "", ["held"]),
        ((26, 0), "memory", ["held-text"]),
        ((1, 0), "memory", []),
        (None, "memory", ["held-text"]),  # a text whose code is not known is judged by its words
    ],
)
def test_hold_codes(small: Matcher, hold: tuple[int, int] | None, text: str, expected: list[str]) -> None:
    assert fired(small.match(channel(Kind.HOLD, text, hold=hold))) == expected


def test_exit_codes_and_signals(small: Matcher) -> None:
    assert fired(small.match(channel(Kind.STATUS, "exit code 127", exit_code=127))) == ["exit"]
    assert fired(small.match(channel(Kind.STATUS, "signal 11", signal=11))) == ["signal"]
    assert fired(small.match(channel(Kind.STATUS, "exit code 1", exit_code=1))) == []
    assert fired(small.match(Channel(Kind.STATUS, "f", (), exit_code=126))) == ["exit"]


def test_a_rule_fires_once_per_line(tmp_path: Path) -> None:
    twice = rule("twice", match={"any": ["one", "on"]}, evidence=["stderr"])
    found = Matcher(compile_library(write(tmp_path, [twice]))).match(channel(Kind.STDERR, "one on", "one"))
    assert [finding.evidence.line for finding in found] == [1, 2]


# ---- hostile text


def test_a_megabyte_without_a_newline_is_cut_before_it_is_matched(matcher: Matcher) -> None:
    text = "No space left on device " * 50_000
    (line,) = to_lines(text.encode())
    assert len(line.text) <= MAX_LINE
    found = matcher.match(Channel(Kind.STDERR, "f", (Line(text, 1),)))
    assert found and all(len(finding.evidence.text) <= MAX_LINE for finding in found)


class Counting:
    """Stands for the filter before all patterns and counts what it is shown."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.calls, self.characters = inner, 0, 0

    def Match(self, text: str) -> Any:
        self.calls += 1
        self.characters += len(text)
        return self.inner.Match(text)


HOSTILE = [
    "a" * MAX_LINE,
    "(" * MAX_LINE,
    "error " * 600,
    "\\" * MAX_LINE,
    "%s" * 2000,
    "/" * MAX_LINE,
    "Error: " * 500 + "'",
    "0" * MAX_LINE,
]


def work(matcher: Matcher, copies: int) -> Counting:
    fresh = Matcher(matcher.library)
    counting = Counting(matcher._filter)
    fresh.__dict__["_filter"] = counting
    lines = tuple(Line(f"{text[:-8]}{index:08d}", index) for index in range(copies) for text in HOSTILE)
    for kind in Kind:
        fresh.match(Channel(kind, "f", lines))
    return counting


def test_the_work_grows_with_the_text_and_not_with_the_kinds_or_rules(matcher: Matcher) -> None:
    once, thrice = work(matcher, 2), work(matcher, 6)
    assert once.calls == 2 * len(HOSTILE)  # each line once, whatever reads it
    assert (thrice.calls, thrice.characters) == (3 * once.calls, 3 * once.characters)


def test_memory_of_remembered_lines_is_bounded(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMO", 50)
    fresh = Matcher(matcher.library)
    fresh.__dict__["_filter"] = matcher._filter
    for number in range(500):
        fresh.match(Channel(Kind.STDERR, "f", (Line(f"line {number}", number),)))
        assert len(fresh._memo) <= 50


def test_patterns_with_nested_repetition_stay_linear(tmp_path: Path) -> None:
    """What brings a backtracking engine to its knees: RE2 looks at each character a bounded number of times."""
    evil = rule("evil", match={"any": ["(?:x+x+)+y", "(?:a|a?)+b"]}, evidence=["stderr"])
    matcher = Matcher(compile_library(write(tmp_path, [evil])))
    tracemalloc.start()
    assert fired(matcher.match(channel(Kind.STDERR, "x" * 1_000_000, "a" * 1_000_000))) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20


def test_the_filter_finds_what_each_pattern_finds_alone(matcher: Matcher) -> None:
    """The search for literal parts in front of the patterns must never lose one."""
    sources, _, _, _ = read_sources()
    samples = [row for source in sources for sample in source.rule.samples.match for row in sample.text.splitlines()]
    patterns = [pattern for rule in matcher.library.rules for pattern in rule.any]
    compiled = [re2.compile(pattern) for pattern in (*patterns, *matcher.library.benign)]
    for text in samples[::12]:
        alone = [index for index, regex in enumerate(compiled) if regex.search(text)]
        assert sorted(matcher._filter.Match(text) or ()) == alone, text


@given(st.binary(max_size=300))
def test_any_bytes_can_be_matched(matcher: Matcher, data: bytes) -> None:
    for kind in Kind:
        for finding in matcher.match(Channel(kind, "f", tuple(to_lines(data)))):
            assert finding.evidence.line is not None


@given(st.text(max_size=80))
def test_the_memory_does_not_change_the_answer(matcher: Matcher, text: str) -> None:
    one = Channel(Kind.STDERR, "f", (Line(text, 1),))
    assert matcher.match(one) == matcher.match(one)


def test_invalid_utf8_and_half_characters(matcher: Matcher) -> None:
    rows = tuple(to_lines(b"\xff\xfe\xc3 No space left on device \xed\xa0\x80"))
    assert any(finding.cause.startswith("disk/") for finding in matcher.match(Channel(Kind.STDERR, "f", rows)))
    assert all(line.text.encode() for line in rows)  # no lone surrogates, which RE2 could not take
