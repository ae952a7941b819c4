"""The pool itself, the test-only planner on it, and the doctor's reading of what ran there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from doctor.run.files import Ledger
from doctor.run.kickstart import Output, parse_output
from doctor.run.reader import Job, open_run
from tests.pool.fleet import Fleet
from tests.pool.flows import FAILURES
from tests.pool.packages import PoolUnavailable
from tests.pool.pool import Pool
from tests.pool.processes import born, descendants

HEALTHY = ("healthy-condorio", "healthy-sharedfs", "healthy-nonsharedfs", "healthy-sub-workflow")


def test_the_pool_runs_jobs_of_an_ordinary_user(pool: Pool) -> None:
    assert pool.condor("condor_status", "-af", "Name").strip()
    assert pool.condor("id", "-u").strip() != "0"


def test_a_pool_stops_exactly_what_it_started(pool: Pool, pool_folder: Path) -> None:
    """A second pool comes and goes; the first one, and every process that was there before, stay."""
    before = {pid: born(pid) for pid in [pool.master_pid() or 0, *descendants(pool.master_pid() or 0)] if "shadow" not in _command(pid)}
    try:
        second = Pool(pool_folder / "second").start()
    except PoolUnavailable as reason:
        pytest.skip(f"no second pool: {reason}")
    family = {pid: born(pid) for pid in [second.master_pid() or 0, *descendants(second.master_pid() or 0)]}
    assert Pool.attach(pool_folder / "second") is not None
    second.stop()
    assert [pid for pid, when in family.items() if born(pid) == when] == []
    assert Pool.attach(pool_folder / "second") is None
    daemons = [pid for pid, when in before.items() if born(pid) != when and _is_daemon(pid, before)]
    assert daemons == []
    assert pool.condor("condor_status", "-af", "Name").strip()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8")
    except OSError:
        return ""


def _is_daemon(pid: int, family: dict[int, str]) -> bool:
    """Whether a process that is gone was one of the pool's daemons, and not a job that has ended meanwhile."""
    return pid in list(family)[:7]


@pytest.mark.parametrize("scenario", HEALTHY)
def test_a_planned_workflow_ends_well_and_nothing_is_wrong_with_it(fleet: Fleet, scenario: str) -> None:
    outcome = fleet.outcome(scenario)
    assert outcome.live.ends() == [0]
    assert outcome.document["run"]["state"] == "succeeded"
    assert (outcome.code, outcome.document["incidents"], outcome.document["warnings"]) == (0, [], [])
    assert outcome.document["unreadable"] == []
    assert os.listdir(outcome.live.root / "output") or "sub" in scenario


@pytest.mark.parametrize("scenario", sorted(FAILURES))
def test_failures_are_diagnosed(fleet: Fleet, scenario: str) -> None:
    outcome = fleet.outcome(scenario)
    _, cause, job = FAILURES[scenario]
    assert outcome.live.ends()[-1] == 1
    assert outcome.code == 1
    first = outcome.document["incidents"][0]
    assert f"{first['category']}/{first['cause']}" == cause, first
    assert job in first["culprit"]["job"]


def _output(job: Job) -> Output:
    path = job.outputs()[-1].out
    assert path is not None
    return parse_output(job.run.files.text(path).lines)


def test_the_stand_in_for_kickstart_writes_what_the_reader_reads(fleet: Fleet) -> None:
    """Every record of a healthy run is whole, and says what DAGMan and the disk say."""
    live = fleet.outcome("healthy-condorio").live
    run = open_run(live.run, Ledger())
    for name in run.dag.all_names():
        job = run.job(name)
        output = _output(job)
        assert len(output.records) == 1, name
        record = output.records[0]
        assert record.complete and record.main.raw == 0 and record.main.exit_code == 0 and not output.stray
        assert record.condor_id == job.attempts[-1].condor_id
    record = _output(run.job("copy_second")).records[0]
    assert record.files["out.txt"].output and record.files["out.txt"].size == 6
