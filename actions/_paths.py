"""Confinement: which paths may be touched, and handles on them that nothing can redirect meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_BYTES = 64 << 20  # of a file that an action rewrites


class Refused(Exception):
    """A path or file that an action must not touch; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Place:
    """A directory held open, and the name in it."""

    directory: int
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a place: ``content`` is None for directories and for files that were not read."""

    info: os.stat_result
    content: bytes | None

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.info.st_mode)


def confined(path: str, roots: tuple[Path, ...]) -> tuple[str, str]:
    """(root, path below it) after resolving every parent; raises :class:`Refused` outside the roots."""
    if not path.startswith("/") or "\0" in path:
        raise Refused(f"{path!r} is not an absolute path")
    parts = path.split("/")
    if ".." in parts:
        raise Refused(f"{path!r} contains '..'")
    parent, name = os.path.split(os.path.normpath(path))
    if name in ("", ".", ".."):
        raise Refused(f"{path!r} names no file")
    real = os.path.join(os.path.realpath(parent), name)
    for root in roots:
        base = os.path.realpath(root)
        if base != "/" and real.startswith(base + "/"):
            return base, real[len(base) + 1 :]
    raise Refused(f"{path} is really {real}, which lies outside the allowed places ({', '.join(map(str, roots)) or 'none'})")


@contextmanager
def opened(path: str, roots: tuple[Path, ...]) -> Iterator[Place]:
    """The path's directory, opened component by component from its root without following any link."""
    root, below = confined(path, roots)
    *parents, name = below.split("/")
    handle = os.open(root, _DIRECTORY)
    try:
        for part in parents:
            inner = os.open(part, _DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield Place(handle, name, f"{root}/{below}")
    finally:
        os.close(handle)


def look(place: Place, read: bool = True) -> Found | None:
    """What lies there, or None; raises :class:`Refused` for links and special files."""
    try:
        info = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(info.st_mode):
        return Found(info, None)
    if not stat.S_ISREG(info.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "no regular file"
        raise Refused(f"{place.path} is {kind}")
    if not read:
        return Found(info, None)
    if info.st_size > MAX_BYTES:
        raise Refused(f"{place.path} is larger than {MAX_BYTES >> 20} MiB")
    handle = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.directory)
    with os.fdopen(handle, "rb") as stream:
        return Found(os.fstat(handle), stream.read(MAX_BYTES + 1))


def read_file(path: str, limit: int = MAX_BYTES) -> bytes | None:
    """A regular file's bytes for planning; None when absent, unreadable, a link, special or too large."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    with os.fdopen(handle, "rb") as stream:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_size > limit:
            return None
        try:
            return stream.read(limit)
        except OSError:
            return None


def mode_of(path: str) -> int | None:
    """Permission bits of a regular file or directory, links not followed; None where there is none."""
    try:
        info = os.lstat(path)
    except (OSError, ValueError):
        return None
    return stat.S_IMODE(info.st_mode) if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode) else None
