"""The daemon: one process that follows all runs of a user, diagnoses while they run, and drives the loop.

Threads, each of which may fail or hang without stopping the others: readers (logs, diagnoses), the
writer (store), the scout (which runs there are, disks, live detections), the queue poller, healers
(the loop), the notifier. The main thread keeps time: it sweeps files, publishes the state and tells
the service manager that all is well.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from doctor.diagnose.matcher import Matcher
from doctor.loop.policy import Policy, load_policy
from doctor.settings import in_force
from doctor.store import Store
from doctor.watch import system
from doctor.watch.board import Board
from doctor.watch.config import Config, load_config
from doctor.watch.disks import DiskWatch
from doctor.watch.healing import Healer
from doctor.watch.lookout import Lookout
from doctor.watch.metrics import Endpoint
from doctor.watch.notify import Notifier
from doctor.watch.observe import Observers, read_mounts
from doctor.watch.poller import Poller
from doctor.watch.queue import Condor, distrust_library
from doctor.watch.readers import Readers
from doctor.watch.ready import Ready
from doctor.watch.scout import Scout
from doctor.watch.snapshots import QueueJob, Slot
from doctor.watch.watched import SourceState, Watched
from doctor.watch.writer import Writer

log = logging.getLogger("doctor.watch")

_END_S = 4.0  # after SIGTERM the process is gone within this time, whatever happens
_FAULT = "internal error: "
_AT_START = ("readers", "healers", "nice", "idle_io")  # limits that hold for the life of the process
_STUCK_S = 60.0  # no thread has made a sign for so long: no sign of life to the service manager either


class Daemon:
    """Everything that runs. ``named`` are the runs of the command line, the two files those it names (else the user's own)."""

    def __init__(
        self, store: Store, config: Config, policy: Policy, matcher: Matcher, *, named: Iterable[str] = (), condor: Any = None,
        config_file: Path | None = None, policy_file: Path | None = None, alone: bool = False, heal: bool = True,
        clock: Callable[[], float] = time.time,
        master_db: Path | None = None, say: Callable[[str], None] = lambda word: None,
    ) -> None:  # fmt: skip
        self.store, self.config, self.policy, self.matcher = store, config, policy, matcher
        self.config_file, self.policy_file = config_file, policy_file
        self.named = [os.path.realpath(path) for path in named]
        self.alone = alone  # only the named runs
        self.heal = heal
        self.say = say  # to `status`, where the store cannot be written
        self.damaged = ""  # why the store has to be opened anew
        self.clock = clock
        self.condor = condor if condor is not None else Condor(_user())
        self.master_db = master_db or Path.home() / ".pegasus" / "workflow.db"
        self.runs: dict[str, Watched] = {}
        self.ready = Ready()
        self.writer = Writer(Store(store.folder, clock), self._room)  # a connection of its own
        self.writer.damaged = self._damaged
        self.observers = Observers(self.ready.wake)
        self.disks = DiskWatch(mounts=read_mounts)
        self.jobs: tuple[QueueJob, ...] = ()
        self.jobs_at = 0.0
        self.slots: tuple[Slot, ...] = ()
        self.sources: dict[str, SourceState] = {}
        self.notifier = Notifier(config.notify, store, self._save_cursor)
        self.readers = Readers(self)
        self.scout = Scout(self)
        self.lookout = Lookout(self)
        self.poller = Poller(self)
        self.healer = Healer(self)
        self.board = Board(self)
        self.stopping = threading.Event()
        self._reload = threading.Event()
        self._signs: dict[str, float] = {}
        self.begun = clock()
        self.lines = 0
        self.diagnosed = 0
        self.metrics = Endpoint(self)

    # -- life -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until told to stop (SIGTERM, SIGINT)."""
        for number, what in ((signal.SIGTERM, self.stop), (signal.SIGINT, self.stop), (signal.SIGHUP, self._reload.set)):
            signal.signal(number, lambda _n, _f, what=what: what())  # type: ignore[misc]
        system.end_within(_END_S, signal.SIGTERM, signal.SIGINT)
        for problem in system.be_gentle(self.config.limits.nice, self.config.limits.idle_io):
            log.info("priority could not be lowered: %s", problem)
        self.start()
        system.notify_service("READY=1", f"STATUS=watching {len(self.runs)} runs")
        log.info("watching %d runs", len(self.runs), extra={"fields": {"runs": len(self.runs)}})
        self._keep_time()
        self.shut_down()

    def start(self) -> None:
        """Begin to watch: when this returns, the runs that are known are being watched."""
        distrust_library()
        self.board.begin()
        self.observers.start()
        self.writer.start()
        self.notifier.start()
        self.scout.discover()
        self.healer.start(self.config.limits.healers if self.heal else 0)  # before the readers, who call it
        for number in range(self.config.limits.readers):
            self.thread(self.readers.read, f"reader-{number}")
        self.thread(self.scout.work, "scout")
        self.thread(self.readers.follow_busy, "pace")
        self.thread(self.poller.work, "queue")
        self.metrics.follow()

    def thread(self, work: Callable[[], None], name: str) -> None:
        """Start a thread that outlives its own faults."""
        threading.Thread(target=self._guarded, args=(work, name), name=name, daemon=True).start()

    def _guarded(self, work: Callable[[], None], name: str) -> None:
        """A thread's fault is recorded and the thread goes on."""
        while not self.stopping.is_set():
            try:
                work()
                return
            except Exception as bug:
                log.exception("fault in %s", name)
                self.source(name, False, f"{type(bug).__name__}: {bug}")
                self.stopping.wait(1.0)

    def stop(self) -> None:
        self.stopping.set()
        self.scout.hurry()

    def shut_down(self) -> None:
        """End cleanly; what hangs is left behind, as after a crash: nothing is lost by it."""
        if not self.damaged:  # else it begins again at once, as the same process
            system.notify_service("STOPPING=1")
        self.ready.stop()
        self.healer.stop()
        self.notifier.stop()
        self.observers.stop()
        self.board.publish()
        self.writer.stop()
        log.info("stopped")

    def _damaged(self, why: str) -> None:
        """Nothing can be read or written any more: end, and begin again with a new store."""
        self.damaged = why
        self.stop()

    def _room(self) -> bool:
        return system.free_bytes(self.store.folder) >= self.config.limits.free_space_mb << 20

    def _save_cursor(self, name: str, value: int) -> None:
        self.writer.change(lambda store: store.save_cursor(name, value))

    def source(self, name: str, ok: bool, text: str = "") -> None:
        """Note whether a source of facts answers; only a change is logged."""
        known = self.sources.setdefault(name, SourceState(name))
        if not ok and (known.ok or known.text != text):
            log.warning("%s: %s", name, text, extra={"fields": {"source": name}})
        known.ok, known.text = ok, text
        if ok:
            known.last_good = self.clock()

    def sign(self, name: str) -> None:
        """A sign of life of a thread, for the service manager's watchdog."""
        self._signs[name] = time.monotonic()

    # -- the main thread --------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        interval = system.watchdog_interval() or 10.0
        sweep = publish = alive = time.monotonic()
        rounds = 0
        while not self.stopping.wait(min(1.0, interval / 2, self.config.polling.sweep_s)):
            now = time.monotonic()
            if now >= alive:
                alive = now + min(interval, 10.0)
                if self._healthy(now):
                    system.notify_service("WATCHDOG=1")
            if now >= sweep:
                sweep, rounds = now + self.config.polling.sweep_s, rounds + 1
                self._isolated("sweep", self._sweep, rounds)
            if now >= publish:
                publish = now + 5.0
                self._isolated("metrics", self.metrics.follow)
                self._isolated("status", self.board.publish)
            self._isolated("news", self.board.tell)
            if self._reload.is_set():
                self._reload.clear()
                self.reload()
                self._isolated("status", self.board.publish)

    def _isolated(self, name: str, work: Callable[..., None], *rest: Any) -> None:
        """A fault of one of the main thread's duties is recorded; the others and the next turn are carried out."""
        try:
            work(*rest)
            if name in self.sources and not self.sources[name].ok and self.sources[name].text.startswith(_FAULT):
                self.source(name, True)
        except Exception as bug:
            if self.sources.get(name, SourceState(name)).ok:
                log.exception("fault in %s", name)
            self.source(name, False, f"{_FAULT}{type(bug).__name__}: {bug}")

    def _healthy(self, now: float) -> bool:
        """At least one reader and the scout have made a sign lately."""
        readers = [when for name, when in self._signs.items() if name.startswith("reader")]
        scout = self._signs.get("scout", now)
        return (not readers or now - max(readers) < _STUCK_S) and now - scout < 10 * _STUCK_S

    def _sweep(self, rounds: int) -> None:
        for watched in list(self.runs.values()):
            often = watched.how != "inotify"
            if watched.follower is None or watched.not_before > time.monotonic() or not (often or rounds % 5 == 0):
                continue
            if watched.follower.changed():
                self.ready.wake(watched.key)

    def reload(self) -> None:
        """Read configuration and policy again; a mistake in them leaves the old ones in force."""
        system.notify_service("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = load_config(in_force(self.config_file, "config.toml"))
            policy = load_policy(in_force(self.policy_file, "policy.toml"))
            system.start_log(config.log.level, config.log.file)
            later = [name for name in _AT_START if getattr(config.limits, name) != getattr(self.config.limits, name)]
            self.config, self.policy = config, policy
            self.notifier.configure(config.notify)
            self.metrics.follow(at_once=True)
            words = f"read again; from the next start on: {', '.join(f'limits.{name}' for name in later)}" if later else "read again"
            self.source("config", True, words)
            log.info("configuration and policy %s", words)
        except Exception as problem:  # noqa: BLE001 - whatever is wrong with the new files, the daemon goes on with the old ones
            self.source("config", False, f"not read again, the old one stays in force: {problem}")
        self.scout.hurry()
        system.notify_service("READY=1", f"STATUS=watching {len(self.runs)} runs")


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


__all__ = ["Daemon", "Watched"]
