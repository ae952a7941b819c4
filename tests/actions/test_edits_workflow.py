"""The exact edits that concern the workflow: planning again, hosts, retries, halting, locks."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

import actions
from actions import clear_stale_lock, retry
from doctor.repair import Applied, Caps, Plan, Skipped

from .cases import CASES, dead_process, staged
from .edits import changed, edit_submit, plan_of, skipped
from .world import CAPS, Recorder, World, incident, recorded


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
