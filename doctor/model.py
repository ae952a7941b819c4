"""Frozen records that flow from one stage to the next; nothing here imports "up".

The vocabulary is that of Pegasus and HTCondor: a *job* is a DAG node, an *attempt* one submission of
it, a *run* one submit directory (with its sub-workflows). Times are UNIX seconds, sizes bytes, unless
a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple


class Kind(str, Enum):
    """Which kind of text or field a piece of evidence comes from. Rules name the kinds they read."""

    STDERR = "stderr"  # the user program's standard error (kickstart, or the job's own .err)
    STDOUT = "stdout"  # the user program's standard output
    STATUS = "status"  # kickstart's verdict: exit code, signal, failure error, missing files
    TRANSFER = "transfer"  # pegasus-transfer and the tools it runs
    LITE = "lite"  # PegasusLite's own lines in the job's .err
    INTEGRITY = "integrity"  # pegasus-integrity and kickstart's integrity records
    HOLD = "hold"  # hold reason with code and subcode
    EVENT = "event"  # other job events: evicted, aborted, shadow exception, disconnected
    PLANNER = "planner"  # pegasus-plan's log
    DAGMAN = "dagman"  # dagman.out, monitord, pegasus-run and other DAG-level logs
    DAEMON = "daemon"  # HTCondor's daemons and client tools
    EXITCODE = "exitcode"  # pegasus-exitcode's verdict (exitcode.log)
    SUBMIT = "submit"  # facts of the submit file
    RUN = "run"  # facts of the whole run


class RunState(str, Enum):
    """State of a run, from the submit directory alone."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RUNNING = "running"
    HELD = "held"
    STALLED = "stalled"
    REMOVED = "removed"
    NEVER_STARTED = "never-started"
    UNKNOWN = "unknown"


class JobState(str, Enum):
    """Latest state of one DAG node."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    HELD = "held"
    RUNNING = "running"
    QUEUED = "queued"
    UNSUBMITTED = "unsubmitted"


class Line(NamedTuple):
    """One line of text with its place: ``number`` is 1-based, or None when the place is not known."""

    text: str
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One line that proves something. ``file`` is relative to the analysed submit directory."""

    file: str
    line: int | None
    text: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be read (wholly), and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Channel:
    """A bounded piece of text of one kind, ready for the rules.

    Besides text a rule may test the hold ``(code, subcode)``, or for :attr:`Kind.STATUS` the exit
    code and signal of the program.
    """

    kind: Kind
    file: str
    lines: tuple[Line, ...]
    hold: tuple[int, int] | None = None
    exit_code: int | None = None
    signal: int | None = None
    accept: frozenset[Kind] = frozenset()  # further kinds whose rules may read this text


class Strength(str, Enum):
    """How much a match says: a specific wording, a general one, or a mere hint."""

    SPECIFIC = "specific"
    GENERAL = "general"
    WEAK = "weak"

    @property
    def order(self) -> int:
        """0 for a hint, 1 for a general wording, 2 for a specific one."""
        return (Strength.WEAK, Strength.GENERAL, Strength.SPECIFIC).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that matched one line (or code) of one channel."""

    rule: str
    cause: str  # "category/id"
    strength: Strength
    evidence: Evidence
    captures: dict[str, str] = field(default_factory=dict)
    rank: int = 50


@dataclass(frozen=True, slots=True)
class Culprit:
    """The DAG node to blame, and where it ran. Empty strings where unknown; attempt counts from 1."""

    job: str
    transformation: str = ""
    site: str = ""
    host: str = ""
    workflow: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Symptom:
    """What the failure looked like elsewhere: true, visible, and not the cause."""

    job: str
    text: str
    file: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """One action of the action layer that may cure the cause, with its parameters."""

    action: str
    params: dict[str, Any]
    risk: str
    summary: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cause that was considered and not chosen, with the reason (shown by ``--verbose``)."""

    cause: str
    decided_by: str
    evidence: Evidence
    why_not: str


BY_MODEL = "llm:"  # begins `decided_by` where a model decided


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The verdict on one failed attempt of one job."""

    cause: str
    confidence: float  # 0 to 1
    decided_by: str  # "rule:<id>", "structure:<name>" or "llm:<model>"
    culprit: Culprit
    summary: str
    explanation: str
    evidence: tuple[Evidence, ...]
    symptoms: tuple[Symptom, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    ruled_out: tuple[Candidate, ...] = ()
    advice: str = ""
    message: str = ""  # normalised text that identifies "the same failure again"
    subject: str = ""  # the file, module, host ... that the failure is about
    when: float = 0.0

    @property
    def by_model(self) -> bool:
        """Whether a model, not a rule or the doctor's code, decided."""
        return self.decided_by.startswith(BY_MODEL)


@dataclass(frozen=True, slots=True)
class Incident:
    """All diagnoses with one fingerprint: what a person would call one problem."""

    id: str
    diagnosis: Diagnosis
    jobs: tuple[str, ...]

    @property
    def category(self) -> str:
        return self.diagnosis.cause.split("/", 1)[0]

    @property
    def cause(self) -> str:
        return self.diagnosis.cause.split("/", 1)[1]


@dataclass(frozen=True, slots=True)
class RunWarning:
    """A silent failure: jobs that succeeded with results that nobody should trust."""

    cause: str
    summary: str
    jobs: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    advice: str = ""


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Jobs (DAG nodes) of the run and all its sub-workflows by latest state."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    held: int = 0
    running: int = 0
    queued: int = 0
    unsubmitted: int = 0


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Identity and state of the analysed run."""

    submit_dir: str
    label: str
    wf_uuid: str
    root_wf_uuid: str
    state: RunState
    state_reason: str
    jobs: JobCounts


@dataclass(frozen=True, slots=True)
class Opinion:
    """What asking a model about one incident came to. ``outcome``: answered, abstained or none (with the reason)."""

    incident: str
    model: str
    outcome: str
    reason: str
    kept: bool = False  # the answer had been paid for before
    calls: int = 0
    sent: int = 0  # tokens, those of the provider's cache included
    received: int = 0
    cache_read: int = 0
    dollars: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """Everything ``analyze`` found; the reports render this and nothing else."""

    run: RunSummary
    incidents: tuple[Incident, ...]
    warnings: tuple[RunWarning, ...]
    unreadable: tuple[Unreadable, ...]
    history: tuple[Symptom, ...] = ()
    opinions: tuple[Opinion, ...] = ()  # of a model, where one was asked
