"""Frozen records and seams of the repair side: plans, guards' answers, what was applied, outcomes.

Kept beside :mod:`doctor.model` because the diagnosis side never needs them. Like the model it
imports nothing "up"; the action layer (package ``actions``) builds on these two modules alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from doctor.model import Incident


class Risk(str, Enum):
    """How much an action can cost: nothing, an undoable edit, machine hours, or lost data."""

    OBSERVE = "observe"
    REVERSIBLE = "reversible"
    COSTLY = "costly"
    DESTRUCTIVE = "destructive"


@dataclass(frozen=True, slots=True)
class JobView:
    """What an action may know of one DAG node. Paths are absolute and of this host; '' where unknown.

    ``queue_ids`` are ids such as ``884.0`` that were in the queue when last looked at.
    """

    name: str
    workflow_dir: str
    dag_file: str
    submit_file: str
    script: str  # the PegasusLite script (.sh), '' for sharedfs jobs
    transfer_file: str  # the .in of a transfer job
    executable: str  # the user's program as the catalog names it, on this host
    transformation: str
    site: str
    data_configuration: str  # condorio, nonsharedfs, sharedfs
    initialdir: str  # where condorio looks for inputs, or sharedfs works
    queue_ids: tuple[str, ...] = ()
    held: bool = False
    hold_code: int = -1
    hold_subcode: int = -1
    memory_used_mb: int = 0
    disk_used_kb: int = 0
    requests: dict[str, str] = field(default_factory=dict)  # request_* and pegasus_* of the submit file, expanded


@dataclass(frozen=True, slots=True)
class RunView:
    """What an action may know of a run. ``active``: DAGMan is in the queue (True), proven gone (False) or unknown."""

    submit_dir: str
    root_dir: str  # submit directory of the root workflow (the same for a root)
    dag_file: str
    planner_arguments: str
    properties_file: str
    replica_catalog: str
    active: bool | None
    state: str
    jobs: dict[str, JobView]
    bindir: str = ""
    scratch_dirs: tuple[str, ...] = ()
    output_dirs: tuple[str, ...] = ()
    workflow_file: str = ""  # the abstract workflow that was planned; its folder is where the planner ran
    base_dir: str = ""  # the folder below which the planner makes submit directories


@dataclass(frozen=True, slots=True)
class Caps:
    """Upper limits that no plan exceeds (policy)."""

    memory_mb: int = 65_536
    disk_mb: int = 512_000
    walltime_s: int = 259_200
    growth: float = 2.0  # factor by which a request grows at a time


@dataclass(frozen=True, slots=True)
class Edit:
    """One file as it shall be. ``before`` None: it must not exist yet. ``after`` None: it is removed.

    ``mode`` are permission bits to set, None to keep them; with both contents None only they change.
    ``directory`` makes a directory instead (or removes an empty one where ``before`` is not None).
    """

    path: str
    before: bytes | None
    after: bytes | None
    mode: int | None = None
    mode_before: int | None = None
    directory: bool = False


@dataclass(frozen=True, slots=True)
class QueueEdit:
    """One change to a job in the queue: attribute edits first, then ``act`` (release, hold or '')."""

    job_id: str
    attributes: tuple[tuple[str, str], ...] = ()
    act: str = ""
    before: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Exactly what an action would do. ``argv`` are commands that it would run, in order."""

    action: str
    incident: str
    job: str
    params: dict[str, Any]
    summary: str
    effect: str
    undo: str
    risk: Risk
    edits: tuple[Edit, ...] = ()
    queue: tuple[QueueEdit, ...] = ()
    argv: tuple[tuple[str, ...], ...] = ()
    rescue: bool = True  # a rescue must follow for the repair to take effect
    manual: str = ""  # an exact command for a person, where this host lacks the tool
    delay_s: float = 0.0  # back-off before the rescue
    new_run: str = ""  # the submit directory that planning again makes: it is submitted and judged, not the old one


@dataclass(frozen=True, slots=True)
class Skipped:
    """The action does not apply here, and why."""

    action: str
    reason: str


class Decision(str, Enum):
    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class GuardAnswer:
    """One guard's answer; the strictest of all wins."""

    guard: str
    decision: Decision
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """A plan that was carried out; ``entries`` are the ids of its journal entries."""

    plan: Plan
    entries: tuple[int, ...]
    when: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A plan that could not be carried out (wholly); what was done was undone where possible."""

    plan: Plan
    reason: str
    undone: bool


class Verification(str, Enum):
    RECOVERED = "recovered"
    NOT_YET = "not-yet"
    WORSE = "worse"


@dataclass(frozen=True, slots=True)
class Check:
    """What later evidence says of a repair."""

    result: Verification
    reason: str


class Queue(Protocol):
    """The seam to HTCondor's queue."""

    def edit(self, job_id: str, attribute: str, value: str) -> None: ...

    def get(self, job_id: str, attribute: str) -> str | None: ...

    def release(self, job_id: str, reason: str) -> None: ...

    def hold(self, job_id: str, reason: str) -> None: ...

    def present(self, constraint: str) -> list[dict[str, Any]]: ...


class Journal(Protocol):
    """The seam to the store: intent before the act, result after it; originals are kept."""

    def intend(self, plan: Plan, what: str, original: bytes | None, mode: int | None) -> int: ...

    def done(self, entry: int) -> None: ...

    def undone(self, entry: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str


class Processes(Protocol):
    """The seam to other programs: argument lists, time limits, no shell."""

    def run(self, argv: tuple[str, ...], timeout: float, cwd: str | None = None) -> Finished: ...


@dataclass(frozen=True, slots=True)
class Runner:
    """Everything through which an action touches the world. ``roots`` confine its edits (resolved paths)."""

    roots: tuple[Path, ...]
    journal: Journal
    processes: Processes
    queue: Queue | None
    now: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What verification may look at: the job's attempts since the repair, newest last.

    ``attempts`` are (attempt index, final state, cause fingerprint or '').
    """

    attempts: tuple[tuple[int, str, str], ...]
    incident: Incident
    run_state: str
