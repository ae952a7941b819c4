"""All eight states of a run, each with the fact that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.model import RunState
from doctor.run.state import run_state, total_counts
from tests.builder import Builder, event


def state_of(build: Builder) -> tuple[RunState, str]:
    run = build.open()
    return run_state(run, total_counts(run))


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    made = Builder(tmp_path)
    made.job("a")
    return made


def test_succeeded(build: Builder) -> None:
    build.succeed("a")
    build.finish(0)
    state, reason = state_of(build)
    assert state is RunState.SUCCEEDED
    assert "demo-0.dag.dagman.out:2" in reason


def test_failed(build: Builder) -> None:
    build.fail("a")
    build.finish(1)
    assert state_of(build)[0] is RunState.FAILED


def test_running(build: Builder) -> None:
    build.attempt("a", "SUBMIT", "EXECUTE", condor="101.0")
    assert state_of(build)[0] is RunState.RUNNING


def test_running_again_after_a_failure(build: Builder) -> None:
    build.fail("a")
    build.finish(1)
    build.dagman.append("11/20/26 21:29:40 ** condor_scheduniv_exec.300.0 (CONDOR_DAGMAN) STARTING UP")
    build.jobstate.append("1795209999 INTERNAL *** DAGMAN_STARTED 300.0 ***")
    assert state_of(build)[0] is RunState.RUNNING


def test_held(build: Builder) -> None:
    build.attempt("a", "SUBMIT", "EXECUTE", "JOB_HELD", condor="101.0")
    state, reason = state_of(build)
    assert (state, "1 job held" in reason) == (RunState.HELD, True)


def test_held_beside_a_running_job_is_running(build: Builder) -> None:
    build.job("b")
    build.attempt("a", "SUBMIT", "JOB_HELD", condor="101.0")
    build.attempt("b", "SUBMIT", "EXECUTE", condor="102.0")
    assert state_of(build)[0] is RunState.RUNNING


def test_the_dagman_job_itself_held(build: Builder) -> None:
    build.attempt("a", "SUBMIT", condor="101.0")
    build.files["demo-0.dag.dagman.log"] = event(12, "100.0", "Job was held.", "via condor_hold (by user sci)", "Code 1 Subcode 0")
    state, reason = state_of(build)
    assert (state, "by user sci" in reason) == (RunState.HELD, True)


def test_exit_status_three_is_held(build: Builder) -> None:
    build.attempt("a", "SUBMIT", condor="101.0")
    build.finish(3)
    assert state_of(build)[0] is RunState.HELD


def test_stalled(build: Builder) -> None:
    build.attempt("a", "SUBMIT", "EXECUTE", condor="101.0")
    build.files["monitord.done"] = "x"
    assert state_of(build)[0] is RunState.STALLED
    build.files["demo-0.dag.lock"] = "x"
    assert state_of(build)[0] is RunState.RUNNING


def test_removed_by_signal(build: Builder) -> None:
    build.attempt("a", "SUBMIT", "EXECUTE", "JOB_ABORTED", condor="101.0")
    build.dagman.append("11/20/26 21:23:39 Received SIGUSR1")
    build.finish(2)
    assert state_of(build)[0] is RunState.REMOVED


def test_removed_by_dag_status(build: Builder) -> None:
    build.attempt("a", "SUBMIT", condor="101.0")
    build.dagman.append("11/20/26 21:23:39 DAG status: 4 (DAG_STATUS_RM)")
    build.finish(1)
    assert state_of(build)[0] is RunState.REMOVED


def test_removed_without_a_word_from_dagman(build: Builder) -> None:
    build.attempt("a", "SUBMIT", condor="101.0")
    build.files["demo-0.dag.dagman.log"] = event(9, "100.0", "Job was aborted.", "via condor_rm (by user sci)")
    assert state_of(build)[0] is RunState.REMOVED


def test_never_started(build: Builder) -> None:
    build.write()
    for name in ("jobstate.log", "demo-0.dag.dagman.out", "demo-0.log"):
        (build.folder / name).unlink()
    from doctor.run.files import Ledger
    from doctor.run.reader import open_run

    run = open_run(build.folder, Ledger())
    assert run_state(run, total_counts(run))[0] is RunState.NEVER_STARTED


def test_unknown_without_dag_and_logs(build: Builder) -> None:
    build.write()
    for name in ("jobstate.log", "demo-0.dag.dagman.out", "demo-0.log", "demo-0.dag"):
        (build.folder / name).unlink()
    from doctor.run.files import Ledger
    from doctor.run.reader import open_run

    run = open_run(build.folder, Ledger())
    assert run_state(run, total_counts(run))[0] is RunState.UNKNOWN


def test_an_end_that_only_jobstate_log_tells(build: Builder) -> None:
    build.fail("a")
    build.finish(1)
    build.write()
    (build.folder / "demo-0.dag.dagman.out").unlink()
    from doctor.run.files import Ledger
    from doctor.run.reader import open_run

    run = open_run(build.folder, Ledger())
    state, reason = run_state(run, total_counts(run))
    assert (state, "jobstate.log:" in reason) == (RunState.FAILED, True)


def test_counts_of_a_tree_are_sums(build: Builder) -> None:
    from tests.run.test_reader import parent_with_child

    parent_with_child(build.folder)
    from doctor.run.files import Ledger
    from doctor.run.reader import open_run

    counts = total_counts(open_run(build.folder, Ledger()))
    assert (counts.total, counts.failed) == (2, 2)
