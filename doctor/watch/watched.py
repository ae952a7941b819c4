"""What the daemon keeps of one run, and of one source of facts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from doctor.watch.follow import Follower
from doctor.watch.picture import Pictures
from doctor.watch.snapshots import RunPicture


@dataclass
class Watched:
    """One run under watch."""

    key: str
    directory: str
    source: str
    named: bool = False
    follower: Follower | None = None
    pictures: Pictures | None = None
    picture: RunPicture | None = None
    how: str = ""
    folders: set[str] = field(default_factory=set)
    lines: int = 0
    diagnosed: int = 0
    problem: str = ""
    faults: int = 0
    not_before: float = 0.0  # after a fault
    last_news: float = 0.0
    last_turn: float = 0.0
    live: dict[str, int] = field(default_factory=dict)  # fingerprint -> times in a row that it was absent
    shown: str = ""
    turns: int = 0  # since `counted`, for the pace
    counted: float = 0.0
    over: bool = False
    told: dict[str, tuple[str, float]] = field(default_factory=dict)  # live incident -> its text, and when it was written
    ran: float = 0.0  # when a job of it was last seen to run in the queue
    busy: float = 0.0  # when its idle jobs were last seen to wait for slots that others have
    burning: set[str] = field(default_factory=set)  # fingerprints that hit so many jobs that the workflow is to be halted
    nodes: tuple[tuple[str, int], ...] = ()  # execute nodes under suspicion when they were last looked at


@dataclass
class SourceState:
    """Health of one source of facts, for ``status``."""

    name: str
    ok: bool = True
    text: str = ""
    last_good: float = 0.0


def row_of(watched: Watched, state: str = "") -> dict[str, Any]:
    """What ``status`` shows of a run, as it is stored; ``state`` says what became of it where its logs do not."""
    follower = watched.follower
    summary = follower.summary() if follower is not None else None
    jobs = summary.jobs if summary is not None else None
    body = {
        "source": watched.source, "how": watched.how, "problem": watched.problem, "lines": watched.lines, "live": list(watched.live),
        "label": summary.label if summary else "", "parts": len(follower.parts) if follower else 0,
        "jobs": {name: getattr(jobs, name) for name in ("total", "succeeded", "failed", "held", "running", "queued")} if jobs else {},
        "moved": follower.moved if follower else 0.0,
    }  # fmt: skip
    return {
        "run": watched.key, "submit_dir": watched.directory, "state": state or (summary.state.value if summary else "unread"),
        "body": json.dumps(body),
    }  # fmt: skip
