"""Follow one growing file: whole lines only, bounded reads, and an offset that survives the process.

No descriptor is kept between reads: thousands of runs are followed with a handful of open files, and
a run directory that goes away is never held busy. What a log may go through is told apart by inode
and by a check sum of its first bytes:

- *grown*: read on from the offset;
- *renamed* (``jobstate.log`` to ``jobstate.log.000``, a new one in its place): the old file's rest is
  read under its new name first, then the new file from its start;
- *replaced*, *truncated* or rewritten in place: the new content is read from its start;
- *deleted*: nothing until it is there again;
- *a hole* (zeros where a crashed host or file server lost a block): passed over, the line after it is whole.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

CHUNK = 1 << 20  # bytes read at a time
MAX_LINE = 1 << 16  # a longer line is cut; its rest is dropped up to the next line end
_HEAD = 256  # bytes that identify a file besides its inode


@dataclass(frozen=True, slots=True)
class Mark:
    """Where reading goes on: ``offset`` is always the start of a line. ``head`` sums the first ``head_size`` bytes.

    ``lines`` were read from this file so far; ``skipping`` is set within a line that was too long.
    """

    device: int = 0
    inode: int = 0
    offset: int = 0
    lines: int = 0
    head: int = 0
    head_size: int = 0
    skipping: bool = False

    def plain(self) -> list[int]:
        return [self.device, self.inode, self.offset, self.lines, self.head, self.head_size, int(self.skipping)]

    @classmethod
    def of(cls, values: list[int]) -> Mark:
        device, inode, offset, lines, head, head_size, skipping = values
        return cls(device, inode, offset, lines, head, head_size, bool(skipping))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines (with their line ends) that were read. ``first`` numbers the first of them.

    ``restarted``: these lines come from the start of a new or rewritten file. ``more``: there is more
    to read at once. ``problem``: why nothing could be read; '' also when there is simply nothing new.
    """

    data: bytes
    first: int
    restarted: bool = False
    more: bool = False
    problem: str = ""
    lost: bool = False  # the old file's rest could not be found

    def lines(self) -> Iterator[tuple[int, bytes]]:
        return enumerate(self.data.split(b"\n")[:-1], self.first)


class Tail:
    """One followed file. ``mark`` after a read is what has to be stored together with what the lines led to."""

    def __init__(self, path: Path, mark: Mark | None = None) -> None:
        self.path = path
        self.mark = mark or Mark()
        self._altered = b""  # the lines read last as they lie in the file, where they were changed

    def size_ahead(self) -> int:
        """Bytes not yet read; 0 where the file is not there."""
        try:
            return max(0, os.stat(self.path).st_size - self.mark.offset)
        except OSError:
            return 0

    def unchanged(self) -> bool:
        """Whether one look (stat) shows that there is nothing new: the cheap check of the regular sweep."""
        try:
            now = os.stat(self.path)
        except OSError:
            return True
        mark = self.mark
        return (now.st_ino, now.st_size) == (mark.inode, mark.offset) and now.st_dev == mark.device

    def read(self, limit: int = CHUNK) -> Chunk:
        """What was added since the last read: at most about ``limit`` bytes, whole lines only."""
        try:
            handle = _open(self.path)
        except FileNotFoundError:
            return self._from_renamed(limit) or Chunk(b"", self.mark.lines + 1)
        except OSError as problem:
            return Chunk(b"", self.mark.lines + 1, problem=os.strerror(problem.errno or 0))
        try:
            return self._read(handle, limit)
        except OSError as problem:
            return Chunk(b"", self.mark.lines + 1, problem=os.strerror(problem.errno or 0))
        finally:
            os.close(handle)

    def skip_to(self, offset: int, after: bytes = b"\n") -> None:
        """Begin a log that is met late behind the first ``after`` from ``offset`` on; the lines before it are not counted."""
        try:
            handle = _open(self.path)
        except OSError:
            return
        try:
            facts = os.fstat(handle)
            end = os.pread(handle, MAX_LINE, offset).find(after)
            start = offset + end + len(after) if end >= 0 else offset
            self.mark = Mark(facts.st_dev, facts.st_ino, start, 0, _sum(handle, _HEAD), _HEAD)
        except OSError:
            return
        finally:
            os.close(handle)

    def push_back(self, data: bytes) -> None:
        """Give back whole lines at the end of what was read last: they are read again with what follows."""
        count, size = data.count(b"\n"), len(data)
        if self._altered:  # what lay in the file was longer
            size = len(b"\n".join(self._altered.split(b"\n")[-count - 1 :]))
        self.mark = replace(self.mark, offset=self.mark.offset - size, lines=self.mark.lines - count)

    def _read(self, handle: int, limit: int) -> Chunk:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            return Chunk(b"", self.mark.lines + 1, problem="not a regular file")
        known = self.mark.inode != 0
        same = (facts.st_ino, facts.st_dev) == (self.mark.inode, self.mark.device) and facts.st_size >= self.mark.offset
        if same and self.mark.head_size and _sum(handle, self.mark.head_size) != self.mark.head:
            same = False
        lost = False
        if known and not same:
            if facts.st_ino != self.mark.inode and (rest := self._from_renamed(limit)) is not None:
                return rest
            lost = True
        if not same:
            self.mark = Mark(facts.st_dev, facts.st_ino)
        chunk = self._take(handle, facts.st_size, limit)
        return replace(chunk, restarted=known and not same, lost=lost)

    def _from_renamed(self, limit: int) -> Chunk | None:
        """The unread rest of the file under the name it was moved to; None when there is none (any more)."""
        if not self.mark.inode:
            return None
        place = self._renamed()
        if place is None:
            return None
        try:
            handle = _open(place)
        except OSError:
            return None
        try:
            size = os.fstat(handle).st_size
            if size < self.mark.offset or (self.mark.head_size and _sum(handle, self.mark.head_size) != self.mark.head):
                return None
            chunk = self._take(handle, size, limit, final=True)
        except OSError:
            return None
        finally:
            os.close(handle)
        return replace(chunk, more=True) if chunk.data else None

    def _renamed(self) -> Path | None:
        prefix = f"{self.path.name}."
        with contextlib.suppress(OSError), os.scandir(self.path.parent) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and entry.inode() == self.mark.inode:
                    return Path(entry.path)
        return None

    def _take(self, handle: int, size: int, limit: int, final: bool = False) -> Chunk:
        mark = self.mark
        self._altered = b""
        if not mark.skipping and mark.head_size < _HEAD and size > mark.head_size:
            mark = replace(mark, head_size=min(size, _HEAD), head=_sum(handle, min(size, _HEAD)))
        data = os.pread(handle, limit, mark.offset)
        begin = 0
        if mark.skipping:
            begin = data.find(b"\n") + 1
            if not begin:
                self.mark = replace(mark, offset=mark.offset + len(data))
                return Chunk(b"", mark.lines + 1, more=mark.offset + len(data) < size)
            mark = replace(mark, skipping=False, lines=mark.lines + 1)
        end = data.rfind(b"\n") + 1
        first = mark.lines + 1
        if end > begin:
            body = data[begin:end].replace(b"\0", b"")
            if len(body) > MAX_LINE:
                body = _cut_long(body)
            if len(body) != end - begin:
                self._altered = data[begin:end]
            mark = replace(mark, offset=mark.offset + end, lines=mark.lines + body.count(b"\n"))
        elif len(data) - begin >= min(limit, MAX_LINE) and data[begin] == 0:  # a hole, as long as this at least
            body = b""
            mark = replace(mark, offset=mark.offset + len(data) - len(data[begin:].lstrip(b"\0")))
        elif len(data) - begin >= min(limit, MAX_LINE):  # one endless line: keep its beginning, skip the rest
            body = data[begin : begin + MAX_LINE] + b"\n"
            mark = replace(mark, offset=mark.offset + len(data), skipping=True)
        elif final and data[begin:]:  # the last line of a file that nobody writes to any more
            body = data[begin:] + b"\n"
            mark = replace(mark, offset=mark.offset + len(data), lines=mark.lines + 1)
        else:
            body = b""
            mark = replace(mark, offset=mark.offset + begin)
        self.mark = mark
        return Chunk(body, first, more=mark.offset < size and len(data) == limit)


def _cut_long(body: bytes) -> bytes:
    lines = body.split(b"\n")
    if max(map(len, lines)) <= MAX_LINE:
        return body
    return b"\n".join(line[:MAX_LINE] for line in lines)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _sum(handle: int, size: int) -> int:
    return zlib.crc32(os.pread(handle, size, 0))
