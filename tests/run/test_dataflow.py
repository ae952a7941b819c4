"""Who makes and who reads a file; the workflow's own files around a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor.run import dataflow
from doctor.run.dataflow import inputs, is_auxiliary, is_cleanup, is_transfer, origin, outputs
from doctor.run.files import Ledger
from doctor.run.nearby import Nearby
from doctor.run.paths import PathMap
from doctor.run.reader import Run
from tests.builder import Builder
from tests.recorded import Case, every


def chain(folder: Path) -> Run:
    """stage_in -> make (x) -> middle -> use (x); clean_up removes x before use."""
    build = Builder(folder)
    transfer = [{"type": "transfer", "lfn": "raw", "src_urls": [{"url": "/in/raw"}], "dest_urls": [{"url": "file:///s/raw"}]}]
    build.job("stage_in_0", transformation="pegasus::transfer", job_class=2, outputs={".in": json.dumps(transfer)})
    build.job("make", parents=("stage_in_0",), outputs={".in.lof": "raw=raw\n", ".out.lof": "x=x\n"})
    build.job("middle", parents=("make",), outputs={".out.lof": "y=y\n"})
    removal = [{"type": "remove", "target": {"url": "file:///s/./x"}}]
    build.job("clean_up_0", transformation="pegasus::cleanup", job_class=6, parents=("make",), outputs={".in": json.dumps(removal)})
    build.job("use", parents=("middle", "clean_up_0"), submit="transfer_input_files = a/x,y\ntransfer_output_files = z\n")
    for number, name in enumerate(("stage_in_0", "make", "middle", "clean_up_0")):
        build.succeed(name, condor=f"{number}.0")
    build.fail("use", condor="9.0")
    return build.open()


def test_inputs_and_outputs_from_lists_submit_files_and_transfers(tmp_path: Path) -> None:
    run = chain(tmp_path)
    assert (inputs(run.job("make")), outputs(run.job("make"))) == ({"raw"}, {"x"})
    assert (inputs(run.job("use")), outputs(run.job("use"))) == ({"x", "y"}, {"z"})
    assert outputs(run.job("stage_in_0")) == {"raw"}


def test_kinds_of_jobs(tmp_path: Path) -> None:
    run = chain(tmp_path)
    assert [is_auxiliary(run.job(name)) for name in ("stage_in_0", "clean_up_0", "make")] == [True, True, False]
    assert [is_transfer(run.job(name)) for name in ("stage_in_0", "clean_up_0", "make")] == [True, True, False]
    assert [is_cleanup(run.job(name)) for name in ("stage_in_0", "clean_up_0", "make")] == [False, True, False]


def test_the_origin_of_a_file_over_several_levels(tmp_path: Path) -> None:
    run = chain(tmp_path)
    found = origin(run, "x", run.job("use"))
    assert found.producer is not None and found.producer.name == "make"
    assert found.removed_by is not None and found.removed_by.name == "clean_up_0"
    staged = origin(run, "raw", run.job("make"))
    assert staged.producer is not None and staged.producer.name == "stage_in_0"
    assert origin(run, "nothing", run.job("use")).producer is None


def test_a_clean_up_that_did_not_run_removed_nothing(tmp_path: Path) -> None:
    chain(tmp_path)
    log = tmp_path / "jobstate.log"
    log.write_text("\n".join(row for row in log.read_text().splitlines() if "clean_up" not in row) + "\n")
    from doctor.run.reader import open_run

    run = open_run(tmp_path, Ledger())
    assert origin(run, "x", run.job("use")).removed_by is None


def test_a_circle_in_the_dag_ends(tmp_path: Path) -> None:
    chain(tmp_path)
    with (tmp_path / "demo-0.dag").open("a") as stream:
        stream.write("PARENT use CHILD make\nPARENT use CHILD use\n")
    from doctor.run.reader import open_run

    run = open_run(tmp_path, Ledger())
    assert origin(run, "nothing", run.job("use")).producer is None


def test_the_walk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataflow, "_MAX_WALK", 1)
    run = chain(tmp_path)
    assert origin(run, "raw", run.job("use")).producer is None


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_every_declared_input_of_a_recorded_run_has_a_maker_or_lies_outside(case: Case) -> None:
    for run in case.open().tree():
        jobs = run.jobs(run.dag.all_names())
        made = {name: job.name for job in jobs if not is_auxiliary(job) for name in outputs(job)}
        for job in jobs:
            if is_auxiliary(job) or job.name in run.dag.sub_workflows:
                continue
            for lfn in inputs(job) & made.keys():
                found = origin(run, lfn, job).producer
                assert found is not None and found.name == made[lfn], (job.name, lfn)


# ---- nearby


CATALOG = """
transformations:
  - name: step
    sites: [{name: local, pfn: /data/flows/demo/bin/step.py, type: stageable}]
"""


def flow(folder: Path, first_line: bytes = b"#!/usr/bin/env python3\n") -> Nearby:
    """A workflow folder with programs, a run below it, and the map that leads there."""
    bin_ = folder / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "step.py").write_bytes(first_line + b"import helper\n")
    (bin_ / "helper.py").write_text("x = 1\n")
    (bin_ / "package").mkdir()
    (bin_ / "package" / "__init__.py").write_text("")
    (bin_ / "data").mkdir()
    build = Builder(folder / "runs" / "run0001")
    build.files["catalogs/transformations.yml"] = CATALOG
    build.job("a")
    build.fail("a")
    return Nearby(build.open(maps=PathMap((("/data/flows/demo", folder),))))


def test_the_program_of_a_job_and_its_first_line(tmp_path: Path) -> None:
    around = flow(tmp_path / "demo")
    script = around.script(around.run.job("a"))
    assert script is not None
    assert (script.path.name, script.interpreter, script.has_crlf) == ("step.py", "/usr/bin/env python3", False)


def test_carriage_returns_are_kept_and_told(tmp_path: Path) -> None:
    around = flow(tmp_path / "demo", b"#!/usr/bin/python3\r\n")
    script = around.script(around.run.job("a"))
    assert script is not None and script.has_crlf and script.interpreter == "/usr/bin/python3"


@pytest.mark.parametrize("first", [b"\x7fELF\x02\x01\x01", b"", b"import os\n", b"#!"])
def test_programs_without_an_interpreter(tmp_path: Path, first: bytes) -> None:
    around = flow(tmp_path / "demo", first)
    script = around.script(around.run.job("a"))
    assert script is not None and not script.has_crlf
    assert script.interpreter in ("", "import helper")


def test_modules_of_the_workflows_own(tmp_path: Path) -> None:
    around = flow(tmp_path / "demo")
    helper, package = around.module("helper"), around.module("package.sub")
    assert helper is not None and helper.name == "helper.py"
    assert package is not None and package.name == "package"
    assert around.module("data") is None
    assert around.module("numpy") is None


def test_a_moved_file_is_found_close_by_but_not_among_the_runs_own_copies(tmp_path: Path) -> None:
    around = flow(tmp_path / "demo")
    (tmp_path / "demo/inputs/archive").mkdir(parents=True)
    assert around.moved("/data/flows/demo/inputs/f.a") is None
    (tmp_path / "demo/runs/run0001/f.a").write_text("copy of the run")
    assert around.moved("/data/flows/demo/inputs/f.a") is None
    (tmp_path / "demo/inputs/archive/f.a").write_text("moved")
    assert around.moved("/data/flows/demo/inputs/f.a") == tmp_path / "demo/inputs/archive/f.a"
    (tmp_path / "demo/inputs/archive/x[1]*").write_text("odd name")
    assert around.moved("/data/flows/demo/inputs/x[1]*") == tmp_path / "demo/inputs/archive/x[1]*"


def test_links_in_a_circle_around_the_run_end(tmp_path: Path) -> None:
    around = flow(tmp_path / "demo")
    (tmp_path / "demo/bin/again").symlink_to(tmp_path / "demo")
    assert around.find("helper.py") == [tmp_path / "demo/bin/helper.py"]


def test_a_program_that_is_a_fifo_or_gone_is_none(tmp_path: Path) -> None:
    around = flow(tmp_path / "demo")
    (tmp_path / "demo/bin/step.py").unlink()
    assert around.script(around.run.job("a")) is None
