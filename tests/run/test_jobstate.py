"""jobstate.log, and the same history rebuilt from dagman.out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.model import JobState
from doctor.run.files import Files, Ledger
from doctor.run.jobstate import LATEST, History
from doctor.run.paths import PathMap
from doctor.run.reader import Run, open_run
from doctor.run.recover import history_from_dagman
from tests.builder import Builder
from tests.recorded import Case, every

LOG = """\
1795208415 INTERNAL *** MONITORD_STARTED ***
1795208411 INTERNAL *** DAGMAN_STARTED 817.0 ***
1795208413 a SUBMIT 819.0 local - 1
1795208413 a EXECUTE 819.0 local - 1
1795208416 a JOB_TERMINATED 819.0 local - 1
1795208417 a JOB_FAILURE 1 local - 1
1795208418 a POST_SCRIPT_FAILURE 1 local - 1
1795208419 a SUBMIT 825.0 condorpool - 2
1795208420 b SUBMIT 826.0 condorpool - 3
1795208421 a JOB_SUCCESS 0 condorpool - 2
1795208422 a POST_SCRIPT_SUCCESS 0 condorpool - 2
1795208423 b JOB_HELD 826.0 condorpool - 3
1795208424 c PRE_SCRIPT_STARTED - local - 0
1795208424 c PRE_SCRIPT_FAILURE 1 local - 0
1795208425 INTERNAL *** DAGMAN_FINISHED 1 ***
"""


def read(tmp_path: Path, text: str | bytes, ledger: Ledger | None = None) -> History:
    (tmp_path / "jobstate.log").write_bytes(text.encode() if isinstance(text, str) else text)
    return History(tmp_path / "jobstate.log", Files(tmp_path, ledger or Ledger()))


def test_latest_states_attempts_and_lifecycle(tmp_path: Path) -> None:
    log = read(tmp_path, LOG)
    assert log.latest == {b"a": JobState.SUCCEEDED, b"b": JobState.HELD, b"c": JobState.FAILED}
    assert log.names(JobState.HELD) == ["b"]
    assert log.troubled == {b"a", b"b", b"c"}
    assert [(entry.what, entry.value, entry.number) for entry in log.internal if entry.what.startswith("DAGMAN")] == [
        ("DAGMAN_STARTED", "817.0", 2),
        ("DAGMAN_FINISHED", "1", 15),
    ]
    assert log.last_time == 1795208425
    first, second = log.attempts(["a"])["a"]
    assert (first.index, first.seq, first.site, first.condor_id, first.final) == (1, 1, "local", "819.0", JobState.FAILED)
    assert (second.index, second.seq, second.condor_id, second.final) == (2, 2, "825.0", JobState.SUCCEEDED)
    failure = first.last("JOB_FAILURE")
    assert failure is not None and (failure.value, failure.number) == ("1", 6)
    assert log.attempts(["nobody"]) == {"nobody": []}


def test_retries_of_a_pre_script_are_attempts_of_their_own(tmp_path: Path) -> None:
    rows = ["PRE_SCRIPT_STARTED - ", "PRE_SCRIPT_FAILURE 1 "] * 2
    log = read(tmp_path, "".join(f"179520842{index} c {row}local - 0\n" for index, row in enumerate(rows)))
    assert [attempt.final for attempt in log.attempts(["c"])["c"]] == [JobState.FAILED, JobState.FAILED]


def test_damaged_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    ledger = Ledger()
    log = read(tmp_path, "rubbish\n" + LOG + "1795208426 b JOB_", ledger)
    assert log.latest[b"b"] is JobState.HELD
    assert log.damaged == 2
    assert "2 damaged" in ledger.entries["jobstate.log"]


def test_an_absent_log_is_an_empty_history(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    log = History(tmp_path / "jobstate.log", files)
    assert (log.latest, log.internal, log.attempts(["a"])) == ({}, [], {"a": []})
    assert "jobstate.log" in ledger.entries


def test_every_state_of_the_latest_table_gives_that_state(tmp_path: Path) -> None:
    for raw, state in LATEST.items():
        log = read(tmp_path, b"1795208413 job " + raw + b" 1.0 local - 1\n")
        assert log.latest == {b"job": state}
        assert log.attempts(["job"])["job"][0].final is state


@given(st.binary(max_size=800))
def test_any_bytes_are_a_history(tmp_path: Path, data: bytes) -> None:
    log = read(tmp_path, data)
    log.attempts([name.decode("utf-8", "replace") for name in log.latest])
    assert log.last_time >= 0


states = st.sampled_from(sorted(state.decode() for state in LATEST))
rows = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c\u00fc"]), states, st.sampled_from(["-", "7.0", "0", "1"]), st.integers(1, 5)), max_size=30
)


@given(rows)
def test_the_latest_line_of_a_job_decides(tmp_path: Path, lines: list[tuple[str, str, str, int]]) -> None:
    text = "".join(f"{1000 + index} {job} {state} {value} site - {seq}\n" for index, (job, state, value, seq) in enumerate(lines))
    log = read(tmp_path, text)
    expected = {job: LATEST[state.encode()] for job, state, _, _ in lines}
    assert {name.decode(): state for name, state in log.latest.items()} == expected
    for job, attempts in log.attempts(expected).items():
        assert attempts[-1].final is expected[job]
        assert [attempt.index for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert sum(len(attempt.states) for attempt in attempts) == sum(line[0] == job for line in lines)
        for attempt in attempts:
            for line in attempt.states:
                assert lines[line.number - 1][:3] == (job, line.state, line.value)


@given(st.integers(0, len(LOG)))
def test_a_cut_log_tells_what_stands_before_the_cut(tmp_path: Path, cut: int) -> None:
    log = read(tmp_path, LOG[:cut])
    whole = read(tmp_path, LOG[:cut].rpartition("\n")[0])
    assert set(whole.latest) <= set(log.latest)


def _runs(case: Case) -> list[Run]:
    return list(case.open().tree())


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_dagman_out_tells_the_same_states_as_jobstate_log(case: Case) -> None:
    for run in _runs(case):
        if not run.dagman_path.is_file() or not (run.directory / "jobstate.log").is_file():
            continue
        log = History(run.directory / "jobstate.log", run.files)
        rebuilt = history_from_dagman(run.dagman_path, run.files)
        if not log.latest or not any(entry.what == "DAGMAN_FINISHED" for entry in log.internal):
            continue  # cut off while running: the two need not agree
        assert rebuilt.latest == log.latest
        ends = [[entry.value for entry in one.internal if entry.what == "DAGMAN_FINISHED"] for one in (log, rebuilt)]
        assert ends[0] == ends[1]
        names = [name.decode() for name in log.latest]
        ours, theirs = rebuilt.attempts(names), log.attempts(names)
        for name in names:
            assert [attempt.final for attempt in ours[name]] == [attempt.final for attempt in theirs[name]], name
            assert [attempt.condor_id for attempt in ours[name]] == [attempt.condor_id for attempt in theirs[name]], name


@given(st.binary(max_size=600))
def test_any_bytes_are_a_dagman_out(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.dag.dagman.out").write_bytes(data)
    history_from_dagman(tmp_path / "x.dag.dagman.out", Files(tmp_path, Ledger()))


def test_line_numbers_of_a_rebuilt_history_are_those_of_dagman_out(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "x.dag.dagman.out"
    path.write_text(
        "11/20/26 21:22:40 ** condor_scheduniv_exec.817.0 (CONDOR_DAGMAN) STARTING UP\n"
        "11/20/26 21:22:40 noise\n"
        "11/20/26 21:22:42 Event: ULOG_SUBMIT for HTCondor Node a (819.0.0) {11/20/26 21:22:41}\n"
        "11/20/26 21:22:43 Event: ULOG_JOB_HELD for HTCondor Node a (819.0.0) {11/20/26 21:22:41}\n"
        "11/20/26 21:22:44 Node a job proc (819.0.0) failed with status 71.\n"
        "11/20/26 21:22:45 POST Script of node a failed with status 1\n"
        "11/20/26 21:22:46 **** condor_scheduniv_exec.817.0 (condor_DAGMAN) pid 9 EXITING WITH STATUS 1\n"
    )
    log = history_from_dagman(path, files)
    assert log.latest == {b"a": JobState.FAILED}
    (attempt,) = log.attempts(["a"])["a"]
    assert [(line.state, line.value, line.number) for line in attempt.states] == [
        ("SUBMIT", "819.0", 3),
        ("JOB_HELD", "819.0", 4),
        ("JOB_FAILURE", "71", 5),
        ("POST_SCRIPT_FAILURE", "1", 6),
    ]
    assert [(entry.what, entry.value) for entry in log.internal] == [("DAGMAN_STARTED", "-"), ("DAGMAN_FINISHED", "1")]


@pytest.mark.parametrize(("behind", "state"), [(300, JobState.FAILED), (5, JobState.RUNNING)])
def test_a_run_that_goes_on_without_monitord(tmp_path: Path, behind: int, state: JobState) -> None:
    """DAGMan has written for minutes and jobstate.log has not: monitord is gone, and dagman.out tells the job states."""
    builder = Builder(tmp_path)
    builder.job("a")
    builder.attempt("a", "SUBMIT", "EXECUTE", condor="101.0")
    builder.dagman += [
        "11/20/26 21:22:42 Event: ULOG_SUBMIT for HTCondor Node a (101.0.0) {11/20/26 21:22:41}",
        "11/20/26 21:22:44 Node a job proc (101.0.0) failed with status 1.",
        "11/20/26 21:22:45 POST Script of node a failed with status 1",
    ]
    builder.write()
    now = (tmp_path / "demo-0.dag.dagman.out").stat().st_mtime
    os.utime(tmp_path / "jobstate.log", (now - behind, now - behind))
    run = open_run(tmp_path, Ledger(), PathMap())
    assert run.job("a").state is state
    (tmp_path / "monitord.pid").write_text("pid 1\ntimestamp 2026-11-20T21:22:40\n")  # a process, and no monitord
    assert open_run(tmp_path, Ledger(), PathMap()).job("a").state is state
