"""The queue poller: one query for all runs, the pool's slots only while jobs wait, ever longer pauses on failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from doctor.watch.backoff import Backoff
from doctor.watch.snapshots import IDLE

if TYPE_CHECKING:
    from doctor.watch.daemon import Daemon

_GIVEN_UP_S = 86_400.0  # a queue that has not answered for so long is not waited for with repairs


class Poller:
    """One thread. What it learns stands in ``daemon.jobs``, ``daemon.jobs_at`` and ``daemon.slots``."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._asked = False

    def work(self) -> None:
        daemon = self._daemon
        queue = Backoff(daemon.config.polling.queue_s, daemon.config.polling.queue_back_off_s)
        pool = Backoff(daemon.config.polling.pool_s, max(daemon.config.polling.queue_back_off_s, daemon.config.polling.pool_s))
        queue_at = pool_at = 0.0
        while not daemon.stopping.is_set():
            daemon.sign("queue")
            queue.period = daemon.config.polling.queue_s
            now = time.monotonic()
            if now >= queue_at:
                queue_at = now + self._ask("queue", self._take_jobs, queue)
                self._asked = True
            if now >= pool_at and any(job.status == IDLE and not job.is_dagman for job in daemon.jobs):
                pool_at = now + self._ask("pool", self._take_slots, pool)
            daemon.stopping.wait(max(0.2, min(queue_at - time.monotonic(), 5.0)))

    def patient(self) -> bool:
        """Whether a queue that does not answer is worth waiting for: it has lately, or was not asked yet."""
        daemon = self._daemon
        return not self._asked or daemon.clock() - max(daemon.jobs_at, daemon.board.answered("queue")) < _GIVEN_UP_S

    def _ask(self, name: str, work: Callable[[], None], pauses: Backoff) -> float:
        try:
            work()
            self._daemon.source(name, True)
            return pauses.succeeded()
        except Exception as problem:  # noqa: BLE001 - whatever HTCondor's bindings raise
            self._daemon.source(name, False, " ".join(str(problem).split())[:300] or type(problem).__name__)
            return pauses.failed()

    def _take_jobs(self) -> None:
        daemon = self._daemon
        daemon.jobs = tuple(daemon.condor.jobs())
        first, daemon.jobs_at = daemon.jobs_at == 0.0, daemon.clock()
        known = {watched.directory for watched in daemon.runs.values()}
        for job in daemon.jobs:
            if job.is_dagman and job.workflow == job.run:
                daemon.scout.forgotten.discard(job.run)
        if first or any(job.is_dagman and job.workflow == job.run and job.run not in known for job in daemon.jobs):
            daemon.scout.hurry()

    def _take_slots(self) -> None:
        self._daemon.slots = tuple(self._daemon.condor.slots())
