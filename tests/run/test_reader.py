"""One run as an object: opening, outputs, sub-workflows, loops, copies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from doctor.errors import NotARunError
from doctor.model import JobState
from doctor.run.files import Ledger
from doctor.run.paths import PathMap
from doctor.run.reader import Run, open_run
from tests.builder import RECORDED, Builder, braindump, record
from tests.recorded import Case, every


def test_a_small_run(tmp_path: Path) -> None:
    build = Builder(tmp_path)
    build.job("a")
    build.job("b", parents=("a",), outputs={".out.000": record(), ".err.000": "", ".out": "new", ".err": "", ".outer": "x"})
    build.succeed("a")
    build.fail("b", condor="102.0")
    ledger = Ledger()
    run = build.open(ledger)
    assert (run.counts.total, run.counts.succeeded, run.counts.failed) == (2, 1, 1)
    job = run.job("b")
    assert (job.state, job.node.parents, len(job.attempts), job.submit.transformation) == (JobState.FAILED, ["a"], 1, "step")
    assert [(files.number, files.out and files.out.name) for files in job.outputs()] == [(0, "b.out.000"), (None, "b.out")]
    assert run.job("nobody").state is JobState.UNSUBMITTED
    assert run.job("nobody").outputs() == []
    assert ledger.entries == {}


def test_outputs_are_ordered_by_their_number(tmp_path: Path) -> None:
    build = Builder(tmp_path)
    build.job(
        "a", outputs={f".{kind}.{number:03d}": "x" for kind in ("out", "err") for number in (2, 0, 1)} | {".out": "", ".out.bak": "x"}
    )
    build.job("a1", outputs={".out.000": "of another job"})
    found = build.open().job("a").outputs()
    assert [files.number for files in found] == [0, 1, 2]
    assert all(files.out and files.out.name.startswith("a.out.") and files.err for files in found)


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "unrelated"])
def test_what_is_no_run_is_a_clear_error(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "x"
    if kind == "file":
        target.write_text("")
    elif kind != "absent":
        target.mkdir()
    if kind == "unrelated":
        (target / "notes.txt").write_text("hello")
    with pytest.raises(NotARunError, match=str(target)):
        open_run(target, Ledger())


def test_runs_below_a_directory_are_named(tmp_path: Path) -> None:
    run = tmp_path / "sci" / "pegasus" / "demo" / "run0001"
    run.mkdir(parents=True)
    (run / "braindump.yml").write_text(braindump())
    with pytest.raises(NotARunError, match="run0001"):
        open_run(tmp_path, Ledger())


def test_only_a_dag_is_enough(tmp_path: Path) -> None:
    (tmp_path / "demo-0.dag").write_text("JOB a a.sub\n")
    run = open_run(tmp_path, Ledger())
    assert (run.identity.dax_label, run.counts.total, run.counts.unsubmitted) == ("demo", 1, 1)


def parent_with_child(folder: Path, *, copied: bool = False, link: str = "child.000") -> Path:
    """A run with one planned sub-workflow, laid out as SUBDAXGenerator does."""
    build = Builder(folder)
    submit = (
        f"initialdir = {RECORDED}/00/00/child\nexecutable = /usr/bin/condor_dagman\n"
        'arguments = "-p 0 -f -l . -Notification never -Lockfile inner-0.dag.lock -Dag inner-0.dag -AutoRescue 1"\n'
    )
    build.job("pegasus-plan_child", job_class=10, submit=submit)
    build.fail("pegasus-plan_child")
    build.write()
    inner = Builder(folder / "00" / "00" / "child.000", "inner-0.dag")
    inner.job("x")
    inner.fail("x", condor="201.0")
    inner.write()
    (folder / "00" / "00" / "child.000" / "braindump.yml").write_text(
        braindump("inner-0.dag", submit_dir=f"{RECORDED}/00/00/child.000", label="inner")
    )
    if not copied:
        (folder / "00" / "00" / "child").symlink_to(link)
    return folder


@pytest.mark.parametrize("copied", [False, True])
def test_sub_workflows_are_found_through_the_link_or_by_number(tmp_path: Path, copied: bool) -> None:
    run = open_run(parent_with_child(tmp_path, copied=copied), Ledger())
    child = run.children["pegasus-plan_child"]
    assert child is not None
    assert (child.identity.dax_label, child.depth, child.node, child.parent) == ("inner", 1, "pegasus-plan_child", run)
    assert [part.identity.dax_label for part in run.tree()] == ["demo", "inner"]
    assert child.name == "00/00/child.000"
    assert child.job("x").state is JobState.FAILED


def test_the_latest_plan_of_a_copied_sub_workflow_counts(tmp_path: Path) -> None:
    parent_with_child(tmp_path, copied=True)
    shutil.copytree(tmp_path / "00/00/child.000", tmp_path / "00/00/child.001")
    child = open_run(tmp_path, Ledger()).children["pegasus-plan_child"]
    assert child is not None and child.directory.name == "child.001"


def test_a_copied_link_that_became_a_file_is_no_hindrance(tmp_path: Path) -> None:
    parent_with_child(tmp_path, copied=True)
    (tmp_path / "00/00/child").write_text("child.000")
    child = open_run(tmp_path, Ledger()).children["pegasus-plan_child"]
    assert child is not None


def test_sub_workflows_in_a_circle_end(tmp_path: Path) -> None:
    parent_with_child(tmp_path, copied=True)
    target = tmp_path / "00/00/child.000"
    shutil.rmtree(target)
    target.symlink_to("../..")
    (tmp_path / "inner-0.dag").write_text("")
    ledger = Ledger()
    run = open_run(tmp_path, ledger)
    assert len(list(run.tree())) == 1
    assert run.children == {"pegasus-plan_child": None}
    assert any("leads back" in reason for reason in ledger.entries.values())


def test_a_link_to_itself_ends(tmp_path: Path) -> None:
    parent_with_child(tmp_path, copied=True)
    shutil.rmtree(tmp_path / "00/00/child.000")
    (tmp_path / "00/00/child").symlink_to("child")
    assert list(open_run(tmp_path, Ledger()).children.values()) == [None]


def test_deeper_than_any_real_tree_ends(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(40):
        build = Builder(folder)
        (folder / "00/00").mkdir(parents=True, exist_ok=True)
        build.write()
        (folder / "demo-0.dag").write_text("SUBDAG EXTERNAL s demo-0.dag DIR in\n")
        folder = folder / "in"
        folder.mkdir()
    assert len(list(open_run(tmp_path, Ledger()).tree())) < 40


def test_a_sub_workflow_that_was_never_planned_is_none(tmp_path: Path) -> None:
    parent_with_child(tmp_path, copied=True)
    shutil.rmtree(tmp_path / "00/00/child.000")
    run = open_run(tmp_path, Ledger())
    assert run.children == {"pegasus-plan_child": None}
    assert run.counts.failed == 1


def test_an_external_dag_at_a_recorded_absolute_place(tmp_path: Path) -> None:
    build = Builder(tmp_path)
    build.write()
    inner = Builder(tmp_path / "inner", "inner-0.dag")
    inner.job("x")
    inner.write()
    (tmp_path / "demo-0.dag").write_text(f"SUBDAG EXTERNAL sub {RECORDED}/inner/inner-0.dag\n")
    child = open_run(tmp_path, Ledger()).children["sub"]
    assert child is not None and child.directory == tmp_path / "inner"


def test_monitord_died_early_and_dagman_out_knows_more(tmp_path: Path) -> None:
    build = Builder(tmp_path)
    build.job("a")
    build.attempt("a", "SUBMIT", condor="101.0")
    build.dagman += [
        "11/20/26 21:22:42 Event: ULOG_SUBMIT for HTCondor Node a (101.0.0) {11/20/26 21:22:41}",
        "11/20/26 21:22:44 Node a job proc (101.0.0) failed with status 1.",
        "11/20/26 21:23:40 **** condor_scheduniv_exec.100.0 (condor_DAGMAN) pid 5 EXITING WITH STATUS 1",
    ]
    run = build.open()
    assert run.history.file == "demo-0.dag.dagman.out"
    assert run.job("a").state is JobState.FAILED
    assert [entry.value for entry in run.history.internal if entry.what == "DAGMAN_FINISHED"] == ["1"]


@pytest.mark.parametrize("name", ["jobstate.log", "demo-0.dag.dagman.out", "braindump.yml", "demo-0.dag", "demo-0.log"])
@pytest.mark.parametrize("damage", ["absent", "empty", "binary", "fifo", "directory", "loop", "out"])
def test_any_file_may_be_missing_or_rubbish(tmp_path: Path, name: str, damage: str) -> None:
    build = Builder(tmp_path / "run")
    build.job("a", outputs={".out.000": record(raw=256)})
    build.fail("a")
    build.finish(1)
    path = build.write() / name
    path.unlink()
    (tmp_path / "secret").write_text("secret")
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "binary":
        path.write_bytes(bytes(range(256)) * 500)
    elif damage == "fifo":
        os.mkfifo(path)
    elif damage == "directory":
        path.mkdir()
    elif damage == "loop":
        path.symlink_to(name)
    elif damage == "out":
        path.symlink_to(tmp_path / "secret")
    ledger = Ledger()
    run = open_run(build.folder, ledger)
    state = run.job("a").state
    assert run.counts.total >= 0 and isinstance(run.events, list) and run.dagman.file
    list(run.tree())
    if name in ("braindump.yml", "demo-0.log", "demo-0.dag.dagman.out", "demo-0.dag"):
        assert state is JobState.FAILED
    if damage in ("fifo", "directory", "loop", "out"):
        assert name in ledger.entries


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_recorded_runs_open_without_complaint_and_without_traces(case: Case) -> None:
    before = {path: path.lstat().st_mtime_ns for path in case.folder.rglob("*")}
    ledger = Ledger()
    run = case.open(ledger=ledger)
    for part in run.tree():
        assert part.identity.complete
        assert part.counts.total == part.dag.count
        assert set(part.dag.all_names()) >= {name.decode() for name in part.history.latest}
        assert part.events is not None
        for job in part.jobs(part.dag.all_names()):
            assert job.submit, job.name
    assert ledger.entries == {}
    assert {path: path.lstat().st_mtime_ns for path in case.folder.rglob("*")} == before


def test_a_run_is_found_where_it_was_given_and_not_where_it_was_recorded(tmp_path: Path) -> None:
    run = open_run(parent_with_child(tmp_path / "copy", copied=True), Ledger(), PathMap())
    assert isinstance(run, Run)
    assert run.paths.local(f"{RECORDED}/00/00/x.in") == tmp_path / "copy/00/00/x.in"


@pytest.mark.parametrize(
    "rubbish", ["a\\0b", "x" * 300, "x" * 70_000, "../" * 50 + "etc/passwd", "/etc/passwd", "", ".", "\udcff", "\u202ea"]
)
def test_names_that_no_file_can_have(tmp_path: Path, rubbish: str) -> None:
    name = rubbish.replace("\\0", "\0")
    build = Builder(tmp_path)
    build.job("a")
    build.fail("a")
    build.write()
    raw = name.encode("utf-8", "surrogateescape") or b"''"
    (tmp_path / "demo-0.dag").write_bytes(b"JOB a " + raw + b" DIR " + raw + b"\nSUBDAG EXTERNAL s " + raw + b" DIR " + raw + b"\n")
    (tmp_path / "braindump.yml").write_bytes(braindump().encode().replace(b'"/data/flows/demo/workflow.yml"', b'"/' + raw + b'"'))
    ledger = Ledger()
    run = open_run(tmp_path, ledger)
    job = run.job("a")
    assert (job.submit.get("universe"), job.outputs(), run.children["s"]) == ("", [], None)
    assert run.abstract is None
    assert not any("root:" in reason for reason in ledger.entries.values())


@pytest.mark.parametrize("key", ["dag", "condor_log", "jsd", "properties"])
def test_an_identity_with_impossible_names(tmp_path: Path, key: str) -> None:
    build = Builder(tmp_path)
    build.job("a")
    build.fail("a")
    build.write()
    for rubbish in ("x" * 5000, "a\\0b"):
        rows = [f'{key}: "{rubbish}"' if row.startswith(f"{key}:") else row for row in braindump().splitlines()]
        (tmp_path / "braindump.yml").write_text("\n".join(rows))
        run = open_run(tmp_path, Ledger())
        assert run.counts.total >= 0
        assert isinstance(run.events, list)
        assert run.dagman.file
