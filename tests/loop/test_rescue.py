"""The rescue: proofs before it, one start in DAGMan's log after it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from doctor.loop import rescue
from doctor.loop.rescue import Monitord, Progress
from doctor.loop.seams import Host
from doctor.repair import Finished
from doctor.run.files import Ledger
from doctor.run.paths import PathMap
from doctor.run.reader import Run, open_run
from doctor.statedir import run_key
from tests.builder import braindump
from tests.loop.world import MEMORY_ERROR, FakeQueue, World
from tests.recorded import fixtures

HOST = Host(lambda name: f"/usr/bin/{name}", lambda pid: None, "submit.example.org")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).build({"a1": (MEMORY_ERROR, "200")})


def opened(world: World) -> Run:
    return open_run(world.run, Ledger(), PathMap())


def host(command: str | None = None, name: str = "submit.example.org") -> Host:
    return Host(HOST.which, lambda pid: command, name)


@pytest.mark.parametrize(
    ("pid", "there", "state"),
    [
        (None, HOST, Monitord.NONE),
        ("pid 77\ntimestamp x\n", host("/usr/bin/python3 pegasus-monitord -N x.dag.dagman.out"), Monitord.ALIVE),
        ("pid 77\ntimestamp x\n", host(None), Monitord.DEAD),
        ("pid 77\ntimestamp x\n", host("/bin/bash"), Monitord.DEAD),
        ("pid 77\n", host(None, "elsewhere.example.org"), Monitord.UNKNOWN),
        ("", HOST, Monitord.UNKNOWN),
        ("garbage\n", HOST, Monitord.UNKNOWN),
    ],
)
def test_monitord_is_proven_dead_or_alive(world: World, pid: str | None, there: Host, state: Monitord) -> None:
    if pid is not None:
        (world.run / "monitord.pid").write_text(pid)
    assert rescue.monitord(opened(world), there).state is state


def test_the_highest_rescue_file_is_the_one(world: World) -> None:
    text = (world.run / "demo-0.dag.rescue001").read_text()
    (world.run / "demo-0.dag.rescue002").write_text(text + "DONE a1\n")
    path, problem = rescue.rescue_file(opened(world))
    assert path is not None and path.name == "demo-0.dag.rescue002" and problem == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("JOB a b\n", "does not begin"),
        ("# Rescue DAG file, created after running\nDONE a1", "middle of a line"),
        ("# Rescue DAG file, created after running\nDONE nobody\n", "does not have"),
        ("# Rescue DAG file, created after running\nDONE a1\nDONE b1\nDONE c1\n", "marks 3"),
        ("# Rescue DAG file, created after running\nRETRY a1 x\n", "RETRY"),
    ],
)
def test_a_damaged_rescue_file_is_not_used(world: World, content: str, words: str) -> None:
    (world.run / "demo-0.dag.rescue001").write_text(content)
    assert words in rescue.preflight(opened(world), False, HOST)


@pytest.mark.parametrize("case", [one for one in fixtures() if list((one.folder / one.run).glob("*.rescue0*"))], ids=lambda one: one.name)
def test_real_rescue_files_are_sane(case: object) -> None:
    assert rescue.rescue_file(case.open())[1] == ""  # type: ignore[attr-defined]


def test_without_a_rescue_file_everything_would_run_again(world: World) -> None:
    (world.run / "demo-0.dag.rescue001").unlink()
    assert rescue.preflight(opened(world), False, HOST) == ""  # nothing had succeeded
    with (world.run / "jobstate.log").open("a") as log:
        log.write("1795300000 b1 JOB_SUCCESS 0 condorpool - 9\n1795300001 b1 POST_SCRIPT_SUCCESS 0 condorpool - 9\n")
    assert "run everything again" in rescue.preflight(opened(world), False, HOST)
    (world.run / "demo-0.dag.lock").write_text("")
    assert rescue.preflight(opened(world), False, HOST) == ""  # DAGMan recovers from its log


def test_what_blocks_a_rescue(world: World) -> None:
    assert "queue" in rescue.preflight(opened(world), None, HOST)
    nothing = Host(lambda name: None, lambda pid: None, "x")
    assert "condor_submit" in rescue.preflight(opened(world), False, nothing)
    (world.run / "demo-0.dag.condor.sub").unlink()
    assert "condor.sub" in rescue.preflight(opened(world), False, HOST)


def test_pegasus_run_comes_from_path_then_bindir_then_the_wheel(world: World, tmp_path: Path) -> None:
    run = opened(world)
    assert rescue.command(run, HOST) == ("/usr/bin/pegasus-run", str(run.directory))
    only = Host(lambda name: "/usr/bin/condor_submit" if name == "condor_submit" else None, lambda pid: None, "x")
    found = rescue.command(run, only)
    assert not isinstance(found, str) and found[1].endswith("pegasus-run.py")
    bindir = tmp_path / "bin"
    bindir.mkdir()
    (bindir / "pegasus-run").write_text("#!/bin/sh\n")
    (bindir / "pegasus-run").chmod(0o755)
    (world.run / "braindump.yml").write_text(braindump().replace('"/usr/bin"', f'"{bindir}"'))
    assert rescue.command(opened(world), only) == (str(bindir / "pegasus-run"), str(run.directory))
    shutil.copytree(bindir, world.run / "bin")
    (world.run / "braindump.yml").write_text(braindump().replace('"/usr/bin"', f'"{world.run}/bin"'))
    answer = rescue.command(opened(world), only)
    assert not isinstance(answer, str) and answer[0] != str(world.run / "bin" / "pegasus-run"), "never a program of the run directory"


@pytest.mark.parametrize(
    ("rows", "active"),
    [
        ([], False),
        ([{"ClusterId": 1, "ProcId": 0, "JobUniverse": 7, "JobStatus": 2, "pegasus_wf_xformation": "pegasus::dagman"}], True),
        ([{"ClusterId": 1, "ProcId": 0, "JobUniverse": 7, "JobStatus": 2, "DAGNodeName": "pegasus-plan_x"}], False),
        ([{"ClusterId": 1, "ProcId": 0, "JobUniverse": 5, "JobStatus": 2}], False),
    ],
)
def test_dagman_in_the_queue(world: World, rows: list[dict[str, object]], active: bool) -> None:
    (world.folder / "queue.json").write_text(json.dumps({"jobs": rows}))
    assert rescue.dagman_active(opened(world), FakeQueue(world.folder)) is active


def test_a_queue_that_does_not_answer_proves_nothing(world: World) -> None:
    class Broken(FakeQueue):
        def present(self, constraint: str) -> list[dict[str, object]]:
            raise RuntimeError("schedd is down")

    assert rescue.dagman_active(opened(world), Broken(world.folder)) is None
    assert rescue.dagman_active(opened(world), None) is None


def prepared(world: World, **changes: object) -> tuple[object, str]:
    from doctor.loop.steps import look

    seams = world.seams(**changes)  # type: ignore[arg-type]
    return seams, seams.store.see_run(look(seams, world.run).report.run)


def test_only_a_new_start_in_the_log_counts(world: World) -> None:
    seams, key = prepared(world)
    run = opened(world)
    size = rescue.log_size(run)
    assert not rescue.started_beyond(run, size) and rescue.started_beyond(run, 0)
    answer = rescue.step(run, seams, key, 0.0)  # type: ignore[arg-type]
    assert answer.progress is Progress.STARTED
    assert rescue.started_beyond(opened(world), size)


def test_a_stale_pid_file_is_removed_only_when_proven_dead(world: World) -> None:
    (world.run / "monitord.pid").write_text("pid 77\n")
    seams, key = prepared(world, process=lambda pid: "pegasus-monitord")
    assert rescue.step(opened(world), seams, key, 0.0).progress in (Progress.PENDING, Progress.FAILED)  # type: ignore[arg-type]
    assert (world.run / "monitord.pid").exists() and world.commands == []
    seams, key = prepared(world, process=lambda pid: None)
    assert rescue.step(opened(world), seams, key, 0.0).progress is Progress.STARTED  # type: ignore[arg-type]
    assert not (world.run / "monitord.pid").exists()
    assert "monitord.pid removed" in " ".join(one["text"] for one in seams.store.history(key))  # type: ignore[attr-defined]


def test_the_pause_is_kept(world: World) -> None:
    seams, key = prepared(world, clock=lambda: 1000.0)
    answer = rescue.step(opened(world), seams, key, 1030.0)  # type: ignore[arg-type]
    assert answer.progress is Progress.PENDING and answer.again_at == 1030.0 and world.commands == []


def test_the_exit_code_is_not_trusted(world: World) -> None:
    class Liar:
        def run(self, argv: tuple[str, ...], timeout: float, cwd: str | None = None) -> Finished:
            return Finished(0, "submitted", "")

    clock = [1000.0]
    seams, key = prepared(world, processes=Liar(), clock=lambda: clock[0])
    assert rescue.step(opened(world), seams, key, 0.0).progress is Progress.PENDING  # type: ignore[arg-type]
    clock[0] += 31
    answer = rescue.step(opened(world), seams, key, 0.0)  # type: ignore[arg-type]
    assert answer.progress is Progress.FAILED and "no start within 30 s" in answer.reason and "not in the queue" in answer.reason


def test_a_rescue_that_was_refused_is_explained(world: World) -> None:
    class Refuses:
        def run(self, argv: tuple[str, ...], timeout: float, cwd: str | None = None) -> Finished:
            return Finished(1, "", "ERROR: Can't find address of local schedd")

    seams, key = prepared(world, processes=Refuses())
    rescue.step(opened(world), seams, key, 0.0)  # type: ignore[arg-type]
    answer = rescue.step(opened(world), seams, key, 0.0)  # type: ignore[arg-type]
    assert answer.progress is Progress.FAILED and "local schedd" in answer.reason


def test_dagman_in_the_queue_already_means_no_second_one(world: World) -> None:
    (world.folder / "queue.json").write_text(json.dumps({"jobs": [{"ClusterId": 1, "ProcId": 0, "JobUniverse": 7, "JobStatus": 2}]}))
    seams, key = prepared(world)
    assert rescue.step(opened(world), seams, key, 0.0).progress is Progress.STARTED  # type: ignore[arg-type]
    assert world.commands == [] and key == run_key(str(world.run))


def test_this_process_is_seen_as_alive() -> None:
    from doctor.loop.wiring import this_host

    assert "python" in (this_host().process(os.getpid()) or "").lower()
    assert this_host().process(2**22 + 12345) is None
