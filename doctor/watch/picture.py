"""From a followed run and the queue to the frozen picture that the live detections look at."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from doctor.model import JobState
from doctor.run.transfers import read_transfers
from doctor.watch.disks import has_cleanup, local_path
from doctor.watch.follow import Follower
from doctor.watch.parts import Part
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
        self._absent_since = 0.0
        self._at_work: dict[str, float] = {}  # directory of a sub-workflow -> when its DAGMan was last seen at work

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
        moved = max([follower.moved, dagman.queued if dagman else 0.0, *(part.history.last_time for part in follower.parts.values())])
        absent = self._absent(dagman is not None, queue_known, moved, now)
        begun = next((entry.when for entry in reversed(follower.parts[""].history.internal) if entry.what == "DAGMAN_STARTED"), 0.0)
        return RunPicture(
            key=key,
            submit_dir=place,
            label=run.identity.dax_label,
            root_uuid=run.identity.root_wf_uuid,
            started=follower.rounds > 0,
            ended=follower.ended is not None,
            moved=moved,
            done=counts.succeeded,
            total=counts.total,
            queued=counts.queued,
            running=counts.running,
            held=counts.held,
            failed=counts.failed,
            begun=begun,
            in_queue=(dagman is not None) if queue_known else None,
            absent_s=absent,
            removed_by=self._removal() if absent else "",
            dagman_held=dagman.hold_reason or "no reason given" if dagman is not None and dagman.status == HELD else "",
            untold=self._untold(),
            halted=os.path.exists(run.directory / f"{run.identity.dag}.halt"),
            transfers=tuple(self._transfers(now)),
            waiting=tuple(self._waiting(mine, now)),
            evictions=(evictions := self._evictions()),
            last_words=self._last_words({name for name, n in evictions.items() if n > 1}),
            log=run.identity.condor_log,
            outputs=self._outputs,
            fingerprints={key: tuple(one.when for one in kept.values()) for key, kept in follower.diagnoses.items()},
            host_failures=_sum(Counter(list(part.events.failed.values())) for part in follower.parts.values()),
            host_successes=_sum(part.events.good for part in follower.parts.values()),
            host_lost=self._lost(),
            cleanup=self._cleanup,
        )

    def _absent(self, present: bool, queue_known: bool, moved: float, now: float) -> float:
        """For how long DAGMan has been out of the queue, by every answer of the queue since, while no log moved."""
        if present or (queue_known and self._absent_since > now):
            self._absent_since = 0.0
        elif queue_known and not self._absent_since:
            self._absent_since = now
        return max(0.0, now - max(self._absent_since, moved)) if queue_known and self._absent_since else 0.0

    def _untold(self) -> tuple[str, int | None, str] | None:
        for part in self.follower.parts.values():
            if part.silent is not None:
                return part.run.files.name(part.run.dagman_path), part.silent.line, part.silent.text
        return None

    def _removal(self) -> str:
        run = self.follower.run
        run.__dict__.pop("own_events", None)
        last = run.own_events[-1] if run.own_events else None
        return last.text if last is not None and last.kind == "aborted" else ""

    def _lost(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for part in self.follower.parts.values():
            for host, jobs in list(part.events.lost.items()):
                found[host] = (*found.get(host, ()), *list(jobs))
        return found

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
            begun = job.attempts[-1].states[-1] if job.attempts and job.attempts[-1].states else None
            path = job.beside(".in")
            if begun is None or begun.state != "EXECUTE" or path is None or job.submit.site not in ("local", ""):
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

    def _waiting(self, jobs: Sequence[QueueJob], now: float) -> list[Waiting]:
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
                place = str(inner.run.directory) if inner is not None else ""
                one = Waiting(
                    name, last.state if last else "", last.when if last else 0.0, child is not None,
                    inner.history.last_time if inner else 0.0, place in active, self._at_work.get(place, 0.0),
                )  # fmt: skip
                if one.going:
                    self._at_work[place] = now
                found.append(one)
        return found

    def _last_words(self, names: set[str]) -> dict[str, tuple[str, int | None, str]]:
        """The latest trouble of these jobs, as the event log tells it."""
        found: dict[str, tuple[str, int | None, str]] = {}
        for part in self.follower.parts.values() if names else ():
            log = part.run.files.name(part.run.directory / part.run.identity.condor_log)
            for event in list(part.events.events):
                node = part.events.nodes.get(event.condor_id, "")
                name = part.full(node)
                if name in names and event.kind in _TROUBLE:
                    found[name] = (log, event.line, f"{event.kind}: {event.text}")
        return found

    def _evictions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for part in self.follower.parts.values():
            counts: dict[str, int] = {}
            for (node, kind), n in list(part.events.counts.items()):
                if kind in _TROUBLE and part.history.latest.get(node.encode()) in (JobState.QUEUED, JobState.RUNNING):
                    counts[node] = counts.get(node, 0) + n
            for node, n in counts.items():  # an eviction is logged before each hold
                if (left := n - part.events.counts.get((node, "held"), 0)) > 0:
                    found[part.full(node)] = left
        return found


def _sum(tallies: object) -> dict[str, int]:
    found: dict[str, int] = {}
    for tally in tallies:  # type: ignore[attr-defined]
        for host, n in list(tally.items()):
            found[host] = found.get(host, 0) + n
    return found
