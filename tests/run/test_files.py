"""The one way in: bounded, regular files only, confined, numbered rightly, never raising."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.run import files as module
from doctor.run.files import MAX_LINE, Files, Ledger, clean, to_lines


def reason(ledger: Ledger, file: str) -> str:
    return ledger.entries[file]


def test_a_fifo_is_noted_and_not_waited_for(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    os.mkfifo(tmp_path / "job.err")
    assert not files.text(tmp_path / "job.err")
    assert files.bytes(tmp_path / "job.err") is None
    assert reason(ledger, "job.err") == "not a regular file"


def test_a_directory_in_place_of_a_file_is_noted(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    (tmp_path / "job.out.000").mkdir()
    assert files.text(tmp_path / "job.out.000").lines == ()
    assert reason(ledger, "job.out.000") == "not a regular file"


def test_an_absent_file_is_noted_unless_asked_quietly(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    assert files.bytes(tmp_path / "quiet", quiet=True) is None
    assert ledger.entries == {}
    assert files.bytes(tmp_path / "loud") is None
    assert reason(ledger, "loud") == "No such file or directory"


def test_an_unreadable_file_is_noted_even_when_asked_quietly(
    tmp_path: Path, files: Files, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("text\n")
    real = os.open

    def refuse(path: object, *rest: int, **more: int) -> int:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module.os, "open", refuse)
    assert not files.text(tmp_path / "secret", quiet=True)
    assert reason(ledger, "secret") == "Permission denied"


def test_a_link_within_the_run_is_followed(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    (tmp_path / "real").write_text("one\n")
    (tmp_path / "link").symlink_to("real")
    assert [line.text for line in files.text(tmp_path / "link").lines] == ["one"]
    assert ledger.entries == {}


def test_a_link_out_of_the_run_is_not_followed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "outside").write_text("secret\n")
    (run / "job.err").symlink_to(tmp_path / "outside")
    ledger = Ledger()
    assert not Files(run, ledger).text(run / "job.err")
    assert "outside the run directory" in ledger.entries["job.err"]


def test_a_linked_folder_out_of_the_run_is_not_followed(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.mkdir()
    (outside / "job.err").write_text("secret\n")
    (run / "00").symlink_to(outside)
    ledger = Ledger()
    assert not Files(run, ledger).text(run / "00" / "job.err")
    assert "outside the run directory" in ledger.entries["00/job.err"]


def test_dots_do_not_lead_out_of_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "outside").write_text("secret\n")
    ledger = Ledger()
    assert Files(run, ledger).bytes(run / ".." / "outside") is None
    assert ledger.entries


def test_a_place_that_the_user_mapped_may_be_read(tmp_path: Path) -> None:
    run, mapped = tmp_path / "run", tmp_path / "mapped"
    run.mkdir()
    mapped.mkdir()
    (mapped / "input").write_text("yes\n")
    (run / "input").symlink_to(mapped / "input")
    ledger = Ledger()
    reader = Files(run, ledger, (mapped,))
    assert reader.bytes(run / "input") == b"yes\n"
    assert reader.bytes(mapped / "input") == b"yes\n"
    assert ledger.entries == {}


def test_links_in_a_circle_are_noted(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert files.bytes(tmp_path / "a") is None
    assert "a" in ledger.entries


def test_a_sparse_gigabyte_is_read_at_both_ends_only(tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.err"
    with path.open("wb") as stream:
        stream.write(b"first\nsecond\n")
        stream.seek(1 << 30)
        stream.write(b"\nlast words\n")
    text = files.text(path, head=1 << 10, tail=1 << 10)
    assert text.partial
    assert [(line.text, line.number) for line in text.lines[:2]] == [("first", 1), ("second", 2)]
    assert text.lines[-1].text == "last words"
    assert text.lines[-1].number is None  # a gigabyte is not counted for the sake of a number
    assert sum(len(line.text) for line in text.lines) < 10_000


def test_bytes_are_bounded_and_say_so(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    (tmp_path / "big").write_bytes(b"x" * (3 << 20))
    assert files.bytes(tmp_path / "big", 2 << 20) == b"x" * (2 << 20)
    assert "larger than 2 MiB" in reason(ledger, "big")
    (tmp_path / "exact").write_bytes(b"x" * (2 << 20))
    assert files.bytes(tmp_path / "exact", 2 << 20) == b"x" * (2 << 20)
    assert "exact" not in ledger.entries


def test_the_end_of_one_endless_line_keeps_the_number_of_that_line(tmp_path: Path, files: Files) -> None:
    (tmp_path / "endless").write_bytes(b"one\n" + b"x" * 5000 + b"THE END")
    text = files.text(tmp_path / "endless", head=8, tail=20)
    assert text.lines[-1].text.endswith("THE END")
    assert text.lines[-1].number == 2


def test_without_a_head_there_is_no_empty_first_line(tmp_path: Path, files: Files) -> None:
    (tmp_path / "log").write_bytes(b"".join(b"line %d\n" % number for number in range(1, 101)))
    text = files.text(tmp_path / "log", head=0, tail=40)
    assert [(line.text, line.number) for line in text.lines] == [(f"line {number}", number) for number in range(97, 101)]


def test_terminal_escapes_and_direction_marks_are_taken_out() -> None:
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07text") == "red text"
    assert clean("abc\u202edcba\u2066x\u2069") == "abcdcbax"
    assert clean("a\x00b\x07c\r") == "abc"
    assert clean("tab\tstays") == "tab\tstays"
    assert clean("\x1b[38;5;1mE\x1b[m: \u00fcber") == "E: \u00fcber"


def test_invalid_utf8_is_replaced_not_raised() -> None:
    assert [line.text for line in to_lines(b"caf\xe9\nok\xff\xfe")] == ["caf\ufffd", "ok\ufffd\ufffd"]


def test_a_directory_that_cannot_be_listed_is_noted(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    assert files.listing(tmp_path / "nowhere") == []
    assert reason(ledger, "nowhere") == "No such file or directory"


@given(st.text())
def test_clean_text_is_one_bounded_harmless_line(text: str) -> None:
    result = clean(text)
    assert len(result) <= MAX_LINE
    assert not any(char < " " and char not in "\t\n" for char in result)
    assert not set(result) & set("\x7f\x85\x9b\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert clean(result) == result


@given(st.binary())
def test_bytes_of_any_kind_become_lines_with_consecutive_numbers(data: bytes) -> None:
    lines = list(to_lines(data))
    assert [line.number for line in lines] == list(range(1, data.count(b"\n") + 2))


@given(st.lists(st.text(alphabet="abcdef ", max_size=30), min_size=1, max_size=60), st.integers(0, 200), st.integers(1, 200), st.booleans())
def test_a_partial_read_shows_whole_lines_under_their_own_numbers(
    tmp_path: Path, rows: list[str], head: int, tail: int, newline: bool
) -> None:
    path = tmp_path / "log"
    path.write_text("\n".join(rows) + ("\n" if newline else ""))
    text = Files(tmp_path, Ledger()).text(path, head=head, tail=tail)
    size = path.stat().st_size
    assert text.partial == (size > head + tail)
    numbers = [line.number for line in text.lines]
    assert numbers == sorted(set(numbers), key=lambda one: one or 0)
    for index, line in enumerate(text.lines):
        assert line.number is not None
        whole = clean(rows[line.number - 1])
        first_cut = text.partial and index == 0 and line.number == 1 and head < len(rows[0]) + 1
        end_cut = text.partial and index == len(text.lines) - 1 and tail <= len(rows[-1]) + 1
        assert line.text == whole or (first_cut and whole.startswith(line.text)) or (end_cut and whole.endswith(line.text)), line
    if not text.partial and size:
        assert len(text.lines) == len("\n".join(rows).split("\n")) - (not newline and rows[-1] == "" and len(rows) > 1)
