"""Whole lines exactly once, whatever happens to the file."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from doctor.watch.tail import CHUNK, MAX_LINE, Mark, Tail


def drain(tail: Tail, limit: int = CHUNK) -> list[bytes]:
    """Everything that can be read now, each read with a mark that went through the store and back."""
    found: list[bytes] = []
    while True:
        chunk = tail.read(limit)
        tail.mark = Mark.of(tail.mark.plain())
        found += [line for _, line in chunk.lines()]
        if not chunk.more:
            return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "jobstate.log"
    path.write_bytes(b"one\ntwo\n")
    return path


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


def test_a_partial_line_waits_for_its_end(log: Path) -> None:
    tail = Tail(log)
    append(log, b"thr")
    assert drain(tail) == [b"one", b"two"]
    assert tail.unchanged() is False
    append(log, b"ee\n")
    assert drain(tail) == [b"three"]
    assert tail.mark.lines == 3 and tail.unchanged()


def test_line_numbers_go_on(log: Path) -> None:
    tail = Tail(log)
    drain(tail)
    append(log, b"three\nfour\n")
    assert list(tail.read().lines()) == [(3, b"three"), (4, b"four")]


def test_truncated(log: Path) -> None:
    tail = Tail(log)
    drain(tail)
    log.write_bytes(b"x\n")
    chunk = tail.read()
    assert (chunk.data, chunk.first, chunk.restarted, chunk.lost) == (b"x\n", 1, True, True)


def test_rewritten_in_place_to_the_same_length_or_longer(log: Path) -> None:
    tail = Tail(log)
    drain(tail)
    with log.open("r+b") as stream:
        stream.write(b"ONE\nTWO\nTHREE\n")
    assert drain(tail) == [b"ONE", b"TWO", b"THREE"]


def test_renamed_the_old_rest_comes_first(log: Path) -> None:
    tail = Tail(log)
    drain(tail)
    append(log, b"last words\n")
    log.rename(log.with_name("jobstate.log.000"))
    log.write_bytes(b"new\n")
    assert drain(tail) == [b"last words", b"new"]


def test_renamed_and_not_yet_made_anew(log: Path) -> None:
    tail = Tail(log)
    drain(tail)
    append(log, b"last words")
    log.rename(log.with_name("jobstate.log.000"))
    assert drain(tail) == [b"last words"]
    assert drain(tail) == []
    log.write_bytes(b"new\n")
    assert drain(tail) == [b"new"]


def test_deleted_and_replaced(log: Path) -> None:
    tail = Tail(log)
    drain(tail)
    log.unlink()
    assert tail.read().data == b"" and tail.unchanged()
    log.write_bytes(b"again, and longer than before\n")
    chunk = tail.read()
    assert chunk.restarted and chunk.data == b"again, and longer than before\n"


def test_an_endless_line_is_cut_and_what_follows_is_read(log: Path) -> None:
    log.write_bytes(b"a\n" + b"x" * (5 * CHUNK) + b"\nb\n")
    lines = drain(Tail(log))
    assert lines[0] == b"a" and lines[-1] == b"b"
    assert max(map(len, lines)) <= MAX_LINE and len(lines) == 3


def test_reads_are_bounded(log: Path) -> None:
    log.write_bytes(b"0123456789\n" * 1000)
    tail = Tail(log)
    chunk = tail.read(100)
    assert len(chunk.data) <= 100 and chunk.more


@pytest.mark.parametrize("kind", ["fifo", "directory", "absent"])
def test_what_is_no_log(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    chunk = Tail(path).read()
    assert chunk.data == b"" and bool(chunk.problem) == (kind != "absent")


def test_a_giant_file_is_read_from_a_mark_near_its_end_at_once(tmp_path: Path) -> None:
    """10 GB (sparse): only what is new is touched."""
    path = tmp_path / "giant.log"
    size = 10 << 30
    with path.open("wb") as stream:
        stream.truncate(size)
        stream.seek(size)
        stream.write(b"\nnew\n")
    facts = path.stat()
    tail = Tail(path, Mark(facts.st_dev, facts.st_ino, size + 1, 7))
    assert list(tail.read().lines()) == [(8, b"new")]


@pytest.mark.parametrize("zeros", [1, 5_000, 200_000, 3 << 20])
def test_the_line_behind_a_hole_is_whole(tmp_path: Path, zeros: int) -> None:
    path = tmp_path / "jobstate.log"
    append(path, b"one\n")
    tail = Tail(path)
    assert drain(tail) == [b"one"]
    append(path, bytes(zeros))
    assert drain(tail) == []
    append(path, b"two\nthr\0\0ee\n")
    assert drain(tail) == [b"two", b"three"]
    again = Tail(path, Mark.of(tail.mark.plain()))
    append(path, b"four\n")
    assert drain(again) == [b"four"]


@pytest.mark.parametrize("odd", [bytes(1000), b"x" * (MAX_LINE + 7)], ids=["hole", "long line"])
def test_lines_that_were_changed_can_be_given_back(tmp_path: Path, odd: bytes) -> None:
    path = tmp_path / "demo-0.log"
    append(path, b"one\ntwo " + odd + b"\nthree\nfour\n")
    tail = Tail(path)
    lines = tail.read().data.splitlines(keepends=True)
    tail.push_back(b"".join(lines[1:]))
    assert tail.mark.lines == 1 and tail.read().data == b"".join(lines[1:])
    tail.push_back(lines[3])
    assert drain(tail) == [b"four"]


@pytest.mark.parametrize("seed", range(25))
def test_every_line_exactly_once_over_appends_renames_and_restarts(tmp_path: Path, seed: int) -> None:
    """Random appends in odd pieces, rotations, and a new reader with the stored mark: nothing lost, nothing twice."""
    chance = random.Random(seed)
    path = tmp_path / "jobstate.log"
    written, read = [], []
    tail, number, rotation, pending = Tail(path), 0, 0, b""
    for _ in range(300):
        what = chance.random()
        if what < 0.55:
            for _ in range(chance.randint(1, 20)):
                number += 1
                pending += b"line %d %s\n" % (number, b"x" * chance.randint(0, 40))
                written.append(number)
            cut = chance.randint(0, len(pending))
            append(path, pending[:cut])
            pending = pending[cut:]
        elif what < 0.62 and path.exists():
            append(path, pending)
            pending = b""
            read += [int(line.split()[1]) for line in drain(tail, 64)]
            path.rename(tmp_path / f"jobstate.log.{rotation:03d}")
            rotation += 1
            append(path, b"")
        elif what < 0.7:
            tail = Tail(path, Mark.of(tail.mark.plain()))
        else:
            chunk = tail.read(chance.randint(50, 500))
            read += [int(line.split()[1]) for _, line in chunk.lines()]
    append(path, pending)
    read += [int(line.split()[1]) for line in drain(tail)]
    assert read == written
