"""One edit of one file, and where it may be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from actions import _files
from actions._files import satisfied, write
from actions._paths import Refused, confined
from doctor.repair import Edit


@pytest.mark.parametrize("path", ["relative", "", "/", "/roots/../etc/passwd", "/a/..", "/etc/passwd\0.sub", "//"])
def test_paths_that_are_none(path: str, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        confined(path, (tmp_path, Path("/")))


def test_the_root_of_the_file_system_is_no_root(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="outside the allowed places"):
        confined(str(tmp_path / "x"), (Path("/"),))


def test_a_root_itself_is_not_below_it(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        confined(str(tmp_path), (tmp_path,))
    with pytest.raises(Refused):
        confined(f"{tmp_path}-other/x", (tmp_path,))


def test_a_root_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(Edit(str(tmp_path / "link" / "x"), None, b"1"), (tmp_path / "link",))
    assert (tmp_path / "real" / "x").read_bytes() == b"1"


def test_owner_mode_and_times_of_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.sub"
    path.write_bytes(b"a")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    before = path.stat()
    write(Edit(str(path), b"a", b"b"), (tmp_path,))
    after = path.stat()
    assert path.read_bytes() == b"b"
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert after.st_ino != before.st_ino and [one.name for one in tmp_path.iterdir()] == ["x.sub"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_a_file_made_by_root_belongs_to_the_owner_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 54321)
    write(Edit(str(folder / "x.halt"), None, b"", mode=0o644), (tmp_path,))
    write(Edit(str(folder / "d"), None, b"", mode=0o755, directory=True), (tmp_path,))
    assert {(one.stat().st_uid, one.stat().st_gid) for one in folder.iterdir()} == {(12345, 54321)}


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write(Edit(str(path), b"old", b"new"), (tmp_path,))
    assert path.read_bytes() == b"old" and [one.name for one in tmp_path.iterdir()] == ["x"]


def test_somebody_who_writes_at_the_same_moment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    sync = os.fsync

    def intrude(handle: int) -> None:
        path.write_bytes(b"theirs")
        sync(handle)

    monkeypatch.setattr(os, "fsync", intrude)
    with pytest.raises(Refused, match="being changed by somebody else"):
        write(Edit(str(path), b"old", b"new"), (tmp_path,))
    assert path.read_bytes() == b"theirs"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    real = _files.look
    calls: list[int] = []

    def appear(place: object, read: bool = True) -> object:
        found = real(place, read)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:  # after the last look, before the name is given
            path.write_bytes(b"theirs")
        return found

    monkeypatch.setattr(_files, "look", appear)
    with pytest.raises(FileExistsError):
        write(Edit(str(path), None, b"ours"), (tmp_path,))
    assert path.read_bytes() == b"theirs" and [one.name for one in tmp_path.iterdir()] == ["x"]


def test_what_a_kill_left_behind_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    (tmp_path / ".x.pegasus-doctor").write_bytes(b"half")
    write(Edit(str(path), b"old", b"new"), (tmp_path,))
    assert path.read_bytes() == b"new" and [one.name for one in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("kind", ["fifo", "socket", "link", "dangling", "directory"])
def test_only_regular_files_are_edited(kind: str, tmp_path: Path) -> None:
    import socket

    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600) if os.geteuid() == 0 else socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/etc/hostname" if kind == "link" else "nowhere")
    for edit in (
        Edit(str(path), b"a", b"b"), Edit(str(path), None, b"b"), Edit(str(path), b"a", None), Edit(str(path), None, None, 0o755, 0o644),
    ):  # fmt: skip
        if kind == "directory" and edit.mode:
            continue
        with pytest.raises(Refused):
            write(edit, (tmp_path,))


def test_hard_links_keep_their_permissions(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a")
    (tmp_path / "x").chmod(0o644)
    os.link(tmp_path / "x", tmp_path / "other")
    with pytest.raises(Refused, match="hard links"):
        write(Edit(str(tmp_path / "x"), None, None, 0o755, 0o644), (tmp_path,))
    write(Edit(str(tmp_path / "x"), b"a", b"b"), (tmp_path,))  # a new file takes the name, the other keeps the old bytes
    assert (tmp_path / "other").read_bytes() == b"a"


def test_satisfied_in_both_directions(tmp_path: Path) -> None:
    path = tmp_path / "x"
    make, gone = Edit(str(path), None, b"1", mode=0o600), Edit(str(path), b"1", None)
    assert not satisfied(make, (tmp_path,)) and satisfied(gone, (tmp_path,))
    write(make, (tmp_path,))
    assert satisfied(make, (tmp_path,)) and not satisfied(gone, (tmp_path,)) and path.stat().st_mode & 0o777 == 0o600
    write(gone, (tmp_path,))
    assert not path.exists()


def test_a_directory_with_other_peoples_files_stays(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "result").write_bytes(b"")
    with pytest.raises(OSError):
        write(Edit(str(tmp_path / "d"), b"", None, directory=True), (tmp_path,))
    assert (tmp_path / "d" / "result").exists()
