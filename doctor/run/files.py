"""The one way in which a run directory's files are opened: bounded, regular files only, confined.

A run directory is untrusted: a log may be a FIFO, a link to somewhere else, a gigabyte, or half
written. Whatever cannot be read is noted in a :class:`Ledger` and the analysis goes on.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import TypeAlias

from doctor.model import Line, Unreadable

MAX_LINE = 4096  # characters kept of one line
_BLOCK = 1 << 20  # larger ones cost more in fresh memory than they save
_COUNT_LIMIT = 256 << 20  # bytes of a skipped middle whose lines are still counted
_OUTSIDE = "a link or path that leads outside the run directory; not followed"
Raw: TypeAlias = bytes  # the type, where a method of that name hides it
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|.)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_line: Callable[[tuple[str, int | None]], Line] = partial(tuple.__new__, Line)  # by the million: without Line's own __new__


@dataclass(slots=True)
class Ledger:
    """What could not be read, each file once, in the order met."""

    entries: dict[str, str] = field(default_factory=dict)

    def note(self, file: str, reason: str) -> None:
        self.entries.setdefault(file, reason)

    def unreadable(self) -> tuple[Unreadable, ...]:
        return tuple(Unreadable(file, reason) for file, reason in self.entries.items())


@dataclass(frozen=True, slots=True)
class Text:
    """Lines of one file. ``partial`` when the middle was left out because of its size."""

    file: str
    lines: tuple[Line, ...]
    partial: bool = False

    def __bool__(self) -> bool:
        return bool(self.lines)


def clean(text: str) -> str:
    """Text without terminal escapes, control and direction-changing characters, cut to one bounded line."""
    text = text[:MAX_LINE]
    if text.isprintable():
        return text
    return _CONTROL.sub("", _ESCAPES.sub("", text)).rstrip()


def to_lines(data: bytes, first: int | None = 1) -> Iterator[Line]:
    """Decode bytes into cleaned, numbered lines; invalid UTF-8 is replaced."""
    text = data.decode("utf-8", "replace")
    rows = text.split("\n")
    if len(data) > 1 << 20 or not text.replace("\n", "").isprintable() or max(map(len, rows)) > MAX_LINE:
        rows = [row if len(row) <= MAX_LINE and row.isprintable() else clean(row) for row in rows]
    return map(_line, zip(rows, repeat(None) if first is None else count(first)))  # noqa: B905 - the numbers never end


def _all_of(handle: int, size: int, limit: int) -> bytes:
    """What is left of a small file, which is closed. The first read asks for ``size`` only: buffers cost time."""
    try:
        data = os.read(handle, min(size + 1, limit))
        while size < len(data) < limit and (more := os.read(handle, limit - len(data))):
            data += more
        return data
    finally:
        os.close(handle)


class Files:
    """Reads below one root directory, and below further roots that the user mapped.

    ``root`` is the submit directory as given; names in evidence are relative to it.
    """

    def __init__(self, root: Path, ledger: Ledger, also: tuple[Path, ...] = ()) -> None:
        self.root = root
        self.ledger = ledger
        self._roots = [os.path.realpath(path) for path in (root, *also)]
        self._inside: dict[str, bool] = {}  # folder -> whether it really lies below one of the roots

    def admit(self, directory: Path) -> None:
        """Allow reading below one more directory, as for a sub-workflow that was planned elsewhere."""
        self._roots.append(os.path.realpath(directory))
        self._inside.clear()

    def may_read(self, directory: Path | str, file: Path | str | None = None) -> bool:
        """Whether a folder really lies below the roots; if not, a note about it (or the ``file`` in it)."""
        inside = self._admitted(os.fspath(directory))
        if not inside:
            self.ledger.note(self.name(file or directory), _OUTSIDE)
        return inside

    def _admitted(self, folder: str) -> bool:
        known = self._inside.get(folder)
        if known is None and "\0" in folder:  # from a damaged file; the system's calls would raise
            known = False
        if known is None:
            real = os.path.realpath(folder)
            known = self._inside[folder] = any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._roots)
        return known

    def name(self, path: Path | str) -> str:
        """The path as shown to people: relative to the submit directory where it lies below it."""
        text = str(path)
        prefix = f"{self.root}/"
        return text[len(prefix) :] if text.startswith(prefix) else text

    def open(self, path: Path | str, quiet: bool = False, outside: bool = False) -> int | None:
        """A read-only descriptor of a regular file, or None with the reason in the ledger.

        With ``quiet`` an absent file is not worth a note. ``outside`` is for the few files that lie
        elsewhere by nature, such as the abstract workflow.
        """
        if "\0" in os.fspath(path):
            self.ledger.note(clean(self.name(path)), "no name that a file can have")
            return None
        if not outside and not self.may_read(os.path.dirname(path), path):
            return None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as problem:
            if problem.errno != errno.ELOOP:
                if not (quiet and problem.errno in (errno.ENOENT, errno.ENOTDIR)):
                    self.ledger.note(self.name(path), os.strerror(problem.errno or 0))
                return None
            return self._open_link(path)
        return self._regular(handle, path)

    def _open_link(self, path: Path | str) -> int | None:
        real = os.path.realpath(path)
        if not self.may_read(os.path.dirname(real), path):
            return None
        try:
            return self._regular(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), path)
        except OSError as problem:
            self.ledger.note(self.name(path), os.strerror(problem.errno or 0))
            return None

    def _regular(self, handle: int, path: Path | str) -> int | None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
        self.ledger.note(self.name(path), "not a regular file")
        return None

    def bytes(self, path: Path | str, limit: int = 8 << 20, quiet: bool = False, outside: bool = False) -> bytes | None:
        """The file's first ``limit`` bytes; None when it cannot be read."""
        handle = self.open(path, quiet, outside)
        if handle is None:
            return None
        with os.fdopen(handle, "rb") as stream:
            try:
                data = stream.read(limit + 1)
            except OSError as problem:
                self.ledger.note(self.name(path), os.strerror(problem.errno or 0))
                return None
        if len(data) > limit:
            self.ledger.note(self.name(path), f"larger than {limit >> 20} MiB; only its beginning was read")
        return data[:limit]

    def blocks(self, path: Path | str, quiet: bool = False) -> Iterator[Raw]:
        """The whole file in blocks of about a megabyte that end with a line (a line longer than that is cut)."""
        handle = self.open(path, quiet)
        if handle is None:
            return
        with os.fdopen(handle, "rb", buffering=0) as stream:
            rest = b""
            try:
                while chunk := stream.read(_BLOCK):
                    cut = chunk.rfind(b"\n") + 1
                    if not cut and len(rest) < _BLOCK:
                        rest += chunk
                        continue
                    cut = cut or len(chunk)
                    yield rest + chunk[:cut]
                    rest = chunk[cut:]
            except OSError as problem:
                self.ledger.note(self.name(path), os.strerror(problem.errno or 0))
            if rest:
                yield rest

    def text(self, path: Path | str, head: int = 1 << 20, tail: int = 4 << 20, quiet: bool = False) -> Text:
        """The file's lines, for a large file those of its first and last bytes, numbered rightly."""
        name = self.name(path)
        handle = self.open(path, quiet)
        if handle is None:
            return Text(name, ())
        try:
            if (size := os.fstat(handle).st_size) <= head + tail:
                data = _all_of(handle, size, head + tail)
                return Text(name, tuple(to_lines(data[:-1] if data.endswith(b"\n") else data))) if data else Text(name, ())
            with os.fdopen(handle, "rb") as stream:
                start = stream.read(head)
                start = start[: start.rfind(b"\n") + 1] or start
                skipped, first = self._skip(stream, len(start), size - tail)
                end = stream.read(tail)
        except OSError as problem:
            self.ledger.note(name, os.strerror(problem.errno or 0))
            return Text(name, ())
        if not skipped and (cut := end.find(b"\n", 0, -1)) >= 0:  # else the end of one endless line, kept under its number
            end = end[cut + 1 :]
            first = first + 1 if first is not None else None
        end = end[:-1] if end.endswith(b"\n") else end
        lines = tuple(to_lines(start[:-1] if start.endswith(b"\n") else start)) if start else ()
        return Text(name, lines + tuple(to_lines(end, first)), partial=True)

    @staticmethod
    def _skip(stream: object, begin: int, end: int) -> tuple[bool, int | None]:
        """Move to ``end``; (at the start of a line?, number of the line there or None)."""
        assert hasattr(stream, "seek") and hasattr(stream, "read")
        stream.seek(0)
        if end > _COUNT_LIMIT:
            stream.seek(end)
            return False, None
        lines, left, last = 0, end, b"\n"
        while left > 0:
            chunk = stream.read(min(left, _BLOCK))
            if not chunk:
                break
            lines += chunk.count(b"\n")
            last, left = chunk[-1:], left - len(chunk)
        return last == b"\n", lines + 1

    def listing(self, directory: Path | str) -> list[str]:
        """Names in a directory, sorted; empty with a note when it cannot be listed."""
        if not self.may_read(directory):
            return []
        try:
            return sorted(os.listdir(directory))
        except OSError as problem:
            self.ledger.note(self.name(directory), os.strerror(problem.errno or 0))
            return []
