"""Every live detection on a real pool of several execute nodes: it fires in its situation, and is silent in the healthy twin.

One daemon watches all workflows side by side. Times from the situation to the stored incident go to the report with `DETECTION_TIMES=1`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from doctor.loop.records import IncidentRow
from tests.pool.fleet import unmount
from tests.pool.live import Live, settle, user_folder
from tests.pool.packages import PoolUnavailable
from tests.pool.pool import Pool
from tests.watch import situations as made
from tests.watch.live_daemon import LiveDaemon
from tests.watch.situations import FINE, OTHER, TROUBLE, Situation

ALL = {**TROUBLE, **{f"fine {name}": one for name, one in FINE.items()}, **{f"other {name}": one for name, one in OTHER.items()}}
AFTER = {"fine busy-pool": "fine long-job"}  # submitted when the other one runs


def soon(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes true in time; each look opens the daemon's store, so there are two in a second."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


class Scene:
    """The pool, the daemon and all workflows, each with what is done to it in a thread of its own."""

    def __init__(self) -> None:
        self.base = user_folder("detect-")
        self.pool = Pool(self.base / "pool", made.SETTINGS)
        self.server = made.SlowServer(10)
        self.lives: dict[str, Live] = {}
        self.began: dict[str, float] = {}
        self._work = ThreadPoolExecutor(max_workers=len(ALL))
        self._done: dict[str, Future[None]] = {}
        self._pause = ThreadPoolExecutor(max_workers=4)  # so many are submitted at a time
        self.broken = False

    def start(self) -> None:
        self.pool.start()
        self.broken = made.break_nodes(self.pool)
        self.daemon = LiveDaemon(self.pool, self.base / "doctor", made.CONFIG, made.POLICY)
        for name, one in ALL.items():
            if one.root_only and not self.broken:
                continue
            flow = replace(one.flow, sources={lfn: url.replace("@FAR@", self.server.url) for lfn, url in one.flow.sources.items()})
            self.lives[name] = settle(flow, self.base, self.pool, one.before, one.after)
        for name in self.lives:
            self._done[name] = self._work.submit(self._drive, name, ALL[name])

    def _drive(self, name: str, one: Situation) -> None:
        live = self.lives[name]
        if name in AFTER:
            self.lives[AFTER[name]].wait_state("nap_one", "EXECUTE")
        self._pause.submit(live.submit).result()
        if one.meanwhile is not None:
            one.meanwhile(live)
        self.began[name] = time.time()

    def live(self, name: str) -> Live:
        if name not in self.lives:
            pytest.skip("mounting a small file system takes root")
        return self.lives[name]

    def found(self, name: str, cause: str, seconds: float = 90.0) -> IncidentRow:
        """The incident of that cause, once it is stored."""
        live, rows = self.live(name), list[IncidentRow]()

        def there() -> bool:
            if (done := self._done[name]).done():
                done.result()
            rows[:] = [row for row in self.daemon.rows(live) if row.incident.diagnosis.cause == cause]
            return bool(rows)

        assert soon(there, seconds), (cause, self.daemon.incidents(live), live.jobstate()[-1500:], self.daemon.log())
        if os.environ.get("DETECTION_TIMES"):
            sys.stderr.write(f"{name}: {cause} {rows[0].created - self.began.get(name, rows[0].created):.1f} s\n")
        return rows[0]

    def state(self, live: Live) -> str:
        """How the daemon says that a workflow stands."""
        _, document = self.daemon.doctor.json("status", "--json", "--all", "--state", str(self.daemon.state))
        return next((run["state"] for run in document["runs"] if run["run"] == str(live.run)), "not watched")

    def close(self) -> None:
        try:
            took = self.daemon.stop() if hasattr(self, "daemon") else 0.0
        finally:
            self.pool.stop()
            self._work.shutdown(wait=True, cancel_futures=True)
            self._pause.shutdown(wait=True, cancel_futures=True)
            self.server.stop()
            for place in (self.pool.execute(made.FULL), *(live.root / "pscratch" for live in self.lives.values())):
                if os.path.ismount(place):
                    unmount(place)
            if not os.environ.get("POOL_KEEP"):
                shutil.rmtree(self.base, ignore_errors=True)
        assert took < 5, f"a clean stop took {took:.1f} s"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    try:
        scene = Scene()
    except (OSError, PoolUnavailable) as reason:
        pytest.skip(f"no pool: {reason}")
    try:
        scene.start()
        yield scene
    except PoolUnavailable as reason:
        pytest.skip(f"no pool: {reason}")
    finally:
        scene.close()


def said(row: IncidentRow) -> str:
    by = row.incident.diagnosis
    return f"{by.summary} {by.explanation}"


# -- what only shows while the workflow runs -----------------------------------------------------------------


def test_a_job_is_seen_held_before_it_is_removed(scene: Scene) -> None:
    row = scene.found("short-hold", "user-code/declared-output-not-produced")
    live = scene.live("short-hold")
    live.wait_state("nap_one", "JOB_ABORTED")
    removed = next(int(line.split()[0]) for line in live.jobstate().splitlines() if " nap_one JOB_ABORTED " in line)
    assert row.created < removed, "the diagnosis came after the job was gone"
    assert row.incident.jobs == ("nap_one",)


def test_systemic_failure_halts_the_workflow(scene: Scene) -> None:
    live = scene.live("burning")
    row = scene.found("burning", "dependency/python-package-missing")
    halt = live.run / f"{live.dag}.halt"
    assert soon(halt.exists, 60), (scene.daemon.log(), live.jobstate()[-1000:])
    assert live.wait_end(120) == 1
    submitted = {line.split()[1] for line in live.jobstate().splitlines() if " SUBMIT " in line and " fails_" in line}
    assert made.SYSTEMIC <= len(submitted) < made.BURNING, "all jobs were burnt"
    assert len(row.incident.jobs) <= len(submitted)
    with_halt = scene.daemon.doctor("show", row.id, "--state", str(scene.daemon.state)).stdout
    assert "halt-workflow" in with_halt, with_halt


@pytest.mark.parametrize(("name", "why"), [("held", "held"), ("refused", "START")])
def test_a_stalled_workflow_is_told_with_the_reason(scene: Scene, name: str, why: str) -> None:
    row = scene.found(name, "infrastructure/workflow-stalled")
    assert why in said(row) and "nap_one" in row.incident.jobs
    assert scene.live(name).dagman_in_queue()


@pytest.mark.parametrize(("name", "what"), [("planning", "planned"), ("mute", "logged nothing")])
def test_a_sub_workflow_that_waits(scene: Scene, name: str, what: str) -> None:
    row = scene.found(name, "infrastructure/subworkflow-waiting")
    assert what in said(row) and row.incident.jobs == ("pegasus-plan_part",)


@pytest.mark.parametrize("node", [made.FULL, made.BARE])
def test_bad_nodes_are_named(scene: Scene, node: str) -> None:
    """One node has no space for sandboxes, the other lacks the software; the same program ends well on the third."""
    live = scene.live("nodes")

    def named() -> set[str]:
        rows = [row for row in scene.daemon.rows(live) if row.incident.diagnosis.culprit.host == node]
        return {job for row in rows if row.incident.diagnosis.cause == "infrastructure/bad-node" for job in row.incident.jobs}

    assert soon(lambda: len(named()) == 3, 90), [(row.incident.diagnosis.cause, said(row)) for row in scene.daemon.rows(live)]
    assert all(node.startswith(job.removeprefix("uses_")[:-1]) for job in named())


def test_a_node_that_costs_only_retries_is_named(scene: Scene) -> None:
    row = scene.found("eaten", "infrastructure/bad-node")
    assert row.incident.diagnosis.culprit.host == made.BARE
    assert len(row.incident.jobs) == 3


def test_evicted_again_and_again(scene: Scene) -> None:
    row = scene.found("evicted", "infrastructure/evicted-repeatedly")
    assert row.incident.jobs == ("nap_one",)
    assert any(one.file == "devicted-0.log" and one.line for one in row.incident.diagnosis.evidence)


def test_a_disk_that_will_be_full_is_forecast(scene: Scene) -> None:
    live = scene.live("disk")
    row = scene.found("disk", "disk/cleanup-disabled")
    facts = os.statvfs(live.root / "pscratch")
    assert facts.f_bavail > 0, "told when it was full already"
    assert "will be full" in row.incident.diagnosis.summary
    assert str(live.root / "pscratch") in said(row) and "grows" in said(row) and "clean-up" in said(row)


def test_dagman_held(scene: Scene) -> None:
    live = scene.live("dagman-held")
    row = scene.found("dagman-held", "policy/held-by-user")
    assert "DAGMan" in said(row) and "condor_hold" in said(row)
    assert not [cause for cause in scene.daemon.incidents(live) if cause.endswith("-failed")], "nothing of it died"


def test_dagman_gone(scene: Scene) -> None:
    row = scene.found("dagman-gone", "infrastructure/dagman-failed")
    assert "not in the queue" in said(row)


def test_a_dagman_that_a_person_removed_is_not_started_again(scene: Scene) -> None:
    live = scene.live("dagman-removed")
    row = scene.found("dagman-removed", "policy/workflow-removed")
    assert "condor_rm" in said(row)
    assert soon(lambda: settled(scene, live), 60), scene.daemon.incidents(live)
    assert live.jobstate().count("DAGMAN_STARTED") == 1 and not live.dagman_in_queue()


def test_monitord_killed_while_dagman_goes_on(scene: Scene) -> None:
    """What DAGMan alone knows is diagnosed, too."""
    row = scene.found("monitord", "infrastructure/monitord-failed", 120)
    assert "late_one" in row.incident.diagnosis.evidence[0].text
    failed = scene.found("monitord", "dependency/python-package-missing")
    assert failed.incident.jobs == ("late_one",)
    assert " late_one POST_SCRIPT_FAILURE " not in scene.live("monitord").jobstate()


# -- the healthy twins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINE)
def test_the_healthy_twin_is_left_alone(scene: Scene, name: str) -> None:
    live = scene.live(f"fine {name}")
    assert live.wait_end(120) == 0
    assert soon(lambda: scene.state(live) in ("succeeded", "finished"), 30), scene.state(live)
    assert [(row.incident.diagnosis.cause, said(row)) for row in scene.daemon.rows(live)] == []


@pytest.mark.parametrize("name", ["everywhere", "landed"])
def test_no_node_is_blamed_for_what_fails_wherever_it_runs(scene: Scene, name: str) -> None:
    live = scene.live(f"other {name}")
    scene.found(f"other {name}", "dependency/command-not-found")
    assert live.wait_end(120) == 1
    assert soon(lambda: settled(scene, live), 60), scene.daemon.incidents(live)
    assert set(scene.daemon.incidents(live)) == {"dependency/command-not-found"}


def settled(scene: Scene, live: Live) -> bool:
    return all(stage in ("escalated", "recovered") for stage in scene.daemon.incidents(live).values())


def test_a_few_failures_halt_nothing(scene: Scene) -> None:
    live = scene.live("other few")
    assert live.wait_end(120) == 1
    assert not (live.run / f"{live.dag}.halt").exists()
    assert " nap_c POST_SCRIPT_SUCCESS " in live.jobstate()
