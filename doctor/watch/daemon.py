"""The daemon: one process that follows all runs of a user, diagnoses while they run, and drives the loop.

Threads, each of which may fail or hang without stopping the others: readers (logs, diagnoses), the
writer (store), the scout (which runs there are, disks, live detections), the queue poller, healers
(the loop), the notifier. The main thread keeps time: it sweeps files, publishes the state and tells
the service manager that all is well.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor.diagnose.matcher import Matcher
from doctor.errors import DoctorError
from doctor.loop.policy import Policy, load_policy
from doctor.model import Incident
from doctor.run.stampede import known_workflows
from doctor.statedir import run_key
from doctor.store import Store
from doctor.watch import detect, discover, system
from doctor.watch.backoff import Backoff
from doctor.watch.config import Config, load_config
from doctor.watch.disks import DiskWatch, places
from doctor.watch.follow import Follower
from doctor.watch.healing import Healer
from doctor.watch.incidents import incident_of
from doctor.watch.match import unmatchable
from doctor.watch.notify import Notifier
from doctor.watch.observe import Observers, read_mounts
from doctor.watch.picture import Pictures
from doctor.watch.queue import Condor, distrust_library, evaluate
from doctor.watch.ready import Ready
from doctor.watch.snapshots import IDLE, Detection, QueueJob, RunPicture, Slot
from doctor.watch.writer import Writer, load_marks

if TYPE_CHECKING:
    from doctor.watch.metrics import Server

log = logging.getLogger("doctor.watch")

_CLEAR_AFTER = 2  # a live detection is over when it was absent so many times in a row
_END_S = 4.0  # after SIGTERM the process is gone within this time, whatever happens
_BUSY_TURNS = 30  # turns of one run in a second from which on it is looked at regularly
_PACE_S = 0.05
_QUIET_S = 5.0
_FIELDS = (("run", "submit_dir"), ("incident", "incident"), ("event", "event"), ("cause", "cause"))
_STUCK_S = 60.0  # no thread has made a sign for so long: no sign of life to the service manager either


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


@dataclass
class SourceState:
    """Health of one source of facts, for ``status``."""

    name: str
    ok: bool = True
    text: str = ""
    last_good: float = 0.0


class Daemon:
    """Everything that runs. ``named`` are the runs of the command line."""

    def __init__(
        self, store: Store, config: Config, policy: Policy, matcher: Matcher, *, named: Iterable[str] = (), condor: Any = None,
        config_file: Path | None = None, policy_file: Path | None = None, alone: bool = False, heal: bool = True,
        clock: Callable[[], float] = time.time,
        master_db: Path | None = None,
    ) -> None:  # fmt: skip
        self.store, self.config, self.policy, self.matcher = store, config, policy, matcher
        self.config_file, self.policy_file = config_file, policy_file
        self.named = [os.path.realpath(path) for path in named]
        self.alone = alone  # only the named runs
        self.heal = heal
        self.clock = clock
        self.condor = condor if condor is not None else Condor(_user())
        self.master_db = master_db or Path.home() / ".pegasus" / "workflow.db"
        self.runs: dict[str, Watched] = {}
        self.ready = Ready()
        self.writer = Writer(Store(store.folder, clock), self._room)  # a connection of its own
        self.observers = Observers(self.ready.wake)
        self.disks = DiskWatch(mounts=read_mounts)
        self.jobs: tuple[QueueJob, ...] = ()
        self.jobs_at = 0.0
        self.slots: tuple[Slot, ...] = ()
        self.sources: dict[str, SourceState] = {}
        self.notifier = Notifier(config.notify)
        self.healer = Healer(self)
        self.stopping = threading.Event()
        self._reload = threading.Event()
        self._scout_now = threading.Event()
        self._busy = threading.Event()
        self._signs: dict[str, float] = {}
        self._held_known: set[tuple[str, str]] = set()
        self.begun = clock()
        self.lines = 0
        self.diagnosed = 0
        self.forgotten: set[str] = set()
        self._cursor = 0
        self._metrics: Server | None = None
        self._spool_place: str | None = None

    # -- life -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until told to stop (SIGTERM, SIGINT)."""
        for number, what in ((signal.SIGTERM, self.stop), (signal.SIGINT, self.stop), (signal.SIGHUP, self._reload.set)):
            signal.signal(number, lambda _n, _f, what=what: what())  # type: ignore[misc]
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
        known = self.store.cursor("notified")
        self._cursor = self.store.last_history() if known is None else known
        if known is None:
            self.store.save_cursor("notified", self._cursor)
        self.observers.start()
        self.writer.start()
        self.notifier.start()
        self.discover()
        for number in range(self.config.limits.readers):
            self._thread(self._read, f"reader-{number}")
        self._thread(self._scout, "scout")
        self._thread(self._follow_busy, "pace")
        self._thread(self._poll_queue, "queue")
        self.healer.start(self.config.limits.healers if self.heal else 0)
        self._serve_metrics()

    def _serve_metrics(self) -> None:
        """A port that is taken, or a library that is not there, costs the metrics alone."""
        if not self.config.metrics.enabled or self._metrics is not None:
            return
        from doctor.watch.metrics import Server

        try:
            self._metrics = Server(self, self.config.metrics.port)
            self.source("metrics", True)
        except DoctorError as problem:
            self.source("metrics", False, str(problem))

    def _thread(self, work: Callable[[], None], name: str) -> None:
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
        self._scout_now.set()

    def shut_down(self) -> None:
        """End cleanly; what hangs is left behind after a few seconds, as after a crash: nothing is lost by it."""
        system.notify_service("STOPPING=1")
        killer = threading.Timer(_END_S, os._exit, (0,))
        killer.daemon = True
        killer.start()
        self.ready.stop()
        self.healer.stop()
        self.notifier.stop()
        self.observers.stop()
        self.publish()
        self.writer.stop()
        log.info("stopped")
        killer.cancel()

    def _room(self) -> bool:
        return system.free_bytes(self.store.folder) >= self.config.limits.free_space_mb << 20

    def source(self, name: str, ok: bool, text: str = "") -> None:
        known = self.sources.setdefault(name, SourceState(name))
        if not ok and (known.ok or known.text != text):
            log.warning("%s: %s", name, text, extra={"fields": {"source": name}})
        known.ok, known.text = ok, text
        if ok:
            known.last_good = self.clock()

    def sign(self, name: str) -> None:
        self._signs[name] = time.monotonic()

    # -- the main thread --------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        interval = system.watchdog_interval() or 10.0
        sweep = publish = alive = time.monotonic()
        rounds = 0
        cursor = self._cursor
        while not self.stopping.wait(min(1.0, interval / 2, self.config.polling.sweep_s)):
            now = time.monotonic()
            if now >= alive:
                alive = now + min(interval, 10.0)
                if self._healthy(now):
                    system.notify_service("WATCHDOG=1")
            if now >= sweep:
                sweep, rounds = now + self.config.polling.sweep_s, rounds + 1
                self._sweep(rounds)
            if now >= publish:
                publish = now + 5.0
                self.publish()
                cursor = self._tell(cursor)
            if self._reload.is_set():
                self._reload.clear()
                self.reload()

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

    def _tell(self, cursor: int) -> int:
        """Hand what has happened since to the notifier."""
        try:
            rows = self.store.history_after(cursor)
        except DoctorError:
            return cursor
        self.notifier.tick()
        if not rows:
            return cursor
        self.notifier.offer(rows)
        for row in rows:
            log.info(
                "%s: %s", row["event"], row["text"],
                extra={"fields": {name: row[key] or "" for name, key in _FIELDS}},
            )  # fmt: skip
            self.healer.happened(row["run"], row["event"])
        cursor = int(rows[-1]["id"])
        self.writer.change(lambda store: store.save_cursor("notified", cursor))
        return cursor

    def reload(self) -> None:
        """Read configuration and policy again; a mistake in them leaves the old ones in force."""
        system.notify_service("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self.config = load_config(self.config_file)
            self.policy = load_policy(self.policy_file)
            self.notifier.stop()
            self.notifier = Notifier(self.config.notify)
            self.notifier.start()
            system.start_log(self.config.log.level, self.config.log.file)
            self._serve_metrics()
            self.source("config", True, "read again")
            log.info("configuration and policy read again")
        except DoctorError as problem:
            self.source("config", False, f"not read again, the old one stays in force: {problem}")
        self._scout_now.set()
        system.notify_service("READY=1", f"STATUS=watching {len(self.runs)} runs")

    # -- readers ----------------------------------------------------------------------------------------

    def _read(self) -> None:
        name = threading.current_thread().name
        while not self.stopping.is_set():
            self.sign(name)
            taken = self.ready.take()
            if taken is None:
                continue
            key, _since = taken
            again = False
            try:
                again = self._turn(key)
            finally:
                self.ready.done(key, again)

    def _turn(self, key: str) -> bool:
        watched = self.runs.get(key)
        if watched is None or watched.not_before > time.monotonic():
            return False
        try:
            if watched.follower is None:
                self._open(watched)
            follower = watched.follower
            assert follower is not None
            if not watched.folders:
                self._watch_folders(watched)
            turn = follower.turn()
            if turn.started or turn.more:
                follower_new = follower.look_for_sub_workflows() if turn.started else False
                if follower_new:
                    self._watch_folders(watched)
            if len(follower.parts) != len(watched.folders) and watched.how != "busy":
                self._watch_folders(watched)
        except DoctorError as problem:
            return self._fault(watched, str(problem))
        except Exception as bug:
            log.exception("fault while following %s", watched.directory)
            return self._fault(watched, f"{type(bug).__name__}: {bug}")
        watched.faults, watched.problem = 0, "; ".join(turn.problems[:3])
        watched.last_turn = time.monotonic()
        self._pace(watched)
        if turn.lines:
            watched.lines += turn.lines
            watched.last_news = time.monotonic()
            watched.over = False
            self.lines += turn.lines
        self.diagnosed += turn.diagnosed
        watched.diagnosed += turn.diagnosed
        if turn.marks or turn.seen or turn.incidents or turn.resolved:
            summary = follower.summary() if turn.incidents else None
            self.writer.turn(key, summary, turn)
        if turn.incidents or turn.ended is not None or turn.resolved:
            self.healer.wanted(key, at_once=turn.ended is not None or any(self._urgent(one) for one in turn.incidents))
        elif turn.lines:
            self.healer.news(key)
        return turn.more

    def _pace(self, watched: Watched) -> None:
        """A run whose logs are written all the time is looked at twenty times a second instead of being notified of.

        Each notification costs the writer of the log, too, and says nothing new then.
        """
        watched.turns += 1
        now = watched.last_turn
        if now - watched.counted < 1.0:
            return
        fast, watched.turns, watched.counted = watched.turns, 0, now
        if fast > _BUSY_TURNS and watched.how == "inotify":
            for folder in watched.folders:
                self.observers.remove(Path(folder))
            watched.how = "busy"
            self._busy.set()

    def _follow_busy(self) -> None:
        """The pace for busy runs; sleeps while there are none."""
        while not self.stopping.is_set():
            if not self._busy.wait(5.0):
                continue
            busy = [watched for watched in list(self.runs.values()) if watched.how == "busy"]
            if not busy:
                self._busy.clear()
            for watched in busy:
                if watched.follower is None or watched.follower.changed():
                    self.ready.wake(watched.key)
                elif time.monotonic() - watched.last_news > _QUIET_S:
                    watched.how = ""
                    watched.folders.clear()  # the next turn watches them again, and reads what came meanwhile
                    self.ready.wake(watched.key)
            self.stopping.wait(_PACE_S)

    def _urgent(self, incident: Incident) -> bool:
        """A held job may be removed any minute; a systemic failure burns jobs."""
        by = incident.diagnosis
        return by.cause.endswith("-hold") or len(incident.jobs) >= self.config.detections.systemic_jobs

    def _open(self, watched: Watched) -> None:
        follower = Follower(Path(watched.directory), self.matcher, load_marks(self.store, watched.key), self.store.seen(watched.key))
        watched.pictures = Pictures(follower)
        row = next((row for row in self.store.watched() if row["run"] == watched.key), None) if not watched.live else None
        if row is not None:
            watched.live = dict.fromkeys(json.loads(row["body"]).get("live", ()), 0)
        watched.follower = follower
        follower.look_for_sub_workflows()
        self._watch_folders(watched)

    def _watch_folders(self, watched: Watched) -> None:
        assert watched.follower is not None
        for folder in watched.follower.folders():
            if str(folder) not in watched.folders:
                how = self.observers.add(folder, watched.key)
                watched.how = how if how != "inotify" or not watched.how else watched.how
                watched.folders.add(str(folder))

    def _fault(self, watched: Watched, text: str) -> bool:
        """One run's fault: it is tried again, ever less often, and nothing else is touched."""
        watched.faults += 1
        watched.problem = text
        watched.not_before = time.monotonic() + min(300.0, 2.0 ** min(watched.faults, 9))
        if watched.faults in (1, 10):
            log.warning("%s: %s", watched.directory, text, extra={"fields": {"run": watched.directory}})
        return False

    # -- scout ------------------------------------------------------------------------------------------

    def _scout(self) -> None:
        disks_at = detect_at = discover_at = 0.0
        while not self.stopping.is_set():
            self.sign("scout")
            now = time.monotonic()
            if now >= discover_at or self._scout_now.is_set():
                self._scout_now.clear()
                self._isolated("discovery", self.discover)
                discover_at = time.monotonic() + self.config.discovery.every_s
            if now >= disks_at:
                self._isolated("disks", lambda: self.disks.sample(self.clock()))
                disks_at = time.monotonic() + self.config.polling.disk_s
            if now >= detect_at:
                self._isolated("detections", self.detect)
                detect_at = time.monotonic() + min(self.config.polling.queue_s, 15.0)
            pause = min(discover_at, disks_at, detect_at) - time.monotonic()
            self._scout_now.wait(max(0.05, min(pause, 15.0)))

    def _isolated(self, name: str, work: Callable[[], object]) -> None:
        """One plug-in's fault is recorded, and the others go on."""
        try:
            work()
            self.source(name, True)
        except Exception as bug:
            if self.sources.get(name, SourceState(name)).ok:
                log.exception("fault in %s", name)
            self.source(name, False, f"{type(bug).__name__}: {bug}")

    def discover(self) -> None:
        """Find new runs and let go of finished ones."""
        found: dict[str, tuple[str, bool]] = {}
        for place in self.named:
            found.setdefault(place, ("named", True))
        if not self.alone:
            settings = self.config.discovery
            for place in settings.runs:
                found.setdefault(os.path.realpath(os.path.expanduser(place)), ("config", True))
            if settings.queue:
                for one in discover.from_queue(self.jobs):
                    found.setdefault(one.directory, (one.source, False))
            listed: list[discover.Found] = []
            if settings.workflow_db:
                listed += [discover.Found(os.path.realpath(place), "workflow.db") for place, _ in known_workflows(self.master_db)]
            listed += discover.from_folders(settings.folders)
            wall = self.clock()
            for one in listed:
                if one.directory in found or len(found) >= settings.max_runs or one.directory in self.forgotten:
                    continue
                if discover.is_run(one.directory) and not discover.ended_long_ago(one.directory, wall, settings.forget_days):
                    found[one.directory] = (one.source, False)
        for directory, (source, named) in found.items():
            key = run_key(directory)
            if key not in self.runs:
                self.runs[key] = Watched(key, directory, source, named)
                self.ready.wake(key)
        self._let_go(found)

    def _let_go(self, found: dict[str, tuple[str, bool]]) -> None:
        wall = self.clock()
        for watched in list(self.runs.values()):
            follower = watched.follower
            gone = not os.path.isdir(watched.directory)
            settled = follower is not None and follower.ended == 0 and not follower.pending and not self.healer.busy(watched.key)
            quiet = time.monotonic() - watched.last_news > 30
            old = follower is not None and follower.moved and wall - follower.moved > self.config.discovery.forget_days * 86_400
            if (gone and not watched.named) or (settled and quiet and not watched.live) or (old and not watched.named):
                self._forget(watched, gone)

    def _forget(self, watched: Watched, gone: bool) -> None:
        """A finished run is let go: it costs nothing any more. A rescue brings it back through the queue."""
        self.runs.pop(watched.key, None)
        self.disks.forget(watched.key)
        for folder in watched.folders:
            self.observers.remove(Path(folder))
        self.forgotten.add(watched.directory)
        if len(self.forgotten) > 50_000:
            self.forgotten.clear()
        state = "vanished" if gone else "finished"
        if watched.directory in self.named:
            self.named.remove(watched.directory)
        row = self._row(watched, state)
        self.writer.change(lambda store: store.save_watched([row]))
        log.info("%s: %s, let go", watched.directory, state, extra={"fields": {"run": watched.directory}})

    def detect(self) -> None:
        """Look at all runs while they run."""
        now = self.clock()
        fresh = bool(self.jobs_at) and now - self.jobs_at < 4 * self.config.polling.queue_s
        jobs = self.jobs if fresh else ()
        by_run: dict[str, list[QueueJob]] = {}
        for job in jobs:
            by_run.setdefault(job.run, []).append(job)
        pictures: list[RunPicture] = []
        for watched in list(self.runs.values()):
            if watched.follower is None or watched.pictures is None or watched.follower.rounds == 0:
                continue
            if watched.follower.ended is not None and not watched.live:
                if time.monotonic() - watched.last_news > 60:
                    watched.follower.rest()
                continue
            if not watched.over or watched.picture is None:
                self.disks.follow(watched.key, places(watched.follower.run, self._spool()))
                watched.over = True
            try:
                watched.follower.look_for_sub_workflows()
                watched.picture = watched.pictures.take(watched.key, by_run.get(str(watched.follower.run.directory), ()), fresh, now)
                pictures.append(watched.picture)
            except RuntimeError:  # the logs moved under the picture: the next one will do
                continue
        found: dict[str, list[Detection]] = {picture.key: [] for picture in pictures}
        for picture in pictures:
            found[picture.key] += self.detections(picture, by_run.get(picture.submit_dir, []), now)
        for one in detect.same_outputs(pictures):
            found[one.run].append(one)
        for picture in pictures:
            self._enter(self.runs.get(picture.key), found[picture.key])

    def _spool(self) -> str:
        if self._spool_place is None and self.jobs_at:
            spool = getattr(self.condor, "spool", None)
            self._spool_place = str(spool()) if spool else ""
        return self._spool_place or ""

    def detections(self, picture: RunPicture, jobs: list[QueueJob], now: float) -> list[Detection]:
        settings = self.config.detections
        watched = self.runs[picture.key]
        found = detect.dagman_held(picture) + detect.gone(picture, now) + detect.missing_source(picture)
        found += detect.stalled(picture, jobs, now, settings.stalled_s)
        found += detect.waiting_sub_workflows(picture, now, settings.sub_workflow_s)
        found += detect.restless(picture, jobs, settings.evictions)
        found += detect.disk_full(picture, self.disks.of(picture.key, now), now, settings.disk_horizon_s)
        if self.slots:
            mine = unmatchable(picture.submit_dir, jobs, self.slots, evaluate, now, settings.unmatchable_s)
            found += [replace(one, run=picture.key) for one in mine]
        if detect.held(picture, jobs, frozenset(job for run, job in self._held_known if run == picture.key)):
            self._note_held(watched, jobs)
        if detect.systemic(picture, now, settings.systemic_jobs, settings.systemic_within_s) or detect.bad_nodes(picture):
            self.healer.wanted(picture.key, at_once=True)
        return found

    def _note_held(self, watched: Watched, jobs: list[QueueJob]) -> None:
        """Jobs that the queue says are held: the logs are read at once, before periodic_remove deletes them."""
        for job in jobs:
            if job.status == 5 and job.node:
                self._held_known.add((watched.key, job.node))
        if len(self._held_known) > 50_000:
            self._held_known.clear()
        self.ready.wake(watched.key)
        self.healer.wanted(watched.key, at_once=True)

    def _enter(self, watched: Watched | None, found: list[Detection]) -> None:
        """New detections become incidents; what is no longer seen is over."""
        if watched is None or watched.follower is None:
            return
        follower = watched.follower
        present: dict[str, Incident] = {}
        for detection in found:
            incident = incident_of(detection, self.matcher.library, follower.run.identity.dax_label, self.clock())
            present[incident.id] = incident
        fresh = [incident for key, incident in present.items() if key not in watched.live]
        over = []
        for key in list(watched.live):
            watched.live[key] = 0 if key in present else watched.live[key] + 1
            if watched.live[key] >= _CLEAR_AFTER:
                del watched.live[key]
                over.append(key)
        for incident in fresh:
            watched.live[incident.id] = 0
        if not fresh and not over:
            return
        summary, key = follower.summary(), watched.key
        row = self._row(watched, "")

        def change(store: Store) -> None:
            store.see_run(summary)
            for incident in fresh:
                store.observe(key, incident, store.begin_session(key))
            for mark in over:
                store.passed(key, mark, "it is no longer so")
            store.save_watched([row])

        self.writer.change(change)
        if fresh:
            self.healer.wanted(watched.key, at_once=True)

    # -- queue ------------------------------------------------------------------------------------------

    def _poll_queue(self) -> None:
        queue = Backoff(self.config.polling.queue_s, self.config.polling.queue_back_off_s)
        pool = Backoff(self.config.polling.pool_s, max(self.config.polling.queue_back_off_s, self.config.polling.pool_s))
        queue_at = pool_at = 0.0
        while not self.stopping.is_set():
            self.sign("queue")
            queue.period = self.config.polling.queue_s
            now = time.monotonic()
            if now >= queue_at:
                queue_at = now + self._ask("queue", self._take_jobs, queue)
            if now >= pool_at and any(job.status == IDLE and not job.is_dagman for job in self.jobs):
                pool_at = now + self._ask("pool", self._take_slots, pool)
            self.stopping.wait(max(0.2, min(queue_at - time.monotonic(), 5.0)))

    def _ask(self, name: str, work: Callable[[], None], pauses: Backoff) -> float:
        try:
            work()
            self.source(name, True)
            return pauses.succeeded()
        except Exception as problem:  # noqa: BLE001 - whatever HTCondor's bindings raise
            self.source(name, False, " ".join(str(problem).split())[:300] or type(problem).__name__)
            return pauses.failed()

    def _take_jobs(self) -> None:
        self.jobs = tuple(self.condor.jobs())
        first, self.jobs_at = self.jobs_at == 0.0, self.clock()
        known = {watched.directory for watched in self.runs.values()}
        for job in self.jobs:
            if job.is_dagman and job.workflow == job.run:
                self.forgotten.discard(job.run)
        if first or any(job.is_dagman and job.workflow == job.run and job.run not in known for job in self.jobs):
            self._scout_now.set()

    def _take_slots(self) -> None:
        self.slots = tuple(self.condor.slots())

    # -- what status shows --------------------------------------------------------------------------------

    def _row(self, watched: Watched, state: str) -> dict[str, Any]:
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

    def publish(self) -> None:
        """Write what ``status`` shows, where it changed."""
        rows = []
        for watched in list(self.runs.values()):
            if watched.shown and time.monotonic() - watched.last_turn > 20 and not watched.problem:
                continue
            try:
                row = self._row(watched, "")
            except RuntimeError:
                continue
            if row["body"] + row["state"] != watched.shown:
                watched.shown = row["body"] + row["state"]
                rows.append(row)
        for name, ok, text in (
            ("writer", not self.writer.problem, self.writer.problem),
            ("notifier", not self.notifier.problem, self.notifier.problem),
            ("observers", True, ", ".join(f"{n} {how}" for how, n in self.observers.counts.items() if n)),
        ):
            self.source(name, ok, text)
        sources = [
            {"name": one.name, "ok": int(one.ok), "text": one.text, "last_good": one.last_good} for one in list(self.sources.values())
        ]
        heart = json.dumps(
            {"pid": os.getpid(), "begun": self.begun, "runs": len(self.runs), "lines": self.lines, "diagnosed": self.diagnosed,
             "backlog": self.writer.backlog, "waiting": len(self.ready), "mode": self.policy.mode, "healing": self.healer.active}
        )  # fmt: skip
        sources.append({"name": "daemon", "ok": 1, "text": heart, "last_good": self.clock()})

        def change(store: Store) -> None:
            if rows:
                store.save_watched(rows)
            store.save_sources(sources)

        self.writer.change(change)


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


__all__ = ["Daemon", "Watched"]
