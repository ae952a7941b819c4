"""The exact edit of each action, in all data configurations."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import actions
from actions import clear_stale_lock, retry
from actions._program import transfer_blocks
from actions._submit import DISK, MEMORY, Submit, grown, request, requested
from doctor.repair import Applied, Caps, Plan, Skipped

from .cases import CASES, dead_process, staged
from .world import CAPS, Book, Recorder, World, incident, recorded


def plan_of(name: str, world: World, about: Any, params: dict[str, Any], caps: Caps = CAPS) -> Plan:
    plan = actions.get(name).plan(about, params, world.view(), caps)
    assert isinstance(plan, Plan), plan
    return plan


def skipped(name: str, world: World, about: Any, params: dict[str, Any], caps: Caps = CAPS) -> str:
    answer = actions.get(name).plan(about, params, world.view(), caps)
    assert isinstance(answer, Skipped), answer
    return answer.reason


def changed(plan: Plan, file: str) -> list[tuple[str, str]]:
    """(old, new) lines of one edit, by place; added lines have an empty old one."""
    edit = next(one for one in plan.edits if one.path.endswith(file))
    old, new = (edit.before or b"").decode().splitlines(), (edit.after or b"").decode().splitlines()
    if len(old) == len(new):
        return [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    return [("", line) for line in new if line not in old] + [(line, "") for line in old if line not in new]


def edit_submit(world: World, name: str, *pairs: tuple[str, str]) -> Path:
    path = world.submit / "00" / "00" / f"{name}.sub"
    text = path.read_text()
    for pattern, new in pairs:
        text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
        assert count, pattern
    path.write_text(text)
    return path


# -- memory and disk ------------------------------------------------------------------------------------


def test_memory_grows_in_the_macro_and_in_the_queue_without_a_rescue(tmp_path: Path) -> None:
    world, about, params = CASES["raise-memory"](tmp_path)
    plan = plan_of("raise-memory", world, about, params)
    assert changed(plan, "assay_merge.sub") == [("pegasus_memory_mb = 200", "pegasus_memory_mb = 770")]  # 616 x 1.25
    (change,) = plan.queue
    assert (change.job_id, change.attributes, change.act) == ("884.0", (("RequestMemory", "770"),), "release")
    assert plan.rescue is False
    applied = actions.get("raise-memory").apply(plan, world.runner())
    assert isinstance(applied, Applied) and world.queue
    assert world.queue.log[0] == ("edit", "884.0", "RequestMemory", "770") and world.queue.log[1][0] == "release"
    assert world.queue.log[1][2].startswith("pegasus-doctor: Ask for more memory")


def test_memory_growth_survives_rescues_and_stops_at_the_cap(tmp_path: Path) -> None:
    world, about, _ = CASES["raise-memory"](tmp_path)
    world.queue = None
    seen = []
    for _ in range(10):
        answer = actions.get("raise-memory").plan(about, {}, world.view(), Caps(memory_mb=4000))
        if isinstance(answer, Skipped):
            break
        assert answer.rescue and not answer.queue
        assert isinstance(actions.get("raise-memory").apply(answer, world.runner()), Applied)
        seen.append(int(changed(answer, ".sub")[0][1].split()[-1]))
    assert seen == [770, 1540, 3080, 4000]
    assert isinstance(answer, Skipped) and "already asks for 4000 MB of memory; the policy allows at most 4000" in answer.reason


def test_memory_need_beyond_the_cap_is_not_tried(tmp_path: Path) -> None:
    world, about, params = CASES["raise-memory"](tmp_path)
    assert "used 616 MB of memory; the policy allows at most 500" in skipped("raise-memory", world, about, params, Caps(memory_mb=500))


def test_memory_without_a_request_gets_macro_and_request_before_queue(tmp_path: Path) -> None:
    world, about, _ = CASES["raise-memory"](tmp_path)
    path = edit_submit(world, "assay_merge", (r"^request_memory.*\n", ""), (r"^pegasus_memory_mb.*\n", ""))
    plan = plan_of("raise-memory", world, about, {"at_least_mb": 100})
    lines = (plan.edits[0].after or b"").decode().splitlines()
    assert plan.edits[0].path == str(path)
    assert lines[lines.index("queue") - 2 : lines.index("queue")] == ["pegasus_memory_mb = 770", "request_memory = $(pegasus_memory_mb) MB"]


@pytest.mark.parametrize(
    ("line", "amount", "after"),
    [
        ("request_memory = 300", 300, "request_memory = 900 MB"),
        ("request_memory = 2 GB", 2048, "request_memory = 900 MB"),
        ("request_memory=1G", 1024, "request_memory=900 MB"),
        ("request_memory = $(pegasus_memory_mb)", 200, "pegasus_memory_mb = 900"),
        ("request_memory = $(pegasus_memory_mb) MB", 200, "pegasus_memory_mb = 900"),
        ("Request_Memory = 512M", 512, "Request_Memory = 900 MB"),
    ],
)
def test_every_way_to_write_a_request(line: str, amount: int, after: str, tmp_path: Path) -> None:
    path = tmp_path / "a.sub"
    path.write_text(f"universe = vanilla\n{line}\npegasus_memory_mb = 200\nqueue\nrequest_memory = 7\n")
    submit = Submit(str(path))
    assert requested(submit, MEMORY) == amount
    request(submit, MEMORY, 900)
    edit = submit.edit()
    assert edit and after in (edit.after or b"").decode().splitlines()
    assert requested(Submit(str(path), edit.after), MEMORY) == 900
    assert (edit.after or b"").endswith(b"queue\nrequest_memory = 7\n")


def test_disk_units_are_kilobytes_where_the_line_has_none(tmp_path: Path) -> None:
    path = tmp_path / "a.sub"
    path.write_text("request_disk = 20480\nqueue\n")
    assert requested(Submit(str(path)), DISK) == 20
    path.write_text("request_disk = $(pegasus_diskspace_mb)\npegasus_diskspace_mb = 20480\nqueue\n")
    submit = Submit(str(path))
    assert requested(submit, DISK) == 20
    request(submit, DISK, 40)
    assert submit.get("pegasus_diskspace_mb") == "40960" and requested(submit, DISK) == 40


def test_an_expression_is_left_to_a_person(tmp_path: Path) -> None:
    world, about, params = CASES["raise-memory"](tmp_path)
    edit_submit(world, "assay_merge", (r"^request_memory.*$", "request_memory = ifThenElse(NumHolds > 1, 4096, 1024)"))
    assert "is an expression; it is left to a person" in skipped("raise-memory", world, about, params)


def test_requests_grow_at_least_by_one_and_never_beyond_the_cap() -> None:
    assert grown(100, 0, 1000, 2.0) == 200
    assert grown(100, 400, 1000, 2.0) == 500
    assert grown(900, 0, 1000, 2.0) == 1000
    assert grown(100, 0, 1000, 1.0) == 101


def test_disk_in_the_queue_is_in_kilobytes(tmp_path: Path) -> None:
    world, about, _ = CASES["raise-disk"](tmp_path)
    world.hold("assay_merge", 34, 104, DiskUsage=9_000_000)
    plan = plan_of("raise-disk", world, about, {})
    amount = 10988  # 9,000,000 KB x 1.25, in MB
    assert changed(plan, "assay_merge.sub") == [("pegasus_diskspace_mb = 5120", f"pegasus_diskspace_mb = {amount}")]
    assert plan.queue[0].attributes == (("RequestDisk", str(amount * 1024)),)


@pytest.mark.parametrize("name", ["raise-memory", "raise-disk", "raise-walltime", "release-held"])
def test_a_persons_hold_is_never_released(name: str, tmp_path: Path) -> None:
    world, _, _ = CASES["raise-memory"](tmp_path)
    edit_submit(world, "assay_merge", (r"^universe", "allowed_job_duration = 60\nuniverse"))
    for code, cause, text in (
        (1, "x/y", ""),
        (15, "x/y", ""),
        (13, "policy/held-by-user", ""),
        (13, "x/y", "via condor_hold (by user sci)"),
    ):
        world.hold("assay_merge", code)
        assert "a person" in skipped(name, world, incident("assay_merge", cause, text=text), {})


def test_a_person_who_comes_in_between_is_respected(tmp_path: Path) -> None:
    world, about, params = CASES["raise-memory"](tmp_path)
    plan = plan_of("raise-memory", world, about, params)
    before = (world.submit / "00" / "00" / "assay_merge.sub").read_bytes()
    assert world.queue
    world.queue.ads["884.0"]["HoldReasonCode"] = 1
    failed = actions.get("raise-memory").apply(plan, world.runner())
    assert not isinstance(failed, Applied) and "by a person" in failed.reason and failed.undone
    assert (world.submit / "00" / "00" / "assay_merge.sub").read_bytes() == before and not world.queue.log


@pytest.mark.parametrize("fail", ["edit", "release"])
def test_an_error_of_the_queue_takes_the_files_back(fail: str, tmp_path: Path) -> None:
    world, about, params = CASES["raise-memory"](tmp_path)
    plan = plan_of("raise-memory", world, about, params)
    assert world.queue
    before = (world.submit / "00" / "00" / "assay_merge.sub").read_bytes()
    world.queue.fail = fail
    failed = actions.get("raise-memory").apply(plan, world.runner())
    assert not isinstance(failed, Applied) and "the schedd went away" in failed.reason
    assert failed.undone is (fail == "release")  # with `edit` failing, so does setting it back
    assert (world.submit / "00" / "00" / "assay_merge.sub").read_bytes() == before
    assert world.queue.ads["884.0"]["RequestMemory"] == "200" and world.queue.ads["884.0"]["JobStatus"] == 5


def test_a_job_that_left_the_queue_is_told(tmp_path: Path) -> None:
    world, about, params = CASES["raise-memory"](tmp_path)
    plan = plan_of("raise-memory", world, about, params)
    assert world.queue
    world.queue.ads.clear()
    failed = actions.get("raise-memory").apply(plan, world.runner())
    assert not isinstance(failed, Applied) and failed.reason == "job 884.0 has left the queue"
    assert plan_of("raise-memory", world, about, params).rescue  # looked at again, a rescue is due


def test_undo_needs_no_queue_for_the_files(tmp_path: Path) -> None:
    world, about, params = CASES["raise-memory"](tmp_path)
    path = world.submit / "00" / "00" / "assay_merge.sub"
    before, book = path.read_bytes(), Book()
    applied = actions.get("raise-memory").apply(plan_of("raise-memory", world, about, params), world.runner(book))
    assert isinstance(applied, Applied) and path.read_bytes() != before
    world.queue = None
    assert isinstance(actions.get("raise-memory").undo(applied, world.runner(book)), Applied)
    assert path.read_bytes() == before


@pytest.mark.parametrize("code", [3, 34, 46, 47])
def test_a_hold_that_would_come_back_is_not_released(code: int, tmp_path: Path) -> None:
    world, about, _ = CASES["release-held"](tmp_path)
    world.hold("assay_merge", code)
    assert "would be held again" in skipped("release-held", world, about, {})


# -- time -----------------------------------------------------------------------------------------------


def test_the_allowed_duration_grows_in_file_and_queue(tmp_path: Path) -> None:
    world, about, _ = CASES["raise-walltime"](tmp_path)
    world.hold("stepper_warm", 46)
    plan = plan_of("raise-walltime", world, about, {"at_least_s": 100})
    assert changed(plan, "stepper_warm.sub") == [("allowed_job_duration = 10", "allowed_job_duration = 125")]
    assert plan.queue[0].attributes == (("AllowedJobDuration", "125"),) and plan.queue[0].act == "release" and not plan.rescue
    reason = skipped("raise-walltime", world, about, {}, Caps(walltime_s=10))
    assert "allowed_job_duration is 10 s already; the policy allows at most 10" in reason


def test_kickstarts_limit_in_the_arguments_of_sharedfs_and_not_the_programs_own(tmp_path: Path) -> None:
    world, about, _ = CASES["raise-walltime"](tmp_path)
    edit_submit(
        world, "stepper_warm", (r"^allowed_job.*\n", ""), (r" -L md1", " -k 12 -K 5 -L md1"), (r"stepper --in", "stepper -k 3 --in")
    )
    world.hold("stepper_warm", 12)
    plan = plan_of("raise-walltime", world, about, {})
    ((old, new),) = changed(plan, "stepper_warm.sub")
    assert new == old.replace("-k 12 -K 5", "-k 24 -K 5") and "stepper -k 3" in new
    assert plan.rescue and not plan.queue  # the ad in the queue keeps its arguments


@pytest.mark.parametrize("name", ["undeclared-helper-condorio", "undeclared-helper-nonsharedfs"])
def test_kickstarts_limit_in_the_script(name: str, tmp_path: Path) -> None:
    world = recorded(name, tmp_path)
    job = "filter_x_norm" if name.endswith("condorio") else "stepper_plot"
    script = world.submit / "00" / "00" / f"{job}.sh"
    script.write_text(re.sub(r" -L (\w+) -T (\S+) (\S+)", r" -k 60 -K 5 -L \1 -T \2 \3 -k 7", script.read_text()))
    plan = plan_of("raise-walltime", world, incident(job), {})
    ((old, new),) = changed(plan, f"{job}.sh")
    assert new == old.replace("-k 60", "-k 120") and " -k 7 " in new


def test_limits_of_a_batch_system_and_of_a_policy(tmp_path: Path) -> None:
    world, about, _ = CASES["raise-walltime"](tmp_path)
    edit_submit(
        world, "stepper_warm", (r"^allowed_job.*\n", ""), (r"^pegasus_job_runtime = 0", "pegasus_job_runtime = 600"),
        (r"^universe", 'batch_runtime = $(pegasus_job_runtime)\n+remote_cerequirements = EXTRA=="x" && WALLTIME=="00:10:00"\n'
                       "periodic_hold = (JobStatus == 2) && (time() - JobCurrentStartDate) > 12\nuniverse"),
    )  # fmt: skip
    plan = plan_of("raise-walltime", world, about, {})
    new = [line for _, line in changed(plan, ".sub")]
    assert "pegasus_job_runtime = 1200" in new
    assert '+remote_cerequirements = EXTRA=="x" && WALLTIME=="00:20:00"' in new
    assert "periodic_hold = (JobStatus == 2) && (time() - JobCurrentStartDate) > 24" in new
    assert not any(line.startswith("periodic_remove") for line in new)


# -- programs -------------------------------------------------------------------------------------------


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


# -- planning again -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("enable-cleanup", ["--cleanup", "inplace"]),
        ("bypass-image-staging", ["-Dpegasus.transfer.bypass.input.staging=true"]),
        ("namespace-output", ["--output-dir"]),
    ],
)
def test_planning_again_keeps_the_arguments_and_reuses_outputs(name: str, wanted: list[str], tmp_path: Path) -> None:
    world, about, params = CASES[name](tmp_path)
    plan = plan_of(name, world, about, params)
    (argv,) = plan.argv
    assert argv[:3] == ("env", "-C", str(world.root)) and argv[3] == str(world.root / "bin-pegasus" / "pegasus-plan")
    assert " ".join(wanted) in " ".join(argv)
    assert argv[-1] == str(world.root / "workflow.yml") and not {"--force", "--submit"} & set(argv)
    assert argv[argv.index("--reuse") + 1] == str(world.submit)
    assert argv[argv.index("--conf") + 1].startswith(str(world.submit)) and argv[argv.index("--sites") + 1] == "condorpool"
    assert plan.rescue and plan.manual == ""
    base, new = world.root / "runs", world.submit.parent / f"replanned-{world.submit.name}"
    assert plan.new_run == str(new) and f"The new run: {new}" in (plan.edits[0].after or b"").decode()
    places = {name: argv[argv.index(name) + 1] for name in ("--dir", "--relative-submit-dir", "--relative-dir")}
    assert places == {
        "--dir": str(base), "--relative-submit-dir": str(new.relative_to(base)), "--relative-dir": str(world.submit.relative_to(base)),
    }  # fmt: skip
    assert sum(word.startswith("--dir") for word in argv) == 1


def test_what_comes_from_planning_again_is_never_planned_again(tmp_path: Path) -> None:
    world, about, params = CASES["enable-cleanup"](tmp_path)
    new = world.submit.parent / f"replanned-{world.submit.name}"
    new.mkdir()
    assert "comes from planning again already" in skipped("enable-cleanup", world, about, params)
    view = replace(world.view(), root_dir=str(new))
    answer = actions.get("enable-cleanup").plan(about, params, view, Caps())
    assert isinstance(answer, Skipped) and "comes from planning again already" in answer.reason


@pytest.mark.parametrize("name", ["enable-cleanup", "bypass-image-staging", "namespace-output"])
def test_without_a_planner_it_is_a_command_for_a_person(name: str, tmp_path: Path) -> None:
    world, about, params = CASES[name](tmp_path)
    (world.root / "bin-pegasus" / "pegasus-plan").unlink()
    plan = plan_of(name, world, about, params)
    assert not plan.edits and not plan.argv and not plan.rescue
    assert plan.manual.startswith(f"env -C {world.root} {world.root}/bin-pegasus/pegasus-plan ") and "--reuse" in plan.manual
    assert f"to be run by a person: {plan.manual}" in actions.diff(plan)


def test_a_planner_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    world, about, params = CASES["enable-cleanup"](tmp_path)
    plan = plan_of("enable-cleanup", world, about, params)
    failed = actions.get("enable-cleanup").apply(plan, world.runner(processes=Recorder(code=1)))
    assert not isinstance(failed, Applied) and "ended with exit code 1: it did not work" in failed.reason and failed.undone
    assert not Path(plan.edits[0].path).exists()


# -- hosts, requests, retries, halt, locks --------------------------------------------------------------


def test_a_host_is_excluded_by_requirement(tmp_path: Path) -> None:
    world, about, _ = CASES["exclude-host"](tmp_path)
    plan = plan_of("exclude-host", world, about, {})
    assert changed(plan, ".sub") == [("", 'requirements = (toLower(TARGET.Machine) != "node7.example.org")')]
    edit_submit(world, "stepper_warm", (r"^universe", 'requirements = (OpSys == "LINUX") || HasIt\nuniverse'))
    plan = plan_of("exclude-host", world, about, {"host": "Node9"})
    ((_, new),) = changed(plan, ".sub")
    assert new == 'requirements = ((OpSys == "LINUX") || HasIt) && (toLower(split(TARGET.Machine, ".")[0]) != "node9")'
    assert "parameters are not valid" in skipped("exclude-host", world, about, {"host": 'x") || (true'})


def test_a_request_is_lowered_only_where_it_exceeds_the_offer_and_only_by_asking(tmp_path: Path) -> None:
    world, about, _ = CASES["lower-request"](tmp_path)
    assert actions.get("lower-request").always_ask and not any(one.always_ask for one in actions.ACTIONS if one.name != "lower-request")
    plan = plan_of("lower-request", world, about, {"memory_mb": 1000, "disk_mb": 999_999, "cpus": 4})
    ((old, new),) = changed(plan, ".sub")
    assert old.startswith("pegasus_memory_mb = ") and new == "pegasus_memory_mb = 1000"
    assert "not known what the slots" in skipped("lower-request", world, about, {})
    assert "asks for nothing" in skipped("lower-request", world, about, {"memory_mb": 10_000_000})


def test_retries_wait_longer_each_time_within_bounds(tmp_path: Path) -> None:
    assert [retry.pause(number) for number in (0, 1, 2, 3)] == [30, 60, 120, 240] and retry.pause(100) == 1800
    world, about, _ = CASES["retry"](tmp_path)
    plan = plan_of("retry", world, about, {"attempt": 1})
    assert plan.delay_s == 60 and plan.rescue and not plan.edits


def test_a_retry_of_a_held_job_releases_it(tmp_path: Path) -> None:
    world, about, _ = CASES["release-held"](tmp_path)
    plan = plan_of("retry", world, about, {})
    assert plan.queue[0].act == "release" and not plan.rescue


def test_a_halt_reaches_every_dag_that_runs(tmp_path: Path) -> None:
    world, about, _ = CASES["halt-workflow"](tmp_path)
    for name, lock in (("00/00/inner_1.000", True), ("00/00/inner_2.000", False)):
        (world.submit / name).mkdir()
        (world.submit / name / "inner-0.dag").write_text("")
        if lock:
            (world.submit / name / "inner-0.dag.lock").write_text("")
    plan = plan_of("halt-workflow", world, about, {})
    assert [Path(edit.path).relative_to(world.submit).as_posix() for edit in plan.edits] == [
        "voxel-0.dag.halt", "00/00/inner_1.000/inner-0.dag.halt",
    ]  # fmt: skip
    assert isinstance(actions.get("halt-workflow").apply(plan, world.runner()), Applied)
    assert "halted already" in skipped("halt-workflow", world, about, {})


def _lock(world: World, pid: int, file: str = "monitord.pid") -> None:
    (world.submit / file).write_text(f"pid {pid}\ntimestamp x\n")


def test_a_lock_goes_only_when_everybody_is_proven_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, about, params = CASES["clear-stale-lock"](tmp_path)
    plan = plan_of("clear-stale-lock", world, about, params)
    assert [Path(edit.path).name for edit in plan.edits] == ["monitord.pid"] and plan.edits[0].after is None
    _lock(world, os.getpid())  # alive, and not monitord: the number was used again
    assert isinstance(actions.get("clear-stale-lock").plan(about, {}, world.view(), CAPS), Plan)
    proc = tmp_path / "proc"
    (proc / str(os.getpid())).mkdir(parents=True)
    (proc / str(os.getpid()) / "cmdline").write_bytes(b"python3\0/usr/bin/pegasus-monitord\0x.dag.dagman.out\0")
    monkeypatch.setattr(clear_stale_lock, "_PROC", proc)
    assert "not proven dead: monitord" in skipped("clear-stale-lock", world, about, {})
    _lock(world, dead_process())
    (proc / str(os.getpid()) / "cwd").symlink_to(world.submit)
    assert "still works in" in skipped("clear-stale-lock", world, about, {})


def test_a_lock_of_another_host_stays(tmp_path: Path) -> None:
    world, about, _ = CASES["clear-stale-lock"](tmp_path)
    path = world.submit / "braindump.yml"
    path.write_text(path.read_text().replace(f'submit_hostname: "{socket.gethostname()}"', 'submit_hostname: "other.example.org"'))
    assert "was started on other.example.org" in skipped("clear-stale-lock", world, about, {})


def test_a_lock_stays_while_dagman_may_be_in_the_queue(tmp_path: Path) -> None:
    world, about, _ = CASES["halt-workflow"](tmp_path)
    _lock(world, dead_process())
    assert "may be in the queue" in skipped("clear-stale-lock", world, about, {})
    world.hold("x", 1, job_id="77.0")
    assert world.queue
    del world.queue.ads["77.0"]["DAGNodeName"]
    world.queue.ads["77.0"].update(JobUniverse=7, JobStatus=2)
    assert "is in the queue" in skipped("clear-stale-lock", world, about, {})


def test_dagmans_own_lock_goes_only_where_it_was_refused_because_of_it(tmp_path: Path) -> None:
    world, _, _ = CASES["clear-stale-lock"](tmp_path)
    dag = next(world.submit.glob("*.dag"))
    Path(f"{dag}.lock").write_text(f"PPID = 1\nPID = {dead_process()}\nPRECISION = 100\n")
    quiet = plan_of("clear-stale-lock", world, incident(""), {})
    assert [Path(edit.path).name for edit in quiet.edits] == ["monitord.pid"]
    refused = incident("", text="Aborting because it looks like another instance of DAGMan is currently running on this DAG")
    assert len(plan_of("clear-stale-lock", world, refused, {}).edits) == 2


# -- the shape of a plan --------------------------------------------------------------------------------


def test_a_diff_of_binary_files_tells_their_size(tmp_path: Path) -> None:
    world, about, params = CASES["add-input-file"](tmp_path)
    (world.root / "bin" / "wavelib.py").write_bytes(b"\0\1\2")
    assert "binary, 0 bytes -> 3 bytes" in actions.diff(plan_of("add-input-file", world, about, params))


def test_all_jobs_of_an_incident_are_repaired_and_siblings_get_the_helper(tmp_path: Path) -> None:
    world = recorded("undeclared-helper-condorio", tmp_path)
    staged(world, "filter_x", "filter_x.py")
    text = (world.submit / "00" / "00" / "filter_x_norm.sub").read_text()
    (world.submit / "00" / "00" / "filter_x_other.sub").write_text(text.replace("norm", "other"))
    dag = next(world.submit.glob("*.dag"))
    dag.write_text(dag.read_text() + "JOB filter_x_other 00/00/filter_x_other.sub\n")
    about, params = incident("filter_x_norm"), {"lfn": "wavelib.py", "pfn": str(world.root / "bin" / "wavelib.py")}
    assert {Path(edit.path).name for edit in plan_of("add-input-file", world, about, params).edits} == {
        "wavelib.py", "filter_x_norm.sub", "filter_x_other.sub",
    }  # fmt: skip
    assert len(plan_of("raise-memory", world, about, {}).edits) == 1
