"""The smaller logs: exitcode.log, rescue DAGs, dagman.out's own end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.model import JobState
from doctor.run.dagmanlog import message, read_dagman_log
from doctor.run.exitcode import read_verdicts
from doctor.run.files import Files, Ledger
from doctor.run.jobstate import History
from doctor.run.rescue import read_rescue, rescue_files
from tests.recorded import Case, every


def entry(name: str, code: int = 0, **more: Any) -> str:
    return json.dumps({"name": f".//00/00/{name}.out", "timestamp": "x", "exitcode": code, "app_exitcode": code, **more}) + "\n"


def test_the_latest_verdict_of_each_wanted_job(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "x.exitcode.log"
    path.write_text(
        entry("a", 1, std_err="first\n") + entry("b", 1) + "rubbish\n" + entry("a", 1, std_err="Empty stdout\x1b[0m\n", std_out="more")
    )
    found = read_verdicts(path, files, {"a"})
    assert set(found) == {"a"}
    assert [(line.text, line.number) for line in found["a"].lines] == [("Empty stdout", 4), ("more", 4)]
    assert read_verdicts(tmp_path / "none", files, {"a"}) == {}


values = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2) | st.just(float("inf"))


@given(
    st.lists(
        st.binary(max_size=80) | st.builds(lambda code, text: entry("a", 0, exitcode=code, std_err=text).encode(), values, values),
        max_size=6,
    )
)
def test_verdicts_of_any_shape(tmp_path: Path, rows: list[bytes]) -> None:
    (tmp_path / "y.log").write_bytes(b"\n".join(rows))
    found = read_verdicts(tmp_path / "y.log", Files(tmp_path, Ledger()), {"a", ""})
    assert set(found) <= {"a", ""}


RESCUE = """\
# Rescue DAG file, created after running
#   the demo-0.dag DAG file
# Created 11/20/2026 21:23:00 UTC
#
# Total number of Nodes: 4
# Nodes premarked DONE: 2
# Nodes that failed: 2
#   a,b,<ENDLIST>

DONE x
DONE y
RETRY a 1
"""


def test_a_rescue_dag(tmp_path: Path, files: Files) -> None:
    for number in (2, 1, 10):
        (tmp_path / f"demo-0.dag.rescue{number:03d}").write_text(RESCUE)
    (tmp_path / "demo-0.dag.rescue001.old").write_text(RESCUE)
    found = rescue_files(tmp_path, "demo-0.dag", files)
    assert [path.name[-3:] for path in found] == ["001", "002", "010"]
    rescue = read_rescue(found[-1], files)
    assert (rescue.failed, rescue.done, rescue.number, rescue.complete) == (("a", "b"), 2, 10, True)


@given(st.integers(0, len(RESCUE)))
def test_a_cut_rescue_dag_is_not_complete(tmp_path: Path, cut: int) -> None:
    (tmp_path / "d.dag.rescue001").write_text(RESCUE[:cut])
    rescue = read_rescue(tmp_path / "d.dag.rescue001", Files(tmp_path, Ledger()))
    assert set(rescue.failed) <= {"a", "b", "b,<ENDLIST"} | {RESCUE[:cut].rpartition(",")[2].strip()}
    if cut < RESCUE.index(",<ENDLIST>"):
        assert rescue.failed != ("a", "b") or not rescue.complete or cut == RESCUE.index(",<ENDLIST>")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_rescue_dag(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "e.dag.rescue001").write_bytes(data)
    assert not read_rescue(tmp_path / "e.dag.rescue001", Files(tmp_path, Ledger())).complete


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_recorded_rescue_dags_name_the_jobs_that_failed_last(case: Case) -> None:
    for run in case.open().tree():
        rescue = run.last_rescue
        if rescue is None:
            continue
        assert rescue.complete
        log = History(run.directory / "jobstate.log", run.files)
        if not any(one.what == "DAGMAN_FINISHED" and one.value == "1" for one in log.internal[-3:]):
            continue
        assert set(log.names(JobState.FAILED)) <= set(rescue.failed)


LOG = """\
11/20/26 21:00:00 ** condor_scheduniv_exec.1.0 (CONDOR_DAGMAN) STARTING UP
11/20/26 21:00:01 DAG status: 2 (DAG_STATUS_NODE_FAILED)
11/20/26 21:00:02 **** condor_scheduniv_exec.1.0 (condor_DAGMAN) pid 5 EXITING WITH STATUS 1
11/20/26 22:00:00 ** condor_scheduniv_exec.9.0 (CONDOR_DAGMAN) STARTING UP
11/20/26 22:00:01 3 job proc(s) currently held
11/20/26 22:00:02 Number of idle job procs: 4
"""


def test_only_the_last_start_counts(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "x.dag.dagman.out"
    path.write_text(LOG)
    log = read_dagman_log(path, files)
    assert (log.started, log.exit_status, log.dag_status, log.held) == (True, None, 0, 3)
    assert [line.number for line in log.lines] == [4, 5]
    assert message(log.lines[1]) == "3 job proc(s) currently held"
    path.write_text(LOG + "11/20/26 22:00:03 Received SIGUSR1\n11/20/26 22:00:04 **** x (condor_DAGMAN) pid 6 EXITING WITH STATUS 2\n")
    log = read_dagman_log(path, files)
    assert (log.exit_status, log.exit_line and log.exit_line.number, log.removed and log.removed.number) == (2, 8, 7)


def test_an_absent_dagman_out_is_no_complaint(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    log = read_dagman_log(tmp_path / "x.dag.dagman.out", files)
    assert (log.present, log.started, ledger.entries) == (False, False, {})


@given(st.binary(max_size=300))
def test_any_bytes_are_a_dagman_log(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "z.out").write_bytes(data)
    assert read_dagman_log(tmp_path / "z.out", Files(tmp_path, Ledger())).present == bool(data)
