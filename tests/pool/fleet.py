"""Many workflows at once on one pool: each test asks for the outcome of one and waits for that alone.

Real workflows take half a minute each, mostly in waiting, so all that the selected tests need are
started together and run side by side.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .flow import Flow
from .live import Doctor, Live, Planner, Tweak, nothing, settle, small, state_of
from .pool import Pool

WORKERS = 16


def ended(live: Live) -> None:
    """The usual moment to look: DAGMan has ended."""
    live.wait_end()


@dataclass
class Outcome:
    """What came of one scenario. `code` and `document` are those of `heal --json`; `notes` what a scenario added."""

    live: Live
    policy: Path
    state: Path
    code: int = -1
    document: dict[str, Any] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    def heal(self, doctor: Doctor, *more: str, timeout: float = 240) -> tuple[int, dict[str, Any]]:
        words = ["--policy", str(self.policy), "--state", str(self.state), "--json", "--timeout", str(timeout), *more]
        return doctor.json("heal", str(self.live.run), *words, seconds=timeout + 120)

    @property
    def actions(self) -> list[dict[str, Any]]:
        return [action for incident in self.document["incidents"] for action in incident["actions"]]

    @property
    def applied(self) -> list[str]:
        return [action["action"] for action in self.actions if action["applied"]]


Step = Callable[[Outcome, Doctor], None]


def no_step(outcome: Outcome, doctor: Doctor) -> None:
    """Nothing more."""


@dataclass(frozen=True)
class Scenario:
    """One workflow and what is done with it. `ready` returns at the moment at which the doctor is called.

    `first` comes before `heal`, `then` after it. Without a policy the doctor is not called at all.
    """

    name: str
    flow: Flow
    before: Tweak = nothing
    after: Tweak = nothing
    ready: Callable[[Live], None] = ended
    policy: str = ""
    timeout: float = 240
    first: Step = no_step
    then: Step = no_step
    slow: bool = False  # takes minutes: begun before all others
    planner: Planner = small
    missing: str = ""  # why it cannot be tried on this host


class Fleet:
    """All scenarios of a session. `start` begins some, `outcome` waits for one."""

    def __init__(self, pool: Pool, base: Path, scenarios: Iterable[Scenario]) -> None:
        self.pool = pool
        self.base = base
        self.scenarios = {one.name: one for one in scenarios}
        self.doctor = Doctor(pool, base / "doctor")
        self._workers = ThreadPoolExecutor(WORKERS)
        self._begun: dict[str, Future[Outcome]] = {}
        self._lives: list[Live] = []

    def start(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._begun:
                self._begun[name] = self._workers.submit(self._drive, self.scenarios[name])

    def outcome(self, name: str) -> Outcome:
        self.start([name])
        return self._begun[name].result(timeout=600)

    def close(self) -> None:
        """Takes every workflow out of the queue."""
        self._workers.shutdown(wait=True, cancel_futures=True)
        for live in self._lives:
            live.remove()

    def _drive(self, scenario: Scenario) -> Outcome:
        place = self.base / scenario.name
        place.mkdir()
        live = settle(scenario.flow, place, self.pool, scenario.before, scenario.after, scenario.planner)
        self._lives.append(live)
        policy = self.doctor.base / f"{scenario.name}.toml"
        policy.write_text(scenario.policy, encoding="utf-8")
        outcome = Outcome(live, policy, self.doctor.base / "home" / scenario.name)
        began = time.monotonic()
        live.submit()
        scenario.ready(live)
        if scenario.policy:
            scenario.first(outcome, self.doctor)
            outcome.before = state_of(place)
            outcome.code, outcome.document = outcome.heal(self.doctor, timeout=scenario.timeout)
            outcome.after = state_of(place)
        scenario.then(outcome, self.doctor)
        outcome.seconds = time.monotonic() - began
        if os.environ.get("POOL_TIMES"):
            sys.stderr.write(f"{scenario.name}: {outcome.seconds:.0f} s\n")
        return outcome


def unmount(place: Path) -> None:
    """Takes a file system of a test's own away again."""
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)
