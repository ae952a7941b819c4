"""The daemon's manners towards its host: systemd's protocol, the journal, low priority, free space."""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from doctor.errors import DoctorError
from doctor.statedir import private

_JOURNAL = "/run/systemd/journal/socket"
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_MAX_FIELD = 32 << 10
_BLOCK = 4096  # bytes of the lock's file
_AGAIN, _TIMES = "PEGASUS_DOCTOR_AGAIN", 3


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
    """The journal with fields under systemd, else a file, else standard error. Raises :class:`DoctorError` for a file that cannot be."""
    handler: logging.Handler
    if file:
        place = os.path.abspath(os.path.expanduser(file))
        try:
            os.close(os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600))
            handler = logging.handlers.WatchedFileHandler(place, encoding="utf-8")  # a log that logrotate moved is begun anew
        except OSError as problem:
            raise DoctorError(f"log.file cannot be written: {problem.strerror}", file=place) from problem
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


def end_within(seconds: float, *numbers: int) -> None:
    """From the first of these signals on the process lives no longer than this, even where its main thread hangs in the kernel.

    The interpreter writes the number of a signal to a descriptor at once; the handlers have to wait for the main thread.
    """
    mine, written = socket.socketpair()
    written.setblocking(False)
    signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        with written:  # kept open as long as this waits
            while not set(mine.recv(64)) & set(numbers):
                continue
        time.sleep(seconds)
        os._exit(0)

    threading.Thread(target=wait, name="end", daemon=True).start()


def free_bytes(folder: Path) -> float:
    """Free space for this user on the folder's file system; infinite where it cannot be told."""
    try:
        facts = os.statvfs(folder)
    except OSError:
        return float("inf")
    return float(facts.f_bavail * facts.f_frsize)


@contextmanager
def only_one(folder: Path) -> Iterator[Callable[[str], None]]:
    """Be the only daemon on this state directory. The lock of a dead process is free at once.

    What comes out writes a word for ``status`` into the lock's file, in place: it needs neither the database nor
    free space. Raises :class:`DoctorError` when another daemon has the lock, or there can be none.
    """
    path = folder / "locks" / "watch.lock"
    try:
        private(folder)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise DoctorError(f"the daemon's lock cannot be had: {problem.strerror}", file=str(path)) from problem
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            holder = os.pread(handle, 100, 0).decode("utf-8", "replace").strip() or "another process"
            raise DoctorError(f"a daemon ({holder}) works on this state directory already", file=str(folder)) from problem

        def say(word: str) -> None:
            text = f"pid {os.getpid()}\n{' '.join(word.split())}".encode()[: _BLOCK - 1]
            with suppress(OSError):
                os.pwrite(handle, text.ljust(_BLOCK - 1) + b"\n", 0)

        say("")
        yield say
    finally:
        os.close(handle)


def daemon_says(folder: Path) -> str:
    """What keeps the daemon from writing its state, in its own words; '' when nothing does."""
    try:
        text = (folder / "locks" / "watch.lock").read_text("utf-8", "replace")
    except OSError:
        return ""
    return text.partition("\n")[2].strip()


def begin_again() -> None:
    """Become a new process of the same command line, a few times at most: for a state that has to be opened anew."""
    times = int(os.environ.get(_AGAIN, "0"))
    if times < _TIMES:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _AGAIN: str(times + 1)})  # noqa: S606


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
