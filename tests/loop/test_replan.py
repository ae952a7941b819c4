"""Planning again: a recorded run with a planner that writes a small new run beside it, and the real loop."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.loop.heal import Healed, heal, undo
from doctor.loop.seams import Event, Seams
from doctor.repair import Finished
from doctor.report.heal import healed_json, rows
from doctor.run.paths import PathMap
from doctor.statedir import run_key
from tests.actions.cases import CASES
from tests.builder import Builder, braindump, record
from tests.loop.world import FakeQueue, World

JOB, FULL = "bulk_stage2", "OSError: [Errno 28] No space left on device"
POINTS = (
    "planned", "acting", "journal", "planning", "unfinished", "plan-written", "applied", "rescuing", "rescue", "rescue-submitted",
    "verifying", "recovered",
)  # fmt: skip


class Tools:
    """The planner and pegasus-run of the host: the new run ends as ``end`` says. ``die`` names where the doctor is killed."""

    def __init__(self, world: Again, end: str, die: str) -> None:
        self.world, self.end, self.die = world, end, die

    def run(self, argv: tuple[str, ...], timeout: float, cwd: str | None = None) -> Finished:
        with (self.world.folder / "commands.log").open("a") as log:
            log.write(" ".join(argv) + "\n")
        if argv[0] == "env":
            kill(self.die == "planning")
            self._plan(Path(argv[argv.index("--dir") + 1], argv[argv.index("--relative-submit-dir") + 1]))
            kill(self.die == "plan-written")
        elif self.end != "dead":
            self._start(Path(argv[-1]))
        return Finished(0, "", "")

    def _plan(self, new: Path) -> None:
        assert new == self.world.new
        builder = Builder(new, "again-0.dag")
        builder.job(JOB)
        builder.files["braindump.yml"] = braindump("again-0.dag", str(new)).replace("uuid-root", "uuid-wf")
        builder.jobstate, builder.dagman = [], []
        builder.write()
        (new / "again-0.dag.dagman.out").unlink()
        (new / "jobstate.log").unlink()
        kill(self.die == "unfinished")
        (new / "again-0.dag.condor.sub").write_text("universe = scheduler\nqueue\n")

    def _start(self, new: Path) -> None:
        assert new == self.world.new and not (new / "again-0.dag.dagman.out").exists(), "the old run, or started twice"
        builder = Builder(new, "again-0.dag")
        good = self.end == "good"
        text = FULL if self.end == "same" else "ValueError: bad shape (3, 4)"
        builder.job(JOB, outputs={".out.000": record() if good else record(raw=256, stderr=text)})
        builder.files["braindump.yml"] = (new / "braindump.yml").read_text()
        if good:
            builder.succeed(JOB)
        else:
            builder.fail(JOB)
        builder.finish(0 if good else 1)
        builder.write()


class Again(World):
    """The recorded run whose scratch is full because nothing was cleaned up."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, start_within=2)
        self.recorded = CASES["enable-cleanup"](folder)[0]
        self.run = self.recorded.submit
        self.new = self.run.parent / f"replanned-{self.run.name}"
        (folder / "queue.json").write_text(json.dumps({"jobs": []}))

    def hands(self, matcher: Matcher, end: str = "good", die: str = "", **more: object) -> Seams:
        def tell(event: Event) -> None:
            kill(event.what == die)

        return self.seams(matcher=matcher, processes=Tools(self, end, die), tell=tell, maps=PathMap(), **more)

    @property
    def plannings(self) -> list[str]:
        return [line for line in self.commands if "pegasus-plan" in line]

    @property
    def starts(self) -> list[str]:
        return [line for line in self.commands if "pegasus-run" in line]


def kill(now: bool) -> None:
    if now:
        os.kill(os.getpid(), signal.SIGKILL)


def killed(world: Again, matcher: Matcher, point: str) -> None:
    """Heal in a process of its own, which is killed at a point."""
    child = os.fork()
    if child == 0:
        try:
            seams = world.hands(matcher, die=point)
            if point == "journal":
                store = type(seams.store.journal(0))
                original = store.intend
                store.intend = lambda self, *values: (original(self, *values), kill(True))[0]  # type: ignore[method-assign,func-returns-value]
            heal(seams, world.run, timeout=20)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.fixture
def world(tmp_path: Path) -> Again:
    return Again(tmp_path)


def page(healed: Healed) -> str:
    return "\n".join(row.plain for row in rows(healed))


def test_the_new_run_is_submitted_and_verified(world: Again, matcher: Matcher) -> None:
    seams = world.hands(matcher)
    healed = heal(seams, world.run)
    assert (healed.outcome, healed.exit_code, healed.rescues) == ("recovered", 0, 1), page(healed)
    assert len(world.plannings) == 1 and len(world.starts) == 1 and world.starts[0].endswith(str(world.new))
    document = healed_json(healed)
    assert document["run"] == str(world.run) and document["new_run"] == str(world.new)
    (action,) = document["incidents"][0]["actions"]
    assert (action["action"], action["applied"], action["new_run"]) == ("enable-cleanup", True, str(world.new))
    assert f"the new run is {world.new}, it is succeeded now" in page(healed)
    assert str(world.new) in " ".join(entry["text"] for entry in seams.store.history(run_key(str(world.run))))


def test_afterwards_there_is_nothing_to_do(world: Again, matcher: Matcher) -> None:
    heal(world.hands(matcher), world.run)
    again = heal(world.hands(matcher), world.run)
    assert (again.outcome, again.run.submit_dir) == ("healthy", str(world.new))
    assert len(world.commands) == 2


@pytest.mark.parametrize(
    ("end", "words"), [("same", "which did not help"), ("other", "another reason"), ("dead", "was planned but not started")]
)
def test_a_new_run_that_fails_is_never_planned_again(world: Again, matcher: Matcher, end: str, words: str) -> None:
    healed = heal(world.hands(matcher, end), world.run)
    assert healed.outcome == "escalated" and words in healed.treated[0].reason and str(world.new) in healed.treated[0].reason
    for _ in range(2):
        heal(world.hands(matcher, end), world.run, timeout=5)
        assert len(world.plannings) == 1, "never a second plan"


def test_a_planner_that_had_submitted_it_is_believed(world: Again, matcher: Matcher) -> None:
    class Submits(Tools):
        def _plan(self, new: Path) -> None:
            super()._plan(new)
            self._start(new)

    seams = world.seams(matcher=matcher, processes=Submits(world, "good", ""), maps=PathMap())
    assert heal(seams, world.run).outcome == "recovered"
    assert world.starts == []


def test_without_a_planner_the_command_stays_for_a_person(world: Again, matcher: Matcher) -> None:
    (world.recorded.root / "bin-pegasus" / "pegasus-plan").unlink()
    healed = heal(world.hands(matcher), world.run)
    assert healed.outcome == "escalated" and world.commands == []
    (action,) = healed_json(healed)["incidents"][0]["actions"]
    assert not action["applied"] and re.match(r"env -C \S+ \S+/pegasus-plan .*--cleanup inplace", action["manual"])
    assert f"by hand   {action['manual']}" in page(healed)


def test_while_dagman_runs_nothing_is_planned(world: Again, matcher: Matcher) -> None:
    dagman = {"ClusterId": 1, "ProcId": 0, "JobUniverse": 7, "JobStatus": 2}
    (world.folder / "queue.json").write_text(json.dumps({"jobs": [dagman]}))
    heal(world.hands(matcher, queue=FakeQueue(world.folder)), world.run, timeout=0)
    assert world.commands == [] and not world.new.exists()


@pytest.mark.parametrize("point", POINTS)
def test_kill_9_plans_once_and_starts_once(world: Again, matcher: Matcher, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doctor.loop.settle._PLANNING_S", 0.5)
    killed(world, matcher, point)
    healed = heal(world.hands(matcher), world.run, timeout=30)
    assert len(world.plannings) == 1 and len(world.starts) <= 1
    if point in ("planning", "unfinished"):  # the planner died too: what it left is a person's
        assert healed.outcome == "escalated" and world.starts == []
    else:
        assert healed.outcome in ("recovered", "healthy") and len(world.starts) == 1, page(healed)


def test_undone_means_the_old_run_counts_again(world: Again, matcher: Matcher) -> None:
    seams = world.hands(matcher)
    healed = heal(seams, world.run)
    assert [one.done for one in undo(seams, healed.treated[0].row)] == [True]
    assert seams.store.planned_again(run_key(str(world.run))) == ""


def test_the_daemon_meets_the_new_run_before_it_is_started(tmp_path: Path, matcher: Matcher) -> None:
    """Found in a folder, say: it is nobody's business until the old run's session has started it, and is started once."""
    world = Again(tmp_path)
    killed(world, matcher, "plan-written")
    seams = world.hands(matcher)
    met = heal(seams, world.new, timeout=0, called=False)
    assert (met.outcome, world.starts) == ("healthy", [])
    assert heal(seams, world.run, timeout=0, called=False).outcome == "recovered"
    assert heal(seams, world.new, timeout=0, called=False).outcome == "healthy"
    assert len(world.plannings) == 1 and len(world.starts) == 1


def test_the_daemon_takes_the_new_run_through_the_loop_beside_the_old_one(tmp_path: Path, matcher: Matcher) -> None:
    """The new run fails in another way: that is an incident of the new run alone, told once; the old one's session does nothing there."""
    world = Again(tmp_path)
    seams = world.hands(matcher, end="other")
    for _ in range(3):
        heal(seams, world.run, timeout=0, called=False)
        heal(seams, world.new, timeout=0, called=False)
    store = seams.store
    old, new = store.incidents(run_key(str(world.run))), store.incidents(run_key(str(world.new)))
    assert [row.stage.value for row in (*old, *new)] == ["escalated", "escalated"]
    assert [row.incident.diagnosis.cause for row in new] == ["user-code/application-error"]
    opened = [entry for key in (world.run, world.new) for entry in store.history(run_key(str(key))) if entry["event"] == "opened"]
    assert len(opened) == 2 and len(world.plannings) == 1 and len(world.starts) == 1
