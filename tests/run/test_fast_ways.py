"""Large files are read by faster ways; those must tell exactly what the plain ways tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.run import dag as dag_module
from doctor.run import files as files_module
from doctor.run import grep
from doctor.run import jobstate as jobstate_module
from doctor.run.dag import Dag, Node
from doctor.run.files import Files, Ledger
from doctor.run.grep import lines_naming
from doctor.run.jobstate import LATEST, Attempt, History, Lifecycle
from tests.recorded import Case, every


@contextmanager
def limits(large: int, block: int = 1 << 20, small: int = 20_000) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dag_module, "_LARGE", large)
        patch.setattr(dag_module, "_SMALL", small)
        patch.setattr(jobstate_module, "_LARGE", large)
        patch.setattr(files_module, "_BLOCK", block)
        yield


def dag_facts(path: Path, names: list[str]) -> tuple[int, dict[str, Node], dict[str, Node]]:
    dag = Dag(path, Files(path.parent, Ledger()))
    return dag.count, dag.sub_workflows, dag.nodes(names)


HistoryFacts = tuple[dict[bytes, object], set[bytes], list[Lifecycle], float, dict[str, list[Attempt]], dict[str, str]]


def history_facts(path: Path, names: list[str]) -> HistoryFacts:
    ledger = Ledger()
    log = History(path, Files(path.parent, ledger))
    return dict(log.latest), log.troubled, log.internal, log.last_time, log.attempts(names), ledger.entries


PLAIN, FAST = (1 << 40, 1 << 20), 0


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
@pytest.mark.parametrize("block", [4096, 1 << 20])
def test_recorded_dags_and_logs(case: Case, block: int) -> None:
    for run in case.open().tree():
        path = run.directory / run.identity.dag
        names = (
            [line.split()[1] for line in path.read_text().splitlines() if line.startswith(("JOB ", "SUBDAG "))] if path.is_file() else []
        )
        with limits(*PLAIN):
            slow = dag_facts(path, names)
        with limits(FAST, block, small=-1):
            assert dag_facts(path, names) == slow
        log = run.directory / "jobstate.log"
        with limits(*PLAIN):
            expected = history_facts(log, names)
        with limits(FAST, block):
            assert history_facts(log, names) == expected


names = st.sampled_from(["a", "b_1", "pegasus-plan_x", "ab", "c\u00fc"])
states = st.sampled_from([*sorted(state.decode() for state in LATEST), "IMAGE_SIZE", "NONSENSE", "INTERNAL"])
line = st.one_of(
    st.builds(lambda name, state, seq: f"1795208413 {name} {state} 7.0 site - {seq}", names, states, st.integers(0, 4)),
    st.sampled_from(
        [
            "1795208413 INTERNAL *** DAGMAN_STARTED 1.0 ***", "1795208419 INTERNAL *** DAGMAN_FINISHED 1 ***", "", "rubbish", "1 a",
            "1795208413 a SUBMIT", "x a SUBMIT 7.0 site - 1", "1795208413  a SUBMIT 7.0 site - 1", "1795208413 a JOB_FAILURE 1 l - 1\r",
        ]
    ),
)  # fmt: skip
smooth = names.map(
    lambda name: "\n".join(
        f"1795208413 {name} {state} 7.0 site - 1"
        for state in (
            "SUBMIT",
            "EXECUTE",
            "JOB_TERMINATED",
            "JOB_SUCCESS",
            "POST_SCRIPT_STARTED",
            "POST_SCRIPT_TERMINATED",
            "POST_SCRIPT_SUCCESS",
        )
    )
)


@given(st.lists(st.one_of(smooth, line), max_size=14), st.integers(80, 500), st.booleans())
def test_logs_of_any_shape(tmp_path: Path, rows: list[str], block: int, ended: bool) -> None:
    path = tmp_path / "jobstate.log"
    path.write_bytes(("\n".join(rows) + ("\n" if ended and rows else "")).encode())
    wanted = ["a", "b_1", "pegasus-plan_x", "ab", "c\u00fc", "INTERNAL", "nobody"]
    with limits(*PLAIN):
        expected = history_facts(path, wanted)
    with limits(FAST, block):
        assert history_facts(path, wanted) == expected


@given(st.lists(smooth, min_size=1, max_size=6, unique=True), st.integers(80, 2000))
def test_a_smooth_log_is_read_the_fast_way(tmp_path: Path, rows: list[str], block: int) -> None:
    """The comparison above would say nothing if the fast way always gave up."""
    path = tmp_path / "jobstate.log"
    path.write_bytes(("\n".join(rows) + "\n").encode())
    with limits(FAST, block), pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "_scan_lines", lambda self: pytest.fail("the slow way"))
        log = History(path, Files(tmp_path, Ledger()))
    assert len(log.latest) == len(rows)


@given(st.binary(max_size=500), st.integers(1, 100))
def test_logs_of_any_bytes(tmp_path: Path, data: bytes, block: int) -> None:
    path = tmp_path / "jobstate.log"
    path.write_bytes(data)
    with limits(*PLAIN):
        expected = history_facts(path, [])
    with limits(FAST, block):
        assert history_facts(path, []) == expected


command = st.one_of(
    st.builds(lambda name: f"JOB {name} 00/00/{name}.sub", names),
    st.builds(lambda name, count: f"RETRY {name} {count}", names, st.integers(0, 5)),
    st.builds(lambda name, other: f"PARENT {name} CHILD {other}", names, names),
    st.builds(lambda name: f"SUBDAG EXTERNAL {name} in.dag DIR 00/x", names),
    st.builds(lambda name: f"SCRIPT PRE {name} pre.sh --deferred x", names),
    st.builds(lambda name: f"SCRIPT POST {name} post.sh", names),
    st.sampled_from(["# comment JOB x y", "", "FINAL last last.sub", "MAXJOBS a 4", "JOB broken", "VARS a x=\"1\"", "SERVICE s s.sub"]),
)  # fmt: skip


@given(st.lists(command, max_size=16), st.integers(80, 300), st.booleans())
def test_dags_of_any_shape(tmp_path: Path, rows: list[str], block: int, ended: bool) -> None:
    path = tmp_path / "x.dag"
    path.write_bytes(("\n".join(rows) + ("\n" if ended else "")).encode())
    wanted = ["a", "b_1", "pegasus-plan_x", "ab", "c\u00fc", "last"]
    with limits(*PLAIN):
        count, subs, nodes = dag_facts(path, wanted)
    with limits(FAST, block, small=-1):
        fast = dag_facts(path, wanted)
    if not any(row == "JOB broken" for row in rows):
        assert fast[0] == count
    known = {name for name, node in nodes.items() if node.submit_file or node.sub_dag}
    assert {name: fast[2][name] for name in known} == {name: nodes[name] for name in known}
    named = {name for name in subs if nodes.get(name) and (nodes[name].sub_dag or "pegasus-plan_" in nodes[name].submit_file)}
    assert named <= set(fast[1]) <= set(subs)


text_line = st.text(alphabet="ab \t.x", max_size=12)
wanted_names = st.sets(st.sampled_from(["a", "b", "ab", "a.b"]), min_size=1)


@given(st.lists(text_line, max_size=20), wanted_names, st.integers(14, 200), st.booleans(), st.booleans())
def test_lines_naming_a_job(tmp_path: Path, rows: list[str], wanted: set[str], block: int, fast: bool, ended: bool) -> None:
    rows = [f"1 {row}" for row in rows]
    path = tmp_path / "log"
    path.write_bytes(("\n".join(rows) + ("\n" if ended else "")).encode())
    with limits(FAST, block), pytest.MonkeyPatch.context() as patch:
        patch.setattr(grep, "_MAX_NAMES", 100 if fast else 0)
        found = list(lines_naming(Files(tmp_path, Ledger()), path, {name.encode() for name in wanted}))
    assert found == [(number, row.encode()) for number, row in enumerate(rows, 1) if wanted & set(row.split())]


@pytest.mark.parametrize("most", [100, 0])
def test_a_carriage_return_is_no_line_of_its_own(tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grep, "_MAX_NAMES", most)
    (tmp_path / "log").write_bytes(b"1 x\ry z\n2 a b\r\n3 a\r\n4 c")
    assert list(lines_naming(Files(tmp_path, Ledger()), tmp_path / "log", {b"a"})) == [(2, b"2 a b"), (3, b"3 a")]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_blocks_put_together_are_the_file(tmp_path: Path, data: bytes, block: int) -> None:
    path = tmp_path / "any"
    path.write_bytes(data)
    with limits(FAST, block):
        parts = list(Files(tmp_path, Ledger()).blocks(path))
    assert b"".join(parts) == data
    longest = max((len(row) for row in data.split(b"\n")), default=0)
    if longest < block:
        assert all(part.endswith(b"\n") for part in parts[:-1])
