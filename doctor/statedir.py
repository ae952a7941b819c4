"""The folder in which the doctor keeps its memory, and the lock that keeps two doctors off one run."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from doctor.errors import DoctorError


class StoreError(DoctorError):
    """The state database cannot be used."""


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
    """Hold a run for this process. The lock of a dead process is free at once.

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
        yield
    finally:
        os.close(handle)


def private(folder: Path) -> None:
    """Make the folder, for its owner alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours = {"doctor.db", "checkpoints.db", "locks"}
        if folder.stat().st_uid == os.getuid() and all(name.split("-")[0] in ours or name.endswith(".lock") for name in os.listdir(folder)):
            os.chmod(folder, 0o700)  # never that of a folder with other things in it
    except OSError as problem:
        raise StoreError(f"cannot be used ({problem.strerror}); give another folder with --state", file=str(folder)) from problem
