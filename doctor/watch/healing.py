"""When the daemon takes a run through the loop, and how: one bounded step at a time, never two for one run.

``heal`` with no time left makes every step that can be made now and returns where it would have to
wait; the daemon calls it again when there is news. All memory of a repair is in the store, so a
process that dies in the middle is simply followed by one that goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.errors import DoctorError
from doctor.loop.stages import ENDED, Stage
from doctor.statedir import BusyRun, StoreError
from doctor.store import Store

if TYPE_CHECKING:
    from doctor.watch.daemon import Daemon

log = logging.getLogger("doctor.watch.healing")

_LOOK_AGAIN_S = 15.0  # for a session that waits for evidence or a time
_BUSY_AGAIN_S = 5.0  # for a run that another doctor has, or a command that a killed one has left behind
_ASKED_AGAIN_S = 300.0  # for one that waits for a person; an answer wakes it at once
_COST = 20.0  # a step that took so long is not repeated before this many times its duration
_MINE = frozenset({"opened", "state", "rescue", "outcome", "settled"})


class Stopping(BaseException):
    """Raised out of a pause of the loop when the daemon has to end."""


@dataclass
class Case:
    """One run that wants (or has) the loop's attention. Times are monotonic."""

    key: str
    at: float  # when to take it through the loop, 0: not planned
    earliest: float = 0.0
    running: bool = False
    open: bool = False  # the session goes on
    again: bool = False
    urgent: bool = False  # it has to be taken up again right after this step
    outcome: str = ""
    faults: int = 0
    looks: int = 0  # in a row after which the logs that the loop reads did not tell yet of what the daemon has seen


class Healer:
    """A few threads that take runs through the loop."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._cases: dict[str, Case] = {}
        self._wake = threading.Condition()
        self._threads = 0
        self.steps = 0
        self.problem = ""

    def start(self, threads: int) -> None:
        self._threads = threads
        self.resume(self._daemon.runs)
        for number in range(threads):
            self._daemon.thread(self._work, f"healer-{number}")

    def resume(self, keys: Iterable[str]) -> None:
        """What an earlier process left open goes on at once: a session, or an incident for which none was begun yet."""
        if not self._threads or not (keys := set(keys)):
            return
        for key in keys & self._daemon.store.unfinished().keys():
            self.wanted(key, at_once=True)

    @property
    def active(self) -> int:
        return sum(case.running for case in list(self._cases.values()))

    def busy(self, key: str) -> bool:
        case = self._cases.get(key)
        return case is not None and (case.running or case.open or case.at > 0)

    def forget(self, key: str) -> None:
        """The run is not watched any more."""
        with self._wake:
            self._cases.pop(key, None)

    # -- what makes a run come up -----------------------------------------------------------------------

    def wanted(self, key: str, at_once: bool = False, urgent: bool = False) -> None:
        """Something is wrong. A failed job is given a moment to be retried by DAGMan; a held one is not.

        ``urgent``: jobs burn, so the pause after a costly step is left out.
        """
        if not self._threads:
            return
        now = time.monotonic()
        with self._wake:
            case = self._cases.setdefault(key, Case(key, 0.0))
            if urgent:
                case.earliest, case.urgent = 0.0, case.running
            due = now + (0.2 if at_once or urgent else self._daemon.config.polling.settle_s)
            case.at = max(min(case.at or due, due), case.earliest)
            case.again = case.again or case.running
            self._wake.notify()

    def news(self, key: str) -> None:
        """The logs have grown: whoever waits for evidence looks again."""
        case = self._cases.get(key)
        if case is None or not (case.open or case.at):
            return
        with self._wake:
            due = max(time.monotonic() + 1.0, case.earliest)
            case.at = min(case.at or due, due)
            case.again = case.again or case.running
            self._wake.notify()

    def happened(self, key: str, event: str) -> None:
        """A line of the history that the loop did not write itself, such as a person's answer."""
        if event not in _MINE and key:
            self.wanted(key, at_once=True)

    # -- the threads ------------------------------------------------------------------------------------

    def _work(self) -> None:
        store: Store | None = None
        try:
            while not self._daemon.stopping.is_set():
                case = self._next()
                if case is None:
                    continue
                begun = time.monotonic()
                try:
                    if store is None:
                        store = Store(self._daemon.store.folder, self._daemon.clock)
                        import doctor.loop.graph
                        import doctor.loop.wiring  # noqa: F401 - seconds, and only once: no cost of the first step

                        begun = time.monotonic()
                    self._step(case, store)
                except DoctorError:
                    case.at = time.monotonic() + _BUSY_AGAIN_S  # the store cannot be opened; nothing was done
                    raise
                finally:
                    with self._wake:
                        case.running = False
                        pause = 0.0 if case.urgent else min(600.0, _COST * (time.monotonic() - begun))
                        case.earliest, case.urgent = time.monotonic() + pause, False
                        if case.again:
                            case.again = False
                            case.at = max(case.earliest, time.monotonic() + 0.5) if not case.at else max(case.at, case.earliest)
                        elif case.at:
                            case.at = max(case.at, case.earliest)
        except Stopping:
            return
        finally:
            if store is not None:
                store.close()

    def _next(self) -> Case | None:
        with self._wake:
            if self._daemon.writer.problem:  # what cannot be written down is not done
                self._wake.wait(1.0)
                return None
            now = time.monotonic()
            due = [case for case in self._cases.values() if case.at and not case.running]
            ready = min((case for case in due if case.at <= now), key=lambda case: case.at, default=None)
            if ready is None:
                self._wake.wait(max(0.05, min([2.0, *(case.at - now for case in due)])))
                return None
            ready.at, ready.running = 0.0, True
            return ready

    def _step(self, case: Case, store: Store) -> None:
        watched = self._daemon.runs.get(case.key)
        if watched is None:
            self._cases.pop(case.key, None)
            return
        name = "loop"
        try:
            outcome = self._heal(watched.directory, store)
        except BusyRun as busy:
            self._daemon.source(name, True, str(busy))
            case.at, case.open = time.monotonic() + _BUSY_AGAIN_S, True
            return
        except StoreError as problem:  # locked or full: at once when it can be used again
            self._daemon.source(name, False, str(problem))
            case.at = time.monotonic() + _BUSY_AGAIN_S
            return
        except Exception as bug:
            case.faults += 1
            self.problem = f"{watched.directory}: {type(bug).__name__}: {bug}"
            self._daemon.source(name, False, self.problem)
            if case.faults in (1, 10):
                log.exception("the loop failed on %s", watched.directory)
            case.at = time.monotonic() + min(600.0, 5.0 * 2 ** min(case.faults, 7))
            return
        case.faults, self.problem = 0, ""
        self.steps += 1
        self._daemon.source(name, True)
        case.open = bool(store.session(case.key))
        unread = not case.open and not case.at and any(row.stage is Stage.OPEN for row in store.incidents(case.key))
        case.looks = case.looks + 1 if unread else 0
        if unread:
            case.at = time.monotonic() + min(_ASKED_AGAIN_S, 2.0 ** min(case.looks, 9))
        if case.open and not case.at:
            rows = store.incidents(case.key, session=store.session(case.key))
            asked = any(row.stage is Stage.WAITING for row in rows)
            others = any(row.stage not in ENDED and row.stage is not Stage.WAITING for row in rows)
            case.at = time.monotonic() + (_ASKED_AGAIN_S if asked and not others else _LOOK_AGAIN_S)
        if outcome != case.outcome:
            case.outcome = outcome
            log.info("%s: %s", watched.directory, outcome, extra={"fields": {"run": watched.directory, "outcome": outcome}})

    def _heal(self, directory: str, store: Store) -> str:
        from doctor.loop.heal import heal
        from doctor.loop.wiring import assemble

        daemon = self._daemon
        seams: Any = assemble(
            store, daemon.policy, daemon.matcher, tell=self._told, clock=daemon.clock, sleep=self._sleep, patient=daemon.poller.patient
        )
        return heal(seams, Path(directory), timeout=0.0, called=False).outcome

    def _told(self, event: Any) -> None:
        log.debug("%s %s: %s", event.what, event.incident, event.text, extra={"fields": {"incident": event.incident, "event": event.what}})

    def _sleep(self, seconds: float) -> None:
        if self._daemon.stopping.wait(seconds):
            raise Stopping

    def stop(self) -> None:
        with self._wake:
            self._wake.notify_all()


__all__ = ["Case", "DoctorError", "Healer", "Stopping"]
