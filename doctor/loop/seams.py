"""Everything through which the loop touches the world, passed in as one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from doctor.diagnose.matcher import Matcher
from doctor.loop.policy import Policy
from doctor.model import Incident, Report
from doctor.repair import Applied, Caps, Check, Evidence, Failed, Plan, Processes, Queue, Runner, RunView, Skipped
from doctor.run.paths import PathMap
from doctor.run.reader import Run
from doctor.store import Store


class Action(Protocol):
    """One action of the action layer, as the loop sees it."""

    @property
    def name(self) -> str: ...

    @property
    def always_ask(self) -> bool: ...

    def plan(self, incident: Incident, params: dict[str, Any], view: RunView, caps: Caps) -> Plan | Skipped: ...

    def apply(self, plan: Plan, runner: Runner) -> Applied | Failed: ...

    def undo(self, applied: Applied, runner: Runner) -> Applied | Failed: ...

    def verify(self, plan: Plan, evidence: Evidence) -> Check: ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the loop, for whoever shows or logs it. ``incident`` '' for the run as a whole."""

    what: str
    incident: str
    text: str


@dataclass(frozen=True, slots=True)
class Host:
    """Facts of this machine that a rescue depends on."""

    which: Callable[[str], str | None]  # a command's place on PATH
    process: Callable[[int], str | None]  # command line of a live process, None when there is none
    name: str  # this host's name


@dataclass(frozen=True, slots=True)
class Seams:
    """What the loop works with. ``yes`` answers whatever would be asked."""

    store: Store
    policy: Policy
    actions: Mapping[str, Action]
    matcher: Matcher
    queue: Queue | None
    processes: Processes
    host: Host
    view: Callable[[Run, Queue | None], RunView]
    diff: Callable[[Plan], str]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    tell: Callable[[Event], None]
    slots: Callable[[], dict[str, int]] = dict  # the most that a slot of the pool offers, for lower-request
    maps: PathMap = field(default_factory=PathMap)
    yes: bool = False
    patient: Callable[[], bool] = lambda: False  # a queue that does not answer is expected to be back: wait, do not escalate
    opinion: Callable[[Report, Run], Report] | None = None  # a model's view of what the rules leave uncertain (doctor.llm)

    def open(self, directory: Path) -> Run:
        """The run as it is now: nothing is kept from an earlier look."""
        from doctor.run.files import Ledger
        from doctor.run.reader import open_run

        return open_run(directory, Ledger(), self.maps)
