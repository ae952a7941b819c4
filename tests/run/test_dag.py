"""The DAG file: nodes, edges, retries, scripts, sub-workflows; small, large, damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.run import dag as module
from doctor.run.dag import Dag
from doctor.run.files import Files, Ledger

SAMPLE = """\
# PEGASUS WMS GENERATED DAG FILE
MAXJOBS cleanup 4
JOB a 00/00/a.sub
SCRIPT POST a /usr/bin/pegasus-exitcode  -r $RETURN .//00/00/a.out
PRIORITY a 800
RETRY a 3 UNLESS-EXIT 2
CATEGORY a stagein
VARS a My.DAGNodeRetry="$(RETRY)"
JOB pegasus-plan_b 00/00/pegasus-plan_b.sub DIR work
SCRIPT DEFER 4 60 PRE pegasus-plan_b 00/00/pegasus-plan_b.pre.sh --deferred x
SUBDAG EXTERNAL c inner.dag DIR 00/c
JOB d 00/00/d.sub NOOP
FINAL last 00/00/last.sub
PARENT a CHILD pegasus-plan_b c
PARENT pegasus-plan_b c CHILD d
"""


def read(tmp_path: Path, text: str | bytes) -> Dag:
    (tmp_path / "x.dag").write_bytes(text.encode() if isinstance(text, str) else text)
    return Dag(tmp_path / "x.dag", Files(tmp_path, Ledger()))


def check_sample(dag: Dag) -> None:
    assert dag.count == 5
    nodes = dag.nodes(["a", "pegasus-plan_b", "c", "d", "last", "nowhere"])
    assert set(nodes) == {"a", "pegasus-plan_b", "c", "d", "last"}
    assert (nodes["a"].submit_file, nodes["a"].retries, nodes["a"].children) == ("00/00/a.sub", 3, ["pegasus-plan_b", "c"])
    assert nodes["a"].post.startswith("/usr/bin/pegasus-exitcode -r $RETURN")
    assert (nodes["pegasus-plan_b"].directory, nodes["pegasus-plan_b"].parents) == ("work", ["a"])
    assert nodes["pegasus-plan_b"].pre == "00/00/pegasus-plan_b.pre.sh --deferred x"
    assert (nodes["c"].sub_dag, nodes["c"].directory) == ("inner.dag", "00/c")
    assert nodes["d"].parents == ["pegasus-plan_b", "c"]
    assert set(dag.sub_workflows) == {"pegasus-plan_b", "c"}


def test_all_commands_of_a_small_dag(tmp_path: Path) -> None:
    dag = read(tmp_path, SAMPLE)
    check_sample(dag)
    assert dag.all_names() == ["a", "pegasus-plan_b", "c", "d", "last"]


def test_a_dag_too_large_to_hold_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 2)
    dag = read(tmp_path, SAMPLE)
    check_sample(dag)
    assert dag.all_names() == []


def test_an_absent_dag_is_noted(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    dag = Dag(tmp_path / "missing.dag", files)
    assert (dag.count, dag.sub_workflows, dag.node("a").submit_file) == (0, {}, "")
    assert "missing.dag" in ledger.entries


names = st.from_regex(r"[a-z]{1,6}_[0-9]{1,3}", fullmatch=True)


@given(
    st.lists(names, min_size=1, max_size=12, unique=True),
    st.data(),
    st.integers(0, 20),
)
def test_what_is_written_is_what_is_read(tmp_path: Path, nodes: list[str], data: st.DataObject, small: int) -> None:
    retries = {name: data.draw(st.integers(0, 9)) for name in nodes}
    edges = data.draw(st.lists(st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)), max_size=10, unique=True))
    text = "".join(f"JOB {name} 00/{name}.sub\nRETRY {name} {retries[name]}\n" for name in nodes)
    text += "".join(f"PARENT {above} CHILD {below}\n" for above, below in edges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL", small)
        dag = read(tmp_path, text)
        found = dag.nodes(nodes)
    assert dag.count == len(nodes)
    assert {name: node.retries for name, node in found.items()} == retries
    assert {(above, below) for above, node in found.items() for below in node.children} == set(edges)
    assert {(above, below) for below, node in found.items() for above in node.parents} == set(edges)


@given(st.binary(max_size=600))
def test_any_bytes_are_read_without_complaint(tmp_path: Path, data: bytes) -> None:
    dag = read(tmp_path, data)
    dag.nodes(["a", "b"])
    assert dag.count <= data.count(b"\n") + 1


@given(st.integers(0, len(SAMPLE)))
def test_a_cut_dag_holds_what_stands_before_the_cut(tmp_path: Path, cut: int) -> None:
    dag = read(tmp_path, SAMPLE[:cut])
    for name in ("a", "c", "d"):
        whole = f"JOB {name} " if name != "c" else "SUBDAG EXTERNAL c "
        if f"{whole}" in SAMPLE[:cut].rpartition("\n")[0]:
            assert dag.node(name).submit_file or dag.node(name).sub_dag
