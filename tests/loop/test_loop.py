"""The loop in a small world: recovery, escalation, approvals, several incidents, kill -9 at every point."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.errors import DoctorError
from doctor.loop.heal import heal, rehearse, undo
from doctor.loop.seams import Event
from doctor.loop.stages import ENDED, Stage
from doctor.repair import Decision
from doctor.statedir import BusyRun, run_key, run_lock
from doctor.store import scratch_copy
from tests.builder import Builder, braindump
from tests.loop.world import MEMORY_ERROR, NETWORK, World

ROOT = Path(__file__).resolve().parents[2]
POINTS = (
    "open", "diagnosed", "planned", "acting", "journal-intended", "journal-done", "applied", "rescuing", "rescue", "rescue-submitted",
    "verifying", "recovered",
)  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def digest(folder: Path) -> str:
    """A hash of every name, mode, time and byte below a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        whole.update(f"{path} {info.st_mode} {info.st_mtime_ns} {info.st_size}\n".encode())
        whole.update(path.read_bytes() if path.is_file() else b"")
    return whole.hexdigest()


# -- recovery ---------------------------------------------------------------------------------------------


def test_a_job_that_needs_more_memory_recovers(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    events: list[Event] = []
    healed = heal(world.seams(tell=events.append, matcher=matcher), world.run)
    assert (healed.outcome, healed.exit_code, healed.rescues) == ("recovered", 0, 1)
    assert "request_memory = 200 MB" in world.text("a1")
    assert "+request_memory = 200 MB" in healed.treated[0].actions[0].diff
    assert [one.what for one in events] == [
        "open", "diagnosed", "planned", "acting", "applied", "rescuing", "rescue", "rescue-submitted", "verifying", "recovered",
    ]  # fmt: skip


def test_after_recovery_there_is_nothing_to_do(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    heal(world.seams(matcher=matcher), world.run)
    before = digest(world.run)
    assert heal(world.seams(matcher=matcher), world.run).outcome == "healthy"
    assert digest(world.run) == before and len(world.commands) == 1


def test_one_rescue_for_all_repairs_that_are_ready(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200"), "b1": (MEMORY_ERROR.replace("step.py", "other.py"), "200")})
    healed = heal(world.seams(matcher=matcher), world.run)
    assert healed.outcome == "recovered" and healed.rescues == 1 and len(world.commands) == 1


def test_the_repairable_recovers_and_the_rest_is_escalated(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200"), "b1": ("ValueError: bad shape (3, 4)", "never")})
    healed = heal(world.seams(matcher=matcher), world.run)
    assert healed.outcome == "escalated"
    assert {one.outcome for one in healed.treated} == {"recovered", "escalated"}
    assert len(world.commands) == 1


def test_undo_restores_byte_for_byte(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    before = world.text("a1")
    seams = world.seams(matcher=matcher)
    healed = heal(seams, world.run)
    undone = undo(seams, healed.treated[0].row)
    assert [one.done for one in undone] == [True]
    assert world.text("a1") == before
    assert undo(seams, healed.treated[0].row) == []


# -- escalation ---------------------------------------------------------------------------------------------


def test_a_repair_that_does_not_help_is_never_tried_again(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "")})
    for _ in range(3):
        healed = heal(world.seams(matcher=matcher), world.run)
        assert healed.outcome == "escalated" and healed.exit_code == 1
        assert len(world.commands) == 1
        assert "request_memory = 200 MB" in world.text("a1")


@pytest.mark.parametrize(
    ("stderr", "code"),
    [
        ("ValueError: bad shape (3, 4)", 1),
        ("ModuleNotFoundError: No module named 'astropy'", 1),
        ("OSError: [Errno 122] Disk quota exceeded: '/data/out/x'", 1),
        ("FLEXnet: Cannot connect to license server system.", 1),
        ("Segmentation fault (core dumped)", 139),
    ],
)
def test_what_no_program_may_repair_is_explained_and_left_alone(world: World, matcher: Matcher, stderr: str, code: int) -> None:
    world.build({"a1": (stderr, "")}, code)
    before = digest(world.run)
    healed = heal(world.seams(matcher=matcher), world.run)
    assert healed.outcome == "escalated" and healed.rescues == 0
    assert digest(world.run) == before and world.commands == []
    assert healed.treated[0].row.incident.diagnosis.advice


def test_memory_beyond_the_cap_is_not_asked_for(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    before = digest(world.run)
    healed = heal(world.seams(more="[caps]\nmemory_mb = 100\n", matcher=matcher), world.run)
    assert healed.outcome == "escalated" and digest(world.run) == before and world.commands == []


def test_a_person_s_hold_and_a_removed_workflow_are_left_alone(tmp_path: Path, matcher: Matcher) -> None:
    world = World(tmp_path)
    builder = Builder(world.run)
    builder.job("a1", submit="request_memory = 100 MB\n")
    builder.attempt("a1", "SUBMIT", "JOB_HELD", "JOB_HELD_REASON", condor="101.0")
    builder.events = "012 (101.000.000) 2026-11-20 21:23:12 Job was held.\n\tvia condor_hold (by user sci)\n\tCode 1 Subcode 0\n...\n"
    builder.files["braindump.yml"] = braindump().replace("uuid-root", "uuid-wf")
    builder.write()
    (tmp_path / "queue.json").write_text('{"jobs": []}')
    before = digest(world.run)
    healed = heal(world.seams(matcher=matcher), world.run, timeout=1)
    assert healed.outcome == "escalated" and healed.treated[0].row.incident.cause == "held-by-user"
    assert digest(world.run) == before and world.commands == []


def test_attempts_are_bounded(world: World, matcher: Matcher) -> None:
    world.build({"a1": (NETWORK, "")})
    more = "[limits]\nattempts_per_incident = 1\n"
    seams = world.seams(more=more, matcher=matcher, clock=Clock())
    healed = heal(seams, world.run)
    assert healed.outcome == "escalated" and len(world.commands) <= 1


class Clock:
    """A clock that runs a minute with every look at it, so that pauses pass at once."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 60.0
        return self.now


def test_a_rescue_that_never_starts_is_explained(tmp_path: Path, matcher: Matcher) -> None:
    world = World(tmp_path, broken_start=True, start_within=1).build({"a1": (MEMORY_ERROR, "200")})
    healed = heal(world.seams(matcher=matcher), world.run)
    assert healed.outcome == "escalated" and healed.rescues == 0
    assert "no start" in healed.treated[0].reason
    assert len(world.commands) == 1


def test_without_a_rescue_nothing_is_edited(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    before = digest(world.run)
    healed = heal(world.seams(matcher=matcher, queue=None), world.run)
    assert healed.outcome == "escalated" and "queue" in healed.treated[0].reason
    assert digest(world.run) == before


def test_a_running_run_is_left_alone(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    (world.folder / "queue.json").write_text('{"jobs": [{"ClusterId": 100, "ProcId": 0, "JobStatus": 2, "JobUniverse": 7}]}')
    os.utime(world.run / "demo-0.dag.dagman.out", (1.0, 1.0))
    before = digest(world.run)
    healed = heal(world.seams(matcher=matcher), world.run)
    assert healed.outcome == "waiting" and healed.exit_code == 3
    assert digest(world.run) == before and world.commands == []


def test_a_run_that_has_just_ended_is_given_time_to_leave_the_queue(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    (world.folder / "queue.json").write_text('{"jobs": [{"ClusterId": 100, "ProcId": 0, "JobStatus": 2, "JobUniverse": 7}]}')
    left = [3]

    def sleep(seconds: float) -> None:
        left[0] -= 1
        if not left[0]:
            (world.folder / "queue.json").write_text('{"jobs": []}')
            os.utime(world.run / "demo-0.dag.dagman.out")

    assert heal(world.seams(matcher=matcher, sleep=sleep), world.run).outcome == "recovered"


# -- modes and approvals --------------------------------------------------------------------------------------


def test_observe_changes_nothing(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    before = digest(world.run)
    healed = heal(world.seams("observe", yes=True, matcher=matcher), world.run)
    assert healed.outcome == "escalated" and digest(world.run) == before
    assert healed.treated[0].actions[0].verdict is Decision.DENY


def test_ask_waits_then_goes_on_after_approval(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    before = digest(world.run)
    healed = heal(world.seams("ask", matcher=matcher), world.run)
    assert (healed.outcome, healed.exit_code) == ("waiting", 3)
    assert digest(world.run) == before
    seams = world.seams("ask", matcher=matcher)
    assert heal(seams, world.run).outcome == "waiting"  # still nobody has answered
    plan = seams.store.plans(healed.treated[0].row.id)[-1]
    seams.store.plan_state(plan.id, "approved", "approved by a person")
    assert heal(seams, world.run).outcome == "recovered"
    assert len(seams.store.plans(healed.treated[0].row.id)) == 1


def test_approval_lifts_no_denial(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    healed = heal(world.seams("ask", matcher=matcher), world.run)
    seams = world.seams("ask", "[limits]\nattempts_per_incident = 0\n", matcher=matcher)
    seams.store.plan_state(seams.store.plans(healed.treated[0].row.id)[-1].id, "approved", "approved by a person")
    healed = heal(seams, world.run)
    assert healed.outcome == "escalated" and world.commands == []
    assert "request_memory = 100 MB" in world.text("a1")


def test_denied_is_escalated(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    seams = world.seams("ask", matcher=matcher)
    row = heal(seams, world.run).treated[0].row
    seams.store.plan_state(seams.store.plans(row.id)[-1].id, "denied", "denied by a person")
    assert heal(seams, world.run).outcome == "escalated"
    assert "request_memory = 100 MB" in world.text("a1")


def test_yes_answers_what_would_be_asked(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    healed = heal(world.seams("ask", yes=True, matcher=matcher), world.run)
    assert healed.outcome == "recovered" and healed.treated[0].actions[0].verdict is Decision.ASK


def test_a_dry_run_changes_no_byte_and_starts_nothing(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    heal(world.seams("ask", matcher=matcher), world.run)  # there is a state already
    gc.collect()  # connections of that heal that are still open would fold their log into the database later
    before = digest(world.folder)
    with scratch_copy(world.folder / "state", lambda: 0.0) as store:
        healed = rehearse(world.seams("act", policy=world.folder / "policy.toml", store=store, matcher=matcher), world.run)
    assert digest(world.folder) == before and world.commands == []
    assert healed.dry and "+request_memory = 200 MB" in healed.treated[0].actions[0].diff


def test_a_second_doctor_stays_out(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    seams = world.seams(matcher=matcher)
    with run_lock(world.folder / "state", str(world.run)), pytest.raises(BusyRun, match=str(os.getpid())):
        heal(seams, world.run)
    assert world.commands == []


def test_an_action_that_breaks_is_no_catastrophe(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    seams = world.seams(matcher=matcher)

    class Broken:
        name, always_ask = "raise-memory", False

        def plan(self, *args: object) -> object:
            raise RuntimeError("broken on purpose")

    seams = world.seams(matcher=matcher, actions={"raise-memory": Broken()})
    healed = heal(seams, world.run)
    assert healed.outcome == "escalated" and "broken on purpose" in healed.treated[0].reason


def test_links_that_lead_outside_are_refused(world: World, matcher: Matcher) -> None:
    world.build({"a1": (MEMORY_ERROR, "200")})
    victim = world.folder / "victim.sub"
    victim.write_text(world.text("a1"))
    submit = world.run / "00" / "00" / "a1.sub"
    submit.unlink()
    submit.symlink_to(victim)
    before = victim.read_bytes()
    healed = heal(world.seams(matcher=matcher), world.run)
    assert healed.outcome == "escalated" and victim.read_bytes() == before and world.commands == []


# -- kill -9 ----------------------------------------------------------------------------------------------


def killed(world: World, point: str, mode: str = "act") -> None:
    driver = Path(__file__).with_name("driver.py")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(driver), str(world.folder), point, mode], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


@pytest.mark.parametrize("point", POINTS)
def test_kill_9_repeats_nothing_and_loses_nothing(tmp_path: Path, matcher: Matcher, point: str) -> None:
    world = World(tmp_path, start_within=2).build({"a1": (MEMORY_ERROR, "200")})
    killed(world, point)
    seams = world.seams(matcher=matcher)
    healed = heal(seams, world.run)
    assert healed.outcome in ("recovered", "healthy"), healed
    assert len(world.commands) == 1, "exactly one rescue"
    assert "request_memory = 200 MB" in world.text("a1"), "the edit was made once"
    rows = seams.store.incidents(run_key(str(world.run)))
    assert [row.stage for row in rows] == [Stage.RECOVERED] and rows[0].attempts == 1
    applied = [one for one in seams.store.plans(rows[0].id) if one.state == "applied"]
    assert len(applied) == 1
    assert not [entry for entry in seams.store.entries() if entry.state == "intended"]


def test_kill_9_while_waiting(tmp_path: Path, matcher: Matcher) -> None:
    world = World(tmp_path).build({"a1": (MEMORY_ERROR, "200")})
    killed(world, "waiting", "ask")
    seams = world.seams("ask", matcher=matcher)
    healed = heal(seams, world.run)
    assert healed.outcome == "waiting"
    seams.store.plan_state(seams.store.plans(healed.treated[0].row.id)[-1].id, "approved", "yes")
    assert heal(seams, world.run).outcome == "recovered" and len(world.commands) == 1


def test_kill_9_while_acting_is_reported(tmp_path: Path, matcher: Matcher) -> None:
    world = World(tmp_path, start_within=2).build({"a1": (MEMORY_ERROR, "200")})
    killed(world, "journal-intended")
    seams = world.seams(matcher=matcher)
    assert [entry.state for entry in seams.store.entries()] == ["intended"]
    heal(seams, world.run)
    texts = " ".join(entry["text"] for entry in seams.store.history(run_key(str(world.run))))
    assert "interrupted" in texts


def test_damaged_checkpoints_lose_nothing(tmp_path: Path, matcher: Matcher) -> None:
    world = World(tmp_path, start_within=2).build({"a1": (MEMORY_ERROR, "200")})
    killed(world, "applied")
    for path in (tmp_path / "state").glob("checkpoints.db*"):
        path.write_bytes(b"no database at all" * 500)
    assert heal(world.seams(matcher=matcher), world.run).outcome == "recovered" and len(world.commands) == 1
    assert list((tmp_path / "state").glob("checkpoints.db-damaged-*")), "put aside, not thrown away"


def test_everything_ends(tmp_path: Path, matcher: Matcher) -> None:
    world = World(tmp_path).build(
        {f"j{number}": (text, "") for number, text in enumerate((MEMORY_ERROR, "ValueError: x", "KeyError: 'y'"))}
    )
    seams = world.seams(matcher=matcher)
    healed = heal(seams, world.run)
    assert all(one.row.stage in ENDED for one in healed.treated)


def test_a_sub_workflow_is_healed_from_the_root(tmp_path: Path, matcher: Matcher) -> None:
    world = World(tmp_path).build({"a1": (MEMORY_ERROR, "200")})
    below = world.run / "00" / "00" / "sub.000"
    below.mkdir()
    (below / "braindump.yml").write_text(braindump("sub-0.dag").replace("uuid-root", "uuid-wf").replace('"uuid-wf"', '"uuid-sub"', 1))
    text = (
        (below / "braindump.yml")
        .read_text()
        .replace('root_wf_uuid: "uuid-sub"', 'root_wf_uuid: "uuid-wf"')
        .replace('\nwf_uuid: "uuid-wf"', '\nwf_uuid: "uuid-sub"')
    )
    (below / "braindump.yml").write_text(text)
    assert heal(world.seams(matcher=matcher), below).run.submit_dir == str(world.run)
    elsewhere = tmp_path / "alone"
    elsewhere.mkdir()
    (elsewhere / "braindump.yml").write_text(text)
    with pytest.raises(DoctorError, match="root"):
        heal(world.seams(matcher=matcher), elsewhere)
