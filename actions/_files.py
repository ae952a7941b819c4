"""One edit of one file: checked against what the plan saw, then made atomically.

The forms of :class:`doctor.repair.Edit`: content (``before`` and ``after``), creation (``before`` None),
removal (``after`` None), permissions alone (both None, with ``mode``), and directories (``directory``;
made when ``before`` is None, removed when empty otherwise).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from actions._paths import Found, Place, Refused, confined, look, opened
from doctor.repair import Edit


def satisfied(edit: Edit, roots: tuple[Path, ...], planned: Collection[str] = ()) -> bool:
    """Whether the file already is as the edit wants it; raises :class:`Refused` where the edit must not be made.

    ``planned`` are directories that earlier edits of the same plan make.
    """
    confined(edit.path, roots)
    if os.path.dirname(edit.path) in planned and not os.path.lexists(os.path.dirname(edit.path)):
        if edit.before is not None:
            raise Refused(f"{edit.path} does not exist")
        return False
    try:
        with opened(edit.path, roots) as place:
            return _satisfied(edit, look(place, read=_needs_content(edit)), place)
    except FileNotFoundError:  # its directory is gone
        if edit.before is not None and edit.after is None:
            return True
        raise


def untouched(edit: Edit, roots: tuple[Path, ...]) -> bool:
    """Whether the file is still as it was before the edit."""
    try:
        return not satisfied(edit, roots)
    except (Refused, OSError):
        return False


def original(edit: Edit, roots: tuple[Path, ...]) -> tuple[bytes | None, int | None]:
    """Bytes and permission bits before the edit, for the journal."""
    with opened(edit.path, roots) as place:
        found = look(place, read=_needs_content(edit))
        return (None, None) if found is None else (found.content, found.mode)


def write(edit: Edit, roots: tuple[Path, ...]) -> None:
    """Make the edit. The check is repeated right before; nothing happens when it is already made."""
    with opened(edit.path, roots) as place:
        found = look(place, read=_needs_content(edit))
        if _satisfied(edit, found, place):
            return
        if edit.directory:
            _directory(edit, place)
        elif _mode_only(edit):
            _chmod(edit, place)
        elif edit.after is None:
            os.unlink(place.name, dir_fd=place.directory)
            os.fsync(place.directory)
        else:
            _replace(edit, edit.after, place, found)


def _mode_only(edit: Edit) -> bool:
    return edit.before is None and edit.after is None and not edit.directory and edit.mode is not None


def _needs_content(edit: Edit) -> bool:
    return not edit.directory and not _mode_only(edit)


def _satisfied(edit: Edit, found: Found | None, place: Place) -> bool:
    if edit.directory:
        return _directory_satisfied(edit, found, place)
    if found is not None and found.content is None and _needs_content(edit):
        raise Refused(f"{place.path} is a directory")
    if _mode_only(edit):
        if found is None:
            raise Refused(f"{place.path} does not exist")
        if found.mode == edit.mode:
            return True
        if edit.mode_before is not None and found.mode != edit.mode_before:
            raise Refused(f"the permissions of {place.path} have changed since the plan was made")
        if stat.S_ISREG(found.info.st_mode) and found.info.st_nlink > 1:
            raise Refused(f"{place.path} has other names (hard links); their permissions would change too")
        return False
    now = None if found is None else found.content
    if now == edit.after and (found is None or edit.mode is None or found.mode == edit.mode):
        return True
    if now != edit.before and not (now == edit.after and edit.after is not None):
        if edit.before is None:
            raise Refused(f"{place.path} exists already, with other content")
        raise Refused(f"{place.path} {'is gone' if now is None else 'has changed'} since the plan was made")
    return False


def _directory_satisfied(edit: Edit, found: Found | None, place: Place) -> bool:
    if found is not None and not stat.S_ISDIR(found.info.st_mode):
        raise Refused(f"{place.path} is a file, not a directory")
    return (found is not None) if edit.before is None else (found is None)


def _directory(edit: Edit, place: Place) -> None:
    if edit.before is not None:
        os.rmdir(place.name, dir_fd=place.directory)
        return
    os.mkdir(place.name, 0o755 if edit.mode is None else edit.mode, dir_fd=place.directory)
    handle = os.open(place.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
    try:
        _give_to_parent(handle, place)
        os.fchmod(handle, 0o755 if edit.mode is None else edit.mode)
    finally:
        os.close(handle)


def _chmod(edit: Edit, place: Place) -> None:
    handle = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.directory)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Refused(f"{place.path} is no regular file")
        os.fchmod(handle, edit.mode or 0)
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(edit: Edit, content: bytes, place: Place, found: Found | None) -> None:
    """Write beside, sync, rename over: a reader sees the old file or the new one, never a part."""
    temporary = f".{place.name}.pegasus-doctor"[-255:]
    with contextlib.suppress(FileNotFoundError):  # left behind by a kill
        os.unlink(temporary, dir_fd=place.directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temporary, flags, 0o600, dir_fd=place.directory)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            if found is None:
                _give_to_parent(handle, place)
                os.fchmod(handle, 0o644 if edit.mode is None else edit.mode)
            else:
                _same_owner(handle, place, found)
                os.fchmod(handle, found.mode if edit.mode is None else edit.mode)
            os.fsync(handle)
        again = look(place)  # nobody may have written in the meantime
        if (again is None) != (found is None) or (again is not None and found is not None and again.content != found.content):
            raise Refused(f"{place.path} is being changed by somebody else")
        if found is None:
            os.link(temporary, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory, follow_symlinks=False)
            os.unlink(temporary, dir_fd=place.directory)
        else:
            os.replace(temporary, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
    except Exception:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=place.directory)
        raise
    os.fsync(place.directory)


def _same_owner(handle: int, place: Place, found: Found) -> None:
    """Owner, group and extended attributes (access lists) of the file that is replaced."""
    mine = os.fstat(handle)
    if (mine.st_uid, mine.st_gid) != (found.info.st_uid, found.info.st_gid):
        os.fchown(handle, found.info.st_uid, found.info.st_gid)
    old = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.directory)
    try:
        for name in os.listxattr(old):
            os.setxattr(handle, name, os.getxattr(old, name))
    except OSError:
        pass  # the file system has none, or does not let us copy one
    finally:
        os.close(old)


def _give_to_parent(handle: int, place: Place) -> None:
    """A file made by root in a user's directory belongs to that user."""
    if os.geteuid() == 0:
        parent = os.fstat(place.directory)
        os.fchown(handle, parent.st_uid, parent.st_gid)
