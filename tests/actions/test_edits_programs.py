"""The exact edits of programs, inputs and outputs, in all data configurations."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import actions
from actions._program import transfer_blocks
from doctor.repair import Applied, Plan

from .cases import CASES
from .edits import changed, plan_of, skipped
from .world import CAPS, incident, recorded


def test_an_installed_program_is_made_executable_in_place(tmp_path: Path) -> None:
    world, about, params = CASES["make-executable"](tmp_path)
    plan = plan_of("make-executable", world, about, params)
    (edit,) = plan.edits
    assert (edit.path, edit.mode_before, edit.mode) == (str(world.root / "bin" / "kernel.py"), 0o640, 0o750)
    assert isinstance(actions.get("make-executable").apply(plan, world.runner()), Applied)
    assert "is executable already" in skipped("make-executable", world, about, params)


def test_the_staged_copy_in_a_shared_scratch_is_made_executable_too(tmp_path: Path) -> None:
    world = recorded("walltime-hold-sharedfs", tmp_path)
    scratch = world.root / "pscratch" / "pool" / world.submit.relative_to(world.root / "runs")
    scratch.mkdir(parents=True)
    (scratch / "stepper").write_bytes(b"#!/usr/bin/python3\n")
    (scratch / "stepper").chmod(0o644)
    (world.root / "bin" / "stepper.py").chmod(0o644)
    plan = plan_of("make-executable", world, incident("stepper_warm"), {})
    assert [(edit.path, edit.mode) for edit in plan.edits] == [
        (str(world.root / "bin" / "stepper.py"), 0o755), (str(scratch / "stepper"), 0o755),
    ]  # fmt: skip


def test_a_program_of_another_job_is_refused(tmp_path: Path) -> None:
    world, about, _ = CASES["make-executable"](tmp_path)
    other = tmp_path / "other.py"
    other.write_text("x")
    assert "is not the program of kernel_north" in skipped("make-executable", world, about, {"file": str(other)})


def test_line_endings_in_both_copies(tmp_path: Path) -> None:
    world, about, params = CASES["normalise-line-endings"](tmp_path)
    plan = plan_of("normalise-line-endings", world, about, params)
    assert [Path(edit.path).name for edit in plan.edits] == ["kernel.py", "kernel"]
    for edit in plan.edits:
        assert edit.before and edit.before.replace(b"\r\n", b"\n") == edit.after
    assert isinstance(actions.get("normalise-line-endings").apply(plan, world.runner()), Applied)
    assert os.access(plan.edits[1].path, os.X_OK)
    assert "has Unix line endings already" in skipped("normalise-line-endings", world, about, params)


def test_line_endings_where_checksums_are_kept(tmp_path: Path) -> None:
    """nonsharedfs with integrity checking: the copy on the staging site, and the checksum in the metadata."""
    import hashlib

    world = recorded("checksum-mismatch-nonsharedfs", tmp_path)
    source = world.root / "bin" / "stepper.py"
    source.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    script = world.submit / "00" / "00" / "stepper_warm.sh"
    entry = next(one for one in transfer_blocks(script.read_text()) if one["lfn"] == "stepper")
    copy = Path(entry["src_urls"][0]["url"].removeprefix("file://"))  # type: ignore[index]
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(source.read_bytes())
    meta = world.submit / "00" / "00" / "stage_in_remote_local_1_0.meta"
    recorded_sum = re.search(r'"checksum.value": "(\w{64})"', meta.read_text())
    assert recorded_sum
    meta.write_text(meta.read_text().replace(recorded_sum[1], hashlib.sha256(source.read_bytes()).hexdigest()))
    view = world.view("stepper_warm")
    plan = actions.get("normalise-line-endings").plan(incident("stepper_warm"), {}, view, CAPS)
    assert isinstance(plan, Plan), plan
    assert {Path(edit.path).name for edit in plan.edits} == {"stepper.py", "stepper", meta.name}
    new = hashlib.sha256(source.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    assert any(new.encode() in (edit.after or b"") for edit in plan.edits if edit.path == str(meta))


# -- inputs and outputs ---------------------------------------------------------------------------------


def test_a_helper_in_condorio_is_put_into_initialdir_and_onto_the_list(tmp_path: Path) -> None:
    world, about, params = CASES["add-input-file"](tmp_path)
    plan = plan_of("add-input-file", world, about, params)
    scratch = world.root / "scratch" / world.submit.relative_to(world.root / "runs")
    assert plan.edits[0].path == str(scratch / "wavelib.py")
    assert plan.edits[0].after == (world.root / "bin" / "wavelib.py").read_bytes()
    ((old, new),) = changed(plan, "filter_x_norm.sub")
    assert new == f"{old},wavelib.py" and plan.rescue


def test_a_helper_for_a_held_job_reaches_its_ad(tmp_path: Path) -> None:
    world, about, params = CASES["add-input-file"](tmp_path)
    world.hold("filter_x_norm", 12, 2)
    plan = plan_of("add-input-file", world, about, params)
    ((name, value),) = plan.queue[0].attributes
    assert name == "TransferInput" and value.startswith('"filter_x,s.txt,/') and value.endswith(',wavelib.py"') and "$(" not in value
    assert plan.queue[0].act == "release" and not plan.rescue


def test_a_helper_in_nonsharedfs_is_fetched_with_the_other_inputs(tmp_path: Path) -> None:
    world = recorded("undeclared-helper-nonsharedfs", tmp_path)
    scratch = world.root / "scratch" / world.submit.relative_to(world.root / "runs") / "00" / "00"
    scratch.mkdir(parents=True)
    about = incident("stepper_plot", "dependency/undeclared-helper-file")
    plan = plan_of("add-input-file", world, about, {"lfn": "treeutils", "pfn": str(world.root / "bin" / "treeutils")})
    script = next(edit for edit in plan.edits if edit.path.endswith("stepper_plot.sh"))
    before, after = transfer_blocks((script.before or b"").decode()), transfer_blocks((script.after or b"").decode())
    added = [one for one in after if one not in before]
    assert [one["lfn"] for one in added] == ["treeutils/__init__.py", "treeutils/io.py"] and [one["id"] for one in added] == [4, 5]
    assert added[1]["src_urls"] == [{"site_label": "local", "url": f"file://{scratch}/treeutils/io.py", "checkpoint": "false"}]
    assert added[1]["dest_urls"] == [{"site_label": "condorpool", "url": "file://$PWD/treeutils/io.py"}]
    assert [one for one in after if one in before] == before
    assert [edit.path for edit in plan.edits if edit.directory] == [str(scratch / "treeutils")]


def test_a_helper_in_nonsharedfs_out_of_reach_goes_through_the_sandbox(tmp_path: Path) -> None:
    world = recorded("undeclared-helper-nonsharedfs", tmp_path)
    script = world.submit / "00" / "00" / "stepper_plot.sh"
    script.write_text(script.read_text().replace(f"file://{world.root}/scratch", "https://data.example.org"))
    about = incident("stepper_plot", "dependency/undeclared-helper-file")
    helper = str(world.root / "bin" / "treeutils" / "io.py")
    plan = plan_of("add-input-file", world, about, {"lfn": "io.py", "pfn": helper})
    added = [one for one in transfer_blocks((plan.edits[0].after or b"").decode()) if one["lfn"] == "io.py"]
    assert added[0]["src_urls"] == [{"site_label": "condorpool", "url": "file://$_CONDOR_SCRATCH_DIR/io.py", "checkpoint": "false"}]
    ((old, new),) = changed(plan, "stepper_plot.sub")
    assert new == f"{old},{helper}"


def test_a_helper_in_sharedfs_is_put_into_the_shared_scratch(tmp_path: Path) -> None:
    world, about, _ = CASES["raise-walltime"](tmp_path)
    scratch = world.root / "pscratch" / "pool" / world.submit.relative_to(world.root / "runs")
    scratch.mkdir(parents=True)
    helper = world.root / "bin" / "helper.py"
    helper.write_text("x = 1\n")
    plan = plan_of("add-input-file", world, about, {"lfn": "helper.py", "pfn": str(helper)})
    assert [(edit.path, edit.after) for edit in plan.edits] == [(str(scratch / "helper.py"), b"x = 1\n")]


def test_an_existing_other_file_is_never_overwritten(tmp_path: Path) -> None:
    world, about, params = CASES["add-input-file"](tmp_path)
    (world.root / "scratch" / world.submit.relative_to(world.root / "runs") / "wavelib.py").write_text("another")
    assert "exists already, with other content" in skipped("add-input-file", world, about, params)


def test_the_transfer_list_and_the_catalog_name_the_new_place(tmp_path: Path) -> None:
    world, about, params = CASES["update-replica"](tmp_path)
    plan = plan_of("update-replica", world, about, params)
    old, new = f"{world.root}/inputs/probe.dat", f"{world.root}/data/probe.dat"
    ((was, now),) = changed(plan, ".in")
    assert f'"url": "{old}"' in was and now == was.replace(old, new)
    assert changed(plan, "replicas.yml") == [(f"    pfn: {old}", f"    pfn: {new}")]
    assert [edit.path for edit in plan.edits][1] == str(world.root / "replicas.yml")


def test_a_file_url_stays_one_and_other_files_stay(tmp_path: Path) -> None:
    world, about, params = CASES["update-replica"](tmp_path)
    path = world.submit / "00" / "00" / "stage_in_local_condorpool_0_0.in"
    path.write_text(path.read_text().replace(f'"{world.root}/inputs', f'"file://{world.root}/inputs'))
    plan = plan_of("update-replica", world, about, params)
    ((old, new),) = changed(plan, ".in")
    assert f'"file://{world.root}/inputs/probe.dat"' in old and f'"file://{world.root}/data/probe.dat"' in new
    assert "no missing file source" in skipped("update-replica", world, about, {**params, "lfn": "smooth"})
    assert "is no regular file" in skipped("update-replica", world, about, {**params, "pfn": "/nowhere/probe.dat"})


def test_a_plain_file_catalog(tmp_path: Path) -> None:
    world, about, params = CASES["update-replica"](tmp_path)
    (world.root / "replicas.yml").unlink()
    (world.root / "rc.txt").write_text(
        f'probe.dat {world.root}/inputs/probe.dat site="local"\nprobe.dat2 {world.root}/inputs/probe.dat x\n'
    )
    plan = plan_of("update-replica", world, about, params)
    (pair,) = changed(plan, "rc.txt")
    assert pair == (f'probe.dat {world.root}/inputs/probe.dat site="local"', f'probe.dat {world.root}/data/probe.dat site="local"')


def test_an_output_directory_in_a_shared_scratch(tmp_path: Path) -> None:
    world, about, params = CASES["create-output-directory"](tmp_path)
    plan = plan_of("create-output-directory", world, about, params)
    scratch = world.root / "pscratch" / "pool" / world.submit.relative_to(world.root / "runs")
    assert [edit.path for edit in plan.edits] == [str(scratch / "results"), str(scratch / "results" / "plots")]
    assert isinstance(actions.get("create-output-directory").apply(plan, world.runner()), Applied)
    assert (scratch / "results" / "plots").is_dir()
    assert "exists already" in skipped("create-output-directory", world, about, params)


@pytest.mark.parametrize(
    ("name", "job"), [("undeclared-helper-condorio", "filter_x_norm"), ("undeclared-helper-nonsharedfs", "stepper_plot")]
)
def test_an_output_directory_in_the_sandbox_is_made_by_the_script(name: str, job: str, tmp_path: Path) -> None:
    world = recorded(name, tmp_path)
    plan = plan_of("create-output-directory", world, incident(job), {"path": "results/a b"})
    lines = (plan.edits[0].after or b"").decode().splitlines()
    at = lines.index("/bin/mkdir -p 'results/a b'")
    assert lines.index("pegasus_lite_setup_work_dir") < at < next(n for n, line in enumerate(lines) if line.startswith("pegasus-kickstart"))
    assert plan.edits[0].path.endswith(f"{job}.sh")
    assert "leads out" in skipped("create-output-directory", world, incident(job), {"path": "../x"})
