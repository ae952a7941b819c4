"""The daemon's manners towards its host: systemd's protocol, the journal, low priority, free space."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from doctor.errors import DoctorError

_JOURNAL = "/run/systemd/journal/socket"
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_MAX_FIELD = 32 << 10


def notify_service(*facts: str) -> bool:
    """Tell the service manager something, such as ``READY=1``; False when there is none."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return False
    address = "\0" + place[1:] if place.startswith("@") else place
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.sendto("\n".join(facts).encode(), address)
    except OSError:
        return False
    return True


def watchdog_interval() -> float | None:
    """Half of the time in which the service manager wants a sign of life; None when it wants none."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not text.isdigit() or int(text) == 0 or (pid.isdigit() and int(pid) != os.getpid()):
        return None
    return int(text) / 2e6


class JournalHandler(logging.Handler):
    """Sends records to journald by its native protocol, with ``extra={"fields": {...}}`` as fields of their own."""

    def __init__(self, path: str = _JOURNAL) -> None:
        super().__init__()
        self._path = path
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._channel.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_PRIORITY.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": "pegasus-doctor",
            "CODE_MODULE": record.name,
        }
        for key, value in getattr(record, "fields", {}).items():
            fields[f"DOCTOR_{key.upper()}"] = str(value)
        with suppress(OSError):  # a full journal must not stop the daemon
            self._channel.sendto(b"".join(_field(key, value) for key, value in fields.items()), self._path)


def _field(key: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")[:_MAX_FIELD]
    if b"\n" in data:
        return key.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return key.encode() + b"=" + data + b"\n"


def under_systemd() -> bool:
    return bool(os.environ.get("JOURNAL_STREAM")) and os.path.exists(_JOURNAL)


def start_log(level: str, file: str) -> None:
    """The journal with fields under systemd, else a file, else standard error."""
    handler: logging.Handler
    if file:
        handler = logging.FileHandler(os.path.expanduser(file), encoding="utf-8")
    elif under_systemd():
        handler = JournalHandler()
    else:
        handler = logging.StreamHandler()
    plain = "%(message)s" if isinstance(handler, JournalHandler) else "%(asctime)s %(levelname)s %(message)s"
    handler.setFormatter(logging.Formatter(plain))
    root = logging.getLogger("doctor")
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False


def be_gentle(nice: int, idle_io: bool) -> list[str]:
    """Lower this process's priority; what could not be done."""
    problems = []
    try:
        left = nice - os.getpriority(os.PRIO_PROCESS, 0)
        if left > 0:
            os.nice(left)
    except OSError as problem:
        problems.append(f"nice: {problem.strerror}")
    if idle_io:
        try:
            import psutil

            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
        except Exception as problem:  # noqa: BLE001 - not on this kernel, or not allowed in this container
            problems.append(f"ionice: {problem}")
    return problems


def free_bytes(folder: Path) -> float:
    """Free space for this user on the folder's file system; infinite where it cannot be told."""
    try:
        facts = os.statvfs(folder)
    except OSError:
        return float("inf")
    return float(facts.f_bavail * facts.f_frsize)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Be the only daemon on this state directory. The lock of a dead process is free at once."""
    place = folder / "locks"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(place / "watch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            holder = os.pread(handle, 100, 0).decode("utf-8", "replace").strip() or "another process"
            raise DoctorError(f"a daemon ({holder}) works on this state directory already", file=str(folder)) from problem
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def daemon_alive(folder: Path) -> int | None:
    """The process id of the daemon on this state directory; None when there is none."""
    try:
        handle = os.open(folder / "locks" / "watch.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except OSError:
        words = os.pread(handle, 100, 0).split()
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    finally:
        os.close(handle)
