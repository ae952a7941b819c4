"""A pasted message to its causes: best first, nothing for harmless text, whatever the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.diagnose.explain import KINDS, explain
from doctor.diagnose.matcher import Matcher
from doctor.run.files import MAX_LINE


@pytest.mark.parametrize(
    ("text", "kind", "cause"),
    [
        ("ModuleNotFoundError: No module named 'numpy'", "job-stderr", "dependency/python-package-missing"),
        ("Error from slot1@vm: memory usage exceeded request_memory\nCode 21 Subcode 102", "hold-reason", "resources/memory-exceeded-hold"),
        ("OSError: [Errno 28] No space left on device", None, "disk/"),
        ("via condor_hold (by user sci)", "hold-reason", "policy/held-by-user"),
        ("curl: (6) Could not resolve host: data.example.org", "pegasus-transfer", "network/dns-failure"),
    ],
)
def test_messages(matcher: Matcher, text: str, kind: str | None, cause: str) -> None:
    best = explain(text.encode(), matcher, kind)[0]
    assert best.cause.startswith(cause)
    assert best.advice and best.definition and best.line.text in text


@pytest.mark.parametrize("text", ["", "\n\n", "Done.", "0 errors, 0 warnings", "INFO: all 12 files transferred successfully"])
def test_harmless_text_has_no_cause(matcher: Matcher, text: str) -> None:
    assert explain(text.encode(), matcher) == []


@given(st.binary(max_size=300), st.sampled_from([None, *KINDS]))
def test_any_bytes_with_any_kind(matcher: Matcher, data: bytes, kind: str | None) -> None:
    found = explain(data, matcher, kind)
    assert [one.confidence for one in found] == sorted((one.confidence for one in found), reverse=True)
    assert len({one.cause for one in found}) == len(found)
    assert all(0 < one.confidence <= 0.95 for one in found)


@given(st.lists(st.text(alphabet="abc xyz", max_size=20), max_size=6), st.integers(0, 6))
def test_harmless_lines_around_do_not_change_the_cause(matcher: Matcher, rows: list[str], at: int) -> None:
    rows.insert(min(at, len(rows)), "ModuleNotFoundError: No module named 'numpy'")
    best = explain("\n".join(rows).encode(), matcher)[0]
    assert best.cause == "dependency/python-package-missing"
    assert best.line.text == "ModuleNotFoundError: No module named 'numpy'"


def test_a_hostile_megabyte_is_bounded(matcher: Matcher) -> None:
    found = explain(b"No space left on device " * 200_000, matcher)
    assert all(len(one.line.text) <= MAX_LINE for one in found)
