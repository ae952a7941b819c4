"""Processes named for certain: an id alone may by now belong to another process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name: state, parent, and so on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    fields = text.rpartition(")")[2].split()
    return [] if fields[:1] == ["Z"] else fields


def born(pid: int) -> str:
    """When the process began, in kernel ticks: with its id it names one process for ever."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def descendants(pid: int) -> list[int]:
    """Every process below this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def send(pid: int, number: signal.Signals) -> None:
    """Signals a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def gone(births: Mapping[int, str], seconds: float) -> bool:
    """Waits until none of the processes, each with the time of its birth, is left."""
    deadline = time.monotonic() + seconds
    while any(when and born(pid) == when for pid, when in births.items()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
