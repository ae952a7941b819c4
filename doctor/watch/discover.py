"""Which runs there are: named ones, Pegasus' own list of workflows, DAGMan's jobs in the queue, scanned folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from doctor.watch.snapshots import QueueJob

_DEPTH = 8
_FOLDERS = 5_000  # directories that one scan opens
_RECENT_S = 14 * 86_400.0


@dataclass(frozen=True, slots=True)
class Found:
    """A run that was met, and who told of it."""

    directory: str
    source: str  # named, config, workflow.db, queue or scan


def is_run(folder: Path | str) -> bool:
    return os.path.isfile(os.path.join(folder, "braindump.yml"))


def from_queue(jobs: Iterable[QueueJob]) -> Iterator[Found]:
    """Root workflows whose DAGMan is in the queue."""
    for job in jobs:
        if job.is_dagman and job.run and job.workflow == job.run and is_run(job.run):
            yield Found(job.run, "queue")


def from_folders(folders: Iterable[str]) -> Iterator[Found]:
    """Runs below folders, bounded in depth and number; sub-workflows belong to the run above them."""
    left = _FOLDERS
    for top in folders:
        stack = [(os.path.realpath(os.path.expanduser(top)), 0)]
        while stack and left > 0:
            place, depth = stack.pop()
            left -= 1
            try:
                with os.scandir(place) as entries:
                    names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            except OSError:
                continue
            if any(name == "braindump.yml" for name, _ in names):
                yield Found(place, "scan")
                continue
            if depth < _DEPTH:
                stack.extend((os.path.join(place, name), depth + 1) for name, folder in names if folder and not name.startswith("."))


def ended_long_ago(directory: str, now: float, days: float) -> bool:
    """A run whose log has not moved for days: not worth following because a scan or an old list names it."""
    for name in ("jobstate.log", "braindump.yml"):
        try:
            return now - os.stat(os.path.join(directory, name)).st_mtime > days * 86_400
        except OSError:
            continue
    return True
