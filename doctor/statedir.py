"""The folder in which the doctor keeps its memory, and the lock that keeps two doctors off one run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from doctor.errors import DoctorError
from doctor.process import kept_by_commands


class StoreError(DoctorError):
    """The state database cannot be used."""


class Damaged(StoreError):
    """The state database is no database any more, or not a whole one."""


class BusyRun(DoctorError):
    """Another doctor takes care of the run."""


def default_state_dir() -> Path:
    """``$XDG_STATE_HOME/pegasus-doctor``, by default below ``~/.local/state``."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "pegasus-doctor"


def run_key(submit_dir: str) -> str:
    """Names a run in the store: it stays the same over rescues and restarts."""
    return hashlib.sha256(os.path.realpath(submit_dir).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def incident_key(run: str, fingerprint: str) -> str:
    """Names an incident in the whole store: one fingerprint of one run."""
    return hashlib.sha256(f"{run}/{fingerprint}".encode()).hexdigest()[:10]


@contextmanager
def run_lock(folder: Path, submit_dir: str) -> Iterator[None]:
    """Hold a run for this process. The lock of a dead process is free as soon as the commands that it started have ended.

    Raises :class:`BusyRun` when another doctor holds it.
    """
    place = folder / "locks"
    private(folder)
    private(place)
    path = place / f"{run_key(submit_dir)}.lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise StoreError(problem.strerror or "cannot be opened", file=str(path)) from problem
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "an unknown process"
            raise BusyRun(f"{submit_dir}: another pegasus-doctor ({holder}) takes care of this run; this one stays out") from problem
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        try:
            with kept_by_commands(handle), _directory_lock(submit_dir):
                yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)  # also where a command still has it
    finally:
        os.close(handle)


@contextmanager
def _directory_lock(submit_dir: str) -> Iterator[None]:
    """Keep off doctors with another state directory, too: a lock on the run's own directory, which leaves no trace in it.

    Where the file system has no such locks (NFS) nothing is locked.
    """
    try:
        handle = os.open(submit_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            why = "another pegasus-doctor, with another state directory, takes care of this run; this one stays out"
            raise BusyRun(f"{submit_dir}: {why}") from problem
        except OSError:
            yield
            return
        try:
            with kept_by_commands(handle):
                yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def put_aside(folder: Path, name: str) -> None:
    """Move a damaged database with its companions away, never over an earlier one."""
    stamp, number = time.strftime("%Y%m%dT%H%M%S"), 0
    while (folder / f"{name}-damaged-{stamp}{f'.{number}' if number else ''}").exists():
        number += 1
    if number:
        stamp += f".{number}"
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.replace(folder / f"{name}{suffix}", folder / f"{name}-damaged-{stamp}{suffix}")


def private(folder: Path) -> None:
    """Make the folder, for its owner alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours = {"doctor.db", "checkpoints.db", "locks"}
        if folder.stat().st_uid == os.getuid() and all(name.split("-")[0] in ours or name.endswith(".lock") for name in os.listdir(folder)):
            os.chmod(folder, 0o700)  # never that of a folder with other things in it
    except OSError as problem:
        raise StoreError(f"cannot be used ({problem.strerror}); give another folder with --state", file=str(folder)) from problem
