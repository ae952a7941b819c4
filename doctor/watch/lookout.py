"""The lookout: all runs as pictures, the live detections on them, and what is seen as incidents that come and go."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from doctor.errors import DoctorError
from doctor.model import Channel, Incident, Kind, Line
from doctor.store import Store
from doctor.watch import detect
from doctor.watch.disks import places
from doctor.watch.incidents import incident_of
from doctor.watch.match import outlook, unmatchable
from doctor.watch.queue import accepts, evaluate
from doctor.watch.snapshots import HELD, RUNNING, TRANSFERRING, Detection, QueueJob, RunPicture
from doctor.watch.watched import Watched, row_of

if TYPE_CHECKING:
    from doctor.watch.daemon import Daemon

log = logging.getLogger("doctor.watch")
_TELL_AGAIN_S = 60.0
_CLEAR_AFTER = 2  # a live detection is over when it was absent so many times in a row


class Lookout:
    """Looks at all runs while they run (:func:`look`), from the scout's thread."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._held_known: set[tuple[str, str]] = set()
        self._spool_place: str | None = None
        self._faults: list[str] = []  # of this look
        self._logged: set[str] = set()

    def look(self) -> None:
        """One look at all runs. A run or a detection with a fault is left out; raises :class:`DoctorError` that names them, afterwards."""
        self._faults.clear()
        self._look()
        if self._faults:
            raise DoctorError("; ".join(self._faults[:3]))
        self._logged.clear()

    def _look(self) -> None:
        daemon = self._daemon
        now = daemon.clock()
        fresh = bool(daemon.jobs_at) and now - daemon.jobs_at < 4 * daemon.config.polling.queue_s
        jobs = daemon.jobs if fresh else ()
        by_run: dict[str, list[QueueJob]] = {}
        for job in jobs:
            by_run.setdefault(job.run, []).append(job)
        pictures: list[RunPicture] = []
        for watched in list(daemon.runs.values()):
            if watched.follower is None or watched.pictures is None or watched.follower.rounds == 0:
                continue
            if watched.follower.ended is not None and not watched.live:
                if time.monotonic() - watched.last_news > 60:
                    watched.follower.rest()
                continue
            if not watched.over or watched.picture is None:
                daemon.disks.follow(watched.key, places(watched.follower.run, self._spool()))
                watched.over = True
            try:
                watched.follower.look_for_sub_workflows()
                watched.picture = watched.pictures.take(watched.key, by_run.get(str(watched.follower.run.directory), ()), fresh, now)
                pictures.append(watched.picture)
            except RuntimeError:  # the logs moved under the picture: the next one will do
                continue
            except Exception as bug:  # noqa: BLE001 - one run's fault never stops another
                self._failed(f"picture of {watched.directory}", bug)
        shared = self._safely("same_outputs", lambda: detect.same_outputs(pictures))
        for picture in pictures:
            found = [*self._detections(picture, by_run.get(picture.submit_dir, []), now), shared]
            if (known := daemon.runs.get(picture.key)) is not None:
                seen = [one for some in found for one in some or () if one.run == picture.key]
                self._enter(known, seen, whole=None not in found)

    def _safely(self, name: str, check: Callable[[], list[Detection]]) -> list[Detection] | None:
        """What one detection finds; None when it has a fault, which is recorded and stops no other."""
        try:
            return check()
        except Exception as bug:  # noqa: BLE001 - one detection's fault never stops another
            self._failed(f"detection {name}", bug)
            return None

    def _failed(self, name: str, bug: Exception) -> None:
        if name not in self._logged:
            log.error("fault in %s", name, exc_info=bug)
        self._logged.add(name)
        self._faults.append(f"{name}: {type(bug).__name__}: {bug}")

    def _spool(self) -> str:
        if self._spool_place is None and self._daemon.jobs_at:
            spool = getattr(self._daemon.condor, "spool", None)
            self._spool_place = str(spool()) if spool else ""
        return self._spool_place or ""

    def _detections(self, picture: RunPicture, jobs: list[QueueJob], now: float) -> list[list[Detection] | None]:
        daemon = self._daemon
        settings = daemon.config.detections
        checks: list[tuple[str, Callable[[], list[Detection]]]] = [
            ("dagman_held", lambda: detect.dagman_held(picture, self._cause_of_hold)),
            ("gone", lambda: detect.gone(picture, settings.gone_s)),
            ("monitord_gone", lambda: detect.monitord_gone(picture)),
            ("missing_source", lambda: detect.missing_source(picture)),
            ("stalled", lambda: self._stalled(picture, jobs, now)),
            ("waiting_sub_workflows", lambda: detect.waiting_sub_workflows(picture, now, settings.sub_workflow_s)),
            ("restless", lambda: detect.restless(picture, jobs, settings.evictions)),
            ("eaten_by_nodes", lambda: detect.eaten_by_nodes(picture)),
            ("disk_full", lambda: self._disk_full(picture, now)),
            ("unmatchable", lambda: self._unmatchable(picture, jobs, now)),
            ("hints", lambda: self._hints(picture, jobs, now)),
        ]
        return [self._safely(name, check) for name, check in checks]

    def _cause_of_hold(self, reason: str) -> str:
        """What the rules make of the reason for a hold; '' when they know none."""
        found = self._daemon.matcher.match(Channel(Kind.HOLD, "queue", (Line(reason, None),)))
        return max(found, key=lambda one: (one.strength.order, one.rank)).cause if found else ""

    def _stalled(self, picture: RunPicture, jobs: list[QueueJob], now: float) -> list[Detection]:
        """The pool is looked at as soon as half of the patience is gone, and only then."""
        watched, patience = self._daemon.runs[picture.key], self._daemon.config.detections.stalled_s
        if any(job.status in (RUNNING, TRANSFERRING) and not job.is_dagman for job in jobs):
            watched.ran = now
        if not detect.stalled(picture, jobs, now, patience / 2, ran=watched.ran):
            return []
        pool = outlook(jobs, self._daemon.slots, evaluate, accepts)
        if pool.what == "busy":
            watched.busy = now
        return detect.stalled(picture, jobs, now, patience, pool=pool, ran=watched.ran, busy=watched.busy)

    def _disk_full(self, picture: RunPicture, now: float) -> list[Detection]:
        settings = self._daemon.config.detections
        disks = self._daemon.disks.of(picture.key, now)
        return detect.disk_full(picture, disks, now, settings.disk_horizon_s, span=settings.disk_trend_s)

    def _unmatchable(self, picture: RunPicture, jobs: list[QueueJob], now: float) -> list[Detection]:
        daemon = self._daemon
        if not daemon.slots:
            return []
        found = unmatchable(picture.submit_dir, jobs, daemon.slots, evaluate, now, daemon.config.detections.unmatchable_s)
        return [replace(one, run=picture.key) for one in found]

    def _hints(self, picture: RunPicture, jobs: list[QueueJob], now: float) -> list[Detection]:
        """What is no incident by itself, but reason to look at the run at once."""
        daemon = self._daemon
        settings = daemon.config.detections
        if detect.held(picture, jobs, frozenset(job for run, job in self._held_known if run == picture.key)):
            self._note_held(daemon.runs[picture.key], jobs)
        self._look_at_nodes(daemon.runs[picture.key], picture)
        burning = {key for key, _ in detect.systemic(picture, now, settings.systemic_jobs, settings.systemic_within_s)}
        known = daemon.runs[picture.key].burning
        if not burning <= known:
            daemon.healer.wanted(picture.key, urgent=True)
        daemon.runs[picture.key].burning = burning
        return []

    def _look_at_nodes(self, watched: Watched, picture: RunPicture) -> None:
        """A node seems to fail what others finish: the run's incidents are looked at again with that in mind."""
        hosts = detect.bad_nodes(picture)
        mark = (*((host, picture.host_failures[host]) for host in hosts), ("", sum(picture.host_successes.values())))
        follower = watched.follower
        if not hosts or follower is None or mark == watched.nodes or set(hosts) <= set(follower.blamed.values()):
            return
        watched.nodes = mark
        follower.look_at_nodes = True
        self._daemon.ready.wake(watched.key)

    def _note_held(self, watched: Watched, jobs: list[QueueJob]) -> None:
        """Jobs that the queue says are held: the logs are read at once, before periodic_remove deletes them."""
        for job in jobs:
            if job.status == HELD and job.node:
                self._held_known.add((watched.key, job.node))
        if len(self._held_known) > 50_000:
            self._held_known.clear()
        self._daemon.ready.wake(watched.key)
        self._daemon.healer.wanted(watched.key, at_once=True)

    def _enter(self, watched: Watched, found: list[Detection], whole: bool) -> None:
        """New detections become incidents; what is no longer seen is over, if ``whole``: every detection could look."""
        daemon = self._daemon
        if watched.follower is None:
            return
        follower = watched.follower
        present: dict[str, Incident] = {}
        for detection in found:
            incident = incident_of(detection, daemon.matcher.library, follower.run.identity.dax_label, daemon.clock())
            present[incident.id] = incident
        fresh = [incident for key, incident in present.items() if key not in watched.live]
        over = []
        for key in list(watched.live) if whole else ():
            watched.live[key] = 0 if key in present else watched.live[key] + 1
            if watched.live[key] >= _CLEAR_AFTER:
                del watched.live[key]
                over.append(key)
        for incident in fresh:
            watched.live[incident.id] = 0
        changed = self._changed(watched, present, fresh)
        if not fresh and not over and not changed:
            return
        summary, key = follower.summary(), watched.key
        row = row_of(watched)

        def change(store: Store) -> None:
            store.see_run(summary)
            for incident in fresh:
                store.observe(key, incident, store.begin_session(key))
            for incident in changed:
                store.see_again(key, incident)
            for mark in over:
                store.passed(key, mark, "it is no longer so")
            store.save_watched([row])

        daemon.writer.change(change)
        if fresh:
            daemon.healer.wanted(watched.key, at_once=True)

    @staticmethod
    def _changed(watched: Watched, present: dict[str, Incident], fresh: list[Incident]) -> list[Incident]:
        """What is still so and reads differently by now (for how long, how full), each at most once in a while."""
        now, new = time.monotonic(), {incident.id for incident in fresh}
        found = []
        for key, incident in present.items():
            text, told = watched.told.get(key, ("", 0.0))
            if key not in new and (incident.diagnosis.explanation == text or now - told < _TELL_AGAIN_S):
                continue
            watched.told[key] = (incident.diagnosis.explanation, now)
            if key not in new and text:
                found.append(incident)
        for key in set(watched.told) - set(present):
            del watched.told[key]
        return found
