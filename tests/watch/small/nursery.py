"""Daemons by the dozen: ``nursery.py FOLDER`` imports once and forks a daemon for each line of its input.

A line is ``START N WORD`` (kill yourself with SIGKILL at the N-th point whose name holds the word, at any one
without a word; 0 for never); the answer is the daemon's process id. ``RUN [WORD, ...]`` runs another command to
its end; the answer is its exit code. Everything of a process is made after the fork: what one knew dies with it.
A point is any moment of the loop at which something was written down, or done, or is about to be done.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import actions._files  # noqa: F401 - imported for all daemons at once
import doctor.loop.graph
import doctor.watch.daemon
from doctor import process, queue
from doctor.cli import main
from doctor.store import PlanJournal, Store
from doctor.watch import healing
from tests.watch.small import dagman

_WRITES = (
    "see_run", "begin_session", "end_session", "open_incident", "move", "add_plan", "plan_state", "add_verdict", "begin_attempt",
    "begin_rescue", "rescue_submitted", "end_rescue", "add_outcome", "note",
)  # fmt: skip


class Points:
    """Counts the points that the threads of the loop pass, and dies at one."""

    def __init__(self, folder: Path, last: int, word: str) -> None:
        self.folder, self.last, self.word, self.passed = folder, last, word, 0
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        if not threading.current_thread().name.startswith(("healer", "ThreadPool")) or not self.last or self.word not in name:
            return
        with self._lock:
            self.passed += 1
            if self.passed < self.last:
                return
            with open(self.folder / "kills.log", "a") as log:
                log.write(f"{name}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, label: Callable[..., str], before: bool = False) -> None:
        original = getattr(owner, name)

        def wrapped(*values: Any, **more: Any) -> Any:
            what = label(*values)
            if before:
                self(f"before {what}")
            answer = original(*values, **more)
            self(f"after {what}")
            return answer

        setattr(owner, name, wrapped)


class SmallQueue:
    """The queue of the small programs (implements :class:`doctor.repair.Queue`); says in commands.log what it was asked to do."""

    folder: Path

    def __init__(self, processes: object = None) -> None:
        pass

    def ads(self) -> list[dict[str, Any]]:
        found = []
        for path in self.folder.glob("*.json"):
            try:
                found.append(dagman.get(str(self.folder), path.stem))
            except FileNotFoundError:
                continue
        return found

    def present(self, constraint: str) -> list[dict[str, Any]]:
        import classad2

        tree = classad2.ExprTree(constraint)
        return [ad for ad in self.ads() if tree.eval(classad2.ClassAd(ad)) is True]

    def get(self, job_id: str, attribute: str) -> str | None:
        found = self.present(f"ClusterId == {job_id.partition('.')[0]}")
        return str(found[0][attribute]) if found and attribute in found[0] else None

    def edit(self, job_id: str, attribute: str, value: str) -> None:
        self._change(job_id, "changed", attribute, int(value))

    def release(self, job_id: str, reason: str) -> None:
        self._change(job_id, "released", "JobStatus", 1)

    def hold(self, job_id: str, reason: str) -> None:
        self._change(job_id, "held by the doctor", "JobStatus", 5)

    def _change(self, job_id: str, what: str, attribute: str, value: int) -> None:
        ad = dagman.get(str(self.folder), job_id.partition(".")[0])
        done = f"{what} {job_id} {attribute} {ad.get(attribute)} -> {value}"
        dagman.put(str(self.folder), ad | {attribute: value, "done": [*ad.get("done", ()), done]})


class SmallCondor:
    """What the daemon's poller asks."""

    def __init__(self, owner: str = "") -> None:
        self.queue = SmallQueue()

    def jobs(self) -> list[Any]:
        from doctor.watch.queue import jobs_of

        return jobs_of(self.queue.ads())

    def slots(self) -> list[Any]:
        return []


def _stage(_store: object, *values: Any) -> str:
    return next((f"move to {value.value}" for value in values if hasattr(value, "value")), "move")


def _instrument(points: Points) -> None:
    for name in _WRITES:
        points.around(Store, name, _stage if name == "move" else lambda *_values, name=name: name)
    for name in ("intend", "done", "undone"):
        points.around(PlanJournal, name, lambda *_values, name=name: f"journal {name}")
    points.around(process, "run", lambda argv, *_values: os.path.basename(argv[0]), before=True)
    for name in ("rename", "replace", "fchmod", "fsync"):
        points.around(os, name, lambda *_values, name=name: name, before=True)
    for name in ("edit", "release"):
        points.around(SmallQueue, name, lambda *_values, name=name: f"queue {name}", before=True)
    from langgraph.checkpoint.sqlite import SqliteSaver

    for name in ("put", "put_writes", "delete_thread"):
        points.around(SqliteSaver, name, lambda *_values, name=name: f"checkpoint {name}")


def _command(folder: Path, words: list[str], last: int = 0, word: str = "") -> None:
    log = os.open(folder / "daemon.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _instrument(Points(folder, last, word))
    try:
        main(words, prog_name="pegasus-doctor")
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    os._exit(0)


def serve(folder: Path) -> None:
    SmallQueue.folder = folder / "queue"
    queue.ScheddQueue = SmallQueue  # type: ignore[misc,assignment]
    doctor.watch.daemon.Condor = SmallCondor  # type: ignore[misc,assignment]
    healing._LOOK_AGAIN_S, healing._BUSY_AGAIN_S, healing._COST = 1.0, 0.5, 2.0  # small workflows do not take hours
    watch = ["watch", "--state", str(folder / "state"), "--config", str(folder / "config.toml"), "--policy", str(folder / "policy.toml")]
    for line in sys.stdin:
        what, _, rest = line.rstrip("\n").partition(" ")
        last, _, word = rest.partition(" ")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if what == "RUN" else signal.SIG_IGN)  # the dead are not waited for
        child = os.fork()
        if child == 0:
            if what == "RUN":
                _command(folder, json.loads(rest))
            _command(folder, watch, int(last), word)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if what == "RUN" else child, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
