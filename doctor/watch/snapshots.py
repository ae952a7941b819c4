"""What the live detections look at: frozen pictures of the queue, the pool, the disks and the runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

IDLE, RUNNING, REMOVED, COMPLETED, HELD, TRANSFERRING, SUSPENDED = 1, 2, 3, 4, 5, 6, 7


@dataclass(frozen=True, slots=True)
class QueueJob:
    """One job in HTCondor's queue. ``run`` is the submit directory it belongs to, '' where unknown."""

    id: str
    status: int
    node: str = ""  # DAG node
    run: str = ""
    workflow: str = ""  # directory of the DAG it belongs to: the run's, or a sub-workflow's
    dagman: str = ""  # cluster of the DAGMan job above it
    is_dagman: bool = False
    owner: str = ""
    since: float = 0.0  # in this status
    queued: float = 0.0
    started: float = 0.0  # of the current execution
    starts: int = 0
    holds: int = 0
    hold_reason: str = ""
    hold_code: int = -1
    hold_subcode: int = -1
    requests: dict[str, float] = field(default_factory=dict)  # cpus, memory_mb, disk_kb, gpus
    requirements: str = ""
    host: str = ""
    job_class: int = 1
    transformation: str = ""
    universe: int = 5
    ad: Any = None  # the ClassAd itself, for the evaluation of its requirements


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot (or partitionable slot) with its total resources: what it could offer when it is empty."""

    name: str
    machine: str
    offers: dict[str, float]  # cpus, memory_mb, disk_kb, gpus
    ad: Any = None
    free: dict[str, float] | None = None  # the same as it is left now, nothing where a job has the slot; None: not known
    start: str = ""  # the expression that says which jobs it takes


#: (requirement, job's ad, slot's ad) -> True, False, or None when it cannot be told
Evaluate = Callable[[str, Any, Any], bool | None]
#: (job's ad, slot's ad) -> whether the slot's own policy (START) takes the job; None when it cannot be told
Accepts = Callable[[Any, Any], bool | None]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A running stage-in job with the local files that it is to copy and that are not there."""

    job: str
    running_s: float
    missing: tuple[str, ...]  # URLs
    file: str = ""  # its .in file, relative to the run


@dataclass(frozen=True, slots=True)
class Waiting:
    """A sub-workflow node that is under way, and what was last heard of its inside."""

    node: str
    state: str  # the node's latest jobstate word
    since: float
    planned: bool  # there is a DAG inside
    moved: float = 0.0  # when anything inside last moved
    inside_active: bool = False  # its DAGMan job is in the queue
    seen: float = 0.0  # when its DAGMan was last seen in the queue at work: the logs tell of its end later than the queue

    @property
    def going(self) -> bool:
        """Its DAGMan is in the queue and has logged something: what goes on inside is seen like the rest of the run."""
        return self.inside_active and self.moved > 0 and not self.state.startswith("PRE_SCRIPT")


@dataclass(frozen=True, slots=True)
class RunPicture:
    """One run as far as the live detections need it."""

    key: str
    submit_dir: str
    label: str
    root_uuid: str
    started: bool
    ended: bool
    moved: float  # when a log line last said that something moved
    done: int = 0
    total: int = 0
    queued: int = 0
    running: int = 0
    held: int = 0
    failed: int = 0
    begun: float = 0.0
    in_queue: bool | None = None  # its DAGMan job is in the queue; None: the queue is not known
    absent_s: float = 0.0  # for how long it has been out of the queue, and no log has moved
    removed_by: str = ""  # what the log of the DAGMan job says of its removal, looked up when it is gone
    dagman_held: str = ""  # reason why the DAGMan job itself is held
    halted: bool = False
    untold: tuple[str, int | None, str] | None = None  # file, line and text of what DAGMan did and monitord did not tell
    transfers: tuple[Transfer, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    evictions: dict[str, int] = field(default_factory=dict)  # DAG node -> evictions, disconnects and shadow exceptions
    last_words: dict[str, tuple[str, int | None, str]] = field(default_factory=dict)  # of those: file, line and text of the latest event
    log: str = ""  # HTCondor's event log of the run
    outputs: frozenset[str] = frozenset()  # where its stage-out jobs write (URLs)
    fingerprints: dict[str, tuple[float, ...]] = field(default_factory=dict)  # incident -> when its jobs failed, newest last
    host_failures: dict[str, int] = field(default_factory=dict)  # host -> jobs whose latest attempt failed there
    host_successes: dict[str, int] = field(default_factory=dict)
    host_lost: dict[str, tuple[str, ...]] = field(default_factory=dict)  # host -> jobs that failed there and succeeded on others
    cleanup: bool = True  # the workflow has clean-up jobs


@dataclass(frozen=True, slots=True)
class Disk:
    """One file system of a run, measured. ``roles`` such as scratch, output, submit, spool."""

    path: str
    roles: tuple[str, ...]
    free: float  # bytes, or what is left of the quota
    inodes: float
    slope: float = 0.0  # bytes per second, robust
    falling: float = 0.0  # share of pairs of samples that fall
    span: float = 0.0  # seconds that the samples cover
    inode_slope: float = 0.0
    inode_falling: float = 0.0
    growing: tuple[tuple[str, float], ...] = ()  # folders by growth in bytes per second, fastest first
    quota: bool = False
    looks: int = 2  # how often the folders were measured, as far as it matters: growth takes two looks
    total: float = float("inf")  # bytes of the file system
    whole: bool = True  # no folder was too large to be measured


@dataclass(frozen=True, slots=True)
class Detection:
    """Something that is wrong while the run still runs. ``message`` identifies "the same again"."""

    detector: str
    cause: str
    run: str  # key
    jobs: tuple[str, ...]
    summary: str
    explanation: str
    evidence: tuple[tuple[str, int | None, str], ...]  # (file, line, text)
    message: str
    confidence: float = 0.85
    host: str = ""
    subject: str = ""
    params: dict[str, Any] = field(default_factory=dict)  # for the remedies of the cause
    halt: bool = False  # stop submitting before the rest burns
    repairable: bool = True  # the remedies of the cause fit; else there is only advice
