"""What the actions are told of a run, from real run directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.loop import views
from doctor.run.files import Ledger
from doctor.run.paths import PathMap
from doctor.run.reader import open_run

from .cases import CASES
from .world import FIXTURES, MemoryQueue, recorded


def test_a_held_job_of_condorio(tmp_path: Path) -> None:
    world = recorded("memory-hold-condorio", tmp_path)
    view = world.view()
    job = view.jobs["assay_merge"]
    assert job.data_configuration == "condorio" and job.initialdir.startswith(f"{world.root}/scratch/")
    assert job.submit_file == f"{world.submit}/00/00/assay_merge.sub" and job.script == f"{world.submit}/00/00/assay_merge.sh"
    assert job.executable == f"{world.root}/bin/assay.py" and job.transformation == "assay" and job.site == "condorpool"
    assert job.held and (job.hold_code, job.hold_subcode) == (21, 102) and job.memory_used_mb == 616
    assert job.requests["request_memory"] == "200 MB" or job.requests["request_memory"] == "200"
    assert view.active is None and view.dag_file == f"{world.submit}/voxel-0.dag" and view.root_dir == str(world.submit)
    assert view.replica_catalog == f"{world.root}/replicas.yml" and view.workflow_file == f"{world.root}/workflow.yml"
    assert view.output_dirs == (f"{world.root}/output",) and f"{world.root}/scratch" in view.scratch_dirs
    assert "--cleanup inplace" in view.planner_arguments and view.properties_file.endswith(".properties")


def test_the_queue_has_the_last_word(tmp_path: Path) -> None:
    world = recorded("memory-hold-condorio", tmp_path)
    world.queue = MemoryQueue()
    view = world.view()
    assert view.active is False and not view.jobs["assay_merge"].held and view.jobs["assay_merge"].queue_ids == ()
    world.hold("assay_merge", 46, 0, MemoryUsage=700, DiskUsage=50)
    world.hold("wave", 1, job_id="7.0")
    world.queue.ads["7.0"].update(JobUniverse=7, JobStatus=2)
    del world.queue.ads["7.0"]["DAGNodeName"]
    job = world.view().jobs["assay_merge"]
    assert (job.queue_ids, job.held, job.hold_code, job.memory_used_mb, job.disk_used_kb) == (("884.0",), True, 46, 700, 50)
    assert world.view().active is True
    world.queue.ads["7.0"]["JobStatus"] = 3  # removed: on its way out
    assert world.view().active is False


def test_a_job_of_another_workflow_with_the_same_name_is_not_ours(tmp_path: Path) -> None:
    world = recorded("memory-hold-condorio", tmp_path)
    world.hold("assay_merge", 21, 102)
    assert world.queue
    world.queue.ads["884.0"]["pegasus_wf_uuid"] = "another"
    assert world.view().jobs["assay_merge"].queue_ids == ()


def test_sharedfs_and_nonsharedfs(tmp_path: Path) -> None:
    shared = recorded("walltime-hold-sharedfs", tmp_path / "a").view().jobs["stepper_warm"]
    assert shared.data_configuration == "sharedfs" and "/pscratch/pool/" in shared.initialdir and shared.script == ""
    plain = recorded("undeclared-helper-nonsharedfs", tmp_path / "b").view().jobs["stepper_plot"]
    assert plain.data_configuration == "nonsharedfs" and plain.script.endswith("stepper_plot.sh") and plain.initialdir == ""
    stage_in = recorded("moved-input-sharedfs", tmp_path / "c").view().jobs["stage_in_local_condorpool_0_0"]
    assert stage_in.transfer_file.endswith("stage_in_local_condorpool_0_0.in") and stage_in.executable == ""


def test_jobs_in_sub_workflows_live_where_they_are(tmp_path: Path) -> None:
    world = recorded("python-package-subworkflow-sharedfs", tmp_path)
    inner = [job for job in world.view().jobs.values() if job.workflow_dir != str(world.submit)]
    assert inner and all(Path(job.submit_file).is_file() and job.workflow_dir.startswith(f"{world.submit}/") for job in inner)
    assert all(job.dag_file.startswith(job.workflow_dir) for job in inner)


def test_a_run_that_was_moved_is_seen_through_the_map(tmp_path: Path) -> None:
    source = FIXTURES / "undeclared-helper-condorio"
    run = open_run(source / "runs/sci/pegasus/wave/run0001", Ledger(), PathMap.parse((f"/data/flows/b03={source}",)))
    job = views.build(run, None, ["filter_x_norm"]).jobs["filter_x_norm"]
    assert job.executable == str(source / "bin" / "filter_x.py") and job.initialdir.startswith(str(source / "scratch"))


def test_named_jobs_only_and_none_of_the_succeeded(tmp_path: Path) -> None:
    world = recorded("undeclared-helper-condorio", tmp_path)
    assert set(world.view("filter_x_norm", "pack_fetch", "nobody").jobs) == {"filter_x_norm"}


@pytest.mark.parametrize("uuid", ['x" || true || "', "", "a b"])
def test_a_hostile_identity_asks_the_queue_nothing(uuid: str, tmp_path: Path) -> None:
    world, _, _ = CASES["raise-memory"](tmp_path)
    braindump = world.submit / "braindump.yml"
    escaped = uuid.replace('"', '\\"')
    text = braindump.read_text()
    old = world.run.identity.root_wf_uuid
    braindump.write_text(text.replace(f'root_wf_uuid: "{old}"', f'root_wf_uuid: "{escaped or "  "}"'))
    assert world.view().jobs["assay_merge"].queue_ids == ()
