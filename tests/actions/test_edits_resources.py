"""The exact edits of requests and time limits, in all data configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import actions
from actions._submit import DISK, MEMORY, Submit, grown, request, requested
from doctor.repair import Applied, Caps, Skipped

from .cases import CASES
from .edits import changed, edit_submit, plan_of, skipped
from .world import Book, incident, recorded


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
