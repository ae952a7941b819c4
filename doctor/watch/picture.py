"""From a followed run and the queue to the frozen picture that the live detections look at."""

from __future__ import annotations

import os
from collections.abc import Sequence

from doctor.model import JobState
from doctor.run.transfers import read_transfers
from doctor.watch.disks import has_cleanup, local_path
from doctor.watch.follow import Follower, Part
from doctor.watch.snapshots import HELD, QueueJob, RunPicture, Transfer, Waiting

_TRANSFERS = 200  # running stage-in jobs whose sources are looked at
_SOURCES = 2_000  # sources of them all
_STAGE_OUTS = 2_000  # stage-out jobs whose destinations are known
_OUTPUTS = 50_000
_TROUBLE = ("evicted", "shadow-exception", "disconnected", "reconnect-failed")


class Pictures:
    """Makes the pictures of one run; keeps what does not change between two of them."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self._outputs: frozenset[str] = frozenset()
        self._parts = 0
        self._cleanup = True
        self._sources: dict[str, tuple[str, ...]] = {}

    def take(self, key: str, jobs: Sequence[QueueJob], queue_known: bool, now: float) -> RunPicture:
        follower = self.follower
        run = follower.run
        place = str(run.directory)
        if len(follower.parts) != self._parts:
            self._parts = len(follower.parts)
            self._outputs = frozenset(self._destinations())
            self._cleanup = has_cleanup(run)
        counts = follower.summary().jobs
        mine = [job for job in jobs if job.run == place]
        dagman = next((job for job in mine if job.is_dagman and job.workflow == place), None)
        begun = next((entry.when for entry in reversed(follower.parts[""].history.internal) if entry.what == "DAGMAN_STARTED"), 0.0)
        return RunPicture(
            key=key,
            submit_dir=place,
            label=run.identity.dax_label,
            root_uuid=run.identity.root_wf_uuid,
            started=follower.rounds > 0,
            ended=follower.ended is not None,
            moved=max(
                [
                    follower.moved,
                    dagman.queued if dagman is not None else 0.0,
                    *(part.history.last_time for part in follower.parts.values()),
                ]
            ),
            done=counts.succeeded,
            total=counts.total,
            queued=counts.queued,
            running=counts.running,
            held=counts.held,
            failed=counts.failed,
            begun=begun,
            in_queue=(dagman is not None) if queue_known else None,
            dagman_held=dagman.hold_reason or "no reason given" if dagman is not None and dagman.status == HELD else "",
            halted=os.path.exists(run.directory / f"{run.identity.dag}.halt"),
            transfers=tuple(self._transfers(now)),
            waiting=tuple(self._waiting(mine)),
            evictions=self._evictions(),
            outputs=self._outputs,
            fingerprints={key: tuple(one.when for one in kept.values()) for key, kept in follower.diagnoses.items()},
            host_failures=_sum(part.events.bad for part in follower.parts.values()),
            host_successes=_sum(part.events.good for part in follower.parts.values()),
            cleanup=self._cleanup,
        )

    def _destinations(self) -> list[str]:
        found: list[str] = []
        left = _STAGE_OUTS
        for part in self.follower.parts.values():
            for name in part.run.dag.all_names():
                if not name.startswith("stage_out") or left <= 0 or len(found) >= _OUTPUTS:
                    continue
                left -= 1
                if (path := part.run.job(name).beside(".in")) is not None:
                    found += [
                        url for entry in read_transfers(path, part.run.files) if entry.kind == "transfer" for url in entry.destinations
                    ]
        return found[:_OUTPUTS]

    def _transfers(self, now: float) -> list[Transfer]:
        found = []
        left, sources = _TRANSFERS, _SOURCES
        for part, name in self.follower.jobs_in(JobState.RUNNING):
            if not name.startswith("stage_in") or left <= 0 or sources <= 0:
                continue
            left -= 1
            job = part.run.job(name)
            begun = job.attempts[-1].last("EXECUTE") if job.attempts else None
            path = job.beside(".in")
            if begun is None or path is None or job.submit.site not in ("local", ""):
                continue
            file = part.run.files.name(path)
            if file not in self._sources:
                if len(self._sources) > 1000:
                    self._sources.clear()
                entries = [one for one in read_transfers(path, part.run.files) if one.kind == "transfer"]
                self._sources[file] = tuple(one.sources[0] for one in entries if len(one.sources) == 1)
            urls = self._sources[file][:sources]
            sources -= len(urls)
            missing = tuple(url for url in urls if (local := local_path(url)) and not os.path.lexists(local))
            found.append(Transfer(name, max(0.0, now - begun.when), missing, file))
        return found

    def _waiting(self, jobs: Sequence[QueueJob]) -> list[Waiting]:
        found = []
        active = {job.workflow for job in jobs if job.is_dagman}
        for part in self.follower.parts.values():
            for name in part.run.dag.sub_workflows:
                if part.history.latest.get(name.encode()) not in (JobState.RUNNING, JobState.QUEUED):
                    continue
                attempts = part.history.attempts([name])[name]
                last = attempts[-1].states[-1] if attempts and attempts[-1].states else None
                child = part.run.children.get(name)
                inner: Part | None = self.follower.parts.get(child.files.name(child.directory)) if child is not None else None
                found.append(
                    Waiting(
                        name, last.state if last else "", last.when if last else 0.0, child is not None,
                        inner.history.last_time if inner else 0.0, inner is not None and str(inner.run.directory) in active,
                    )
                )  # fmt: skip
        return found

    def _evictions(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for part in self.follower.parts.values():
            for (node, kind), n in list(part.events.counts.items()):
                if kind in _TROUBLE and part.history.latest.get(node.encode()) in (JobState.QUEUED, JobState.RUNNING):
                    counts[node] = counts.get(node, 0) + n
            for node in counts:
                counts[node] -= part.events.counts.get((node, "held"), 0)  # an eviction is logged before each hold
        return {node: n for node, n in counts.items() if n > 0}


def _sum(tallies: object) -> dict[str, int]:
    found: dict[str, int] = {}
    for tally in tallies:  # type: ignore[attr-defined]
        for host, n in list(tally.items()):
            found[host] = found.get(host, 0) + n
    return found
