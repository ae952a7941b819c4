"""After a crash between intent and result: what is in force is told from what is not, and undo goes back to the beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.loop import verify
from doctor.loop.heal import heal
from doctor.loop.records import Entry
from doctor.loop.settle import originals
from doctor.repair import Plan, QueueEdit, Risk
from doctor.statedir import run_key
from doctor.store import PlanJournal, Store
from tests.loop.world import MEMORY_ERROR, World

CHANGE = QueueEdit("12.0", (("RequestMemory", "200"),), "release")


def plan(*queue: QueueEdit) -> Plan:
    return Plan("raise-memory", "i", "j", {}, "s", "e", "u", Risk.COSTLY, queue=queue, rescue=False)


def entry(number: int, what: str, original: bytes | None) -> Entry:
    return Entry(number, 1, what, original, None, "done", 100.0 + number)


def test_undo_goes_back_to_before_the_first_change() -> None:
    """The change was made, the doctor died, and the finished repair met its own change."""
    what = "queue 12.0: RequestMemory = 200"
    made = originals(plan(CHANGE), [entry(1, what, b"100"), entry(2, what, b"200"), entry(3, "queue 12.0: release", None)])
    assert made.queue == (QueueEdit("12.0", (("RequestMemory", "200"),), "release", (("RequestMemory", "100"),)),)
    assert originals(plan(CHANGE), []).queue == (CHANGE,)


class Held:
    """A queue with one job."""

    def __init__(self, **ad: Any) -> None:
        self.ad = ad

    def get(self, job_id: str, attribute: str) -> str | None:
        value = self.ad.get(attribute)
        return None if value is None else str(value)


@pytest.mark.parametrize(
    ("ad", "done"),
    [
        ({"RequestMemory": 200, "JobStatus": 1}, True),
        ({"RequestMemory": 200, "JobStatus": 5, "EnteredCurrentStatus": 90}, False),
        ({"RequestMemory": 200, "JobStatus": 5, "EnteredCurrentStatus": 130}, True),  # released, and held again for whatever reason
        ({"RequestMemory": 100, "JobStatus": 5, "EnteredCurrentStatus": 90}, False),
        ({}, True),  # it has left the queue
    ],
)
def test_what_is_in_force_in_the_queue(ad: dict[str, Any], done: bool) -> None:
    acted = {"queue 12.0: release": 100.0}
    assert verify.done_in_queue(plan(CHANGE), Held(**ad), acted) is done  # type: ignore[arg-type]


def test_without_an_intent_a_held_job_was_not_released() -> None:
    held = Held(RequestMemory=200, JobStatus=5, EnteredCurrentStatus=130)
    assert verify.done_in_queue(plan(CHANGE), held, {}) is False  # type: ignore[arg-type]


class Killed(BaseException):
    """Stands for the end of the process."""


def test_one_rescue_for_a_repair_that_was_cut_off_and_another_one(
    tmp_path: Path, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was cut off is settled before anything else is done, so that one rescue is enough for both."""
    world = World(tmp_path).build({"a1": (MEMORY_ERROR, "200"), "b1": (MEMORY_ERROR.replace("step.py", "other.py"), "200")})

    def die(self: PlanJournal, *values: object) -> int:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(PlanJournal, "intend", die)
        with pytest.raises(Killed):
            heal(world.seams(matcher=matcher), world.run)
    seams = world.seams(matcher=matcher)
    healed = heal(seams, world.run)
    assert (healed.outcome, healed.rescues, len(world.commands)) == ("recovered", 1, 1)
    store: Store = seams.store
    assert sorted(one.state for row in store.incidents(run_key(str(world.run))) for one in store.plans(row.id)) == [
        "applied", "applied", "interrupted",
    ]  # fmt: skip


def test_a_rescue_that_started_is_not_made_again(tmp_path: Path, matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor dies after DAGMan's start was seen; the workflow succeeds before the next doctor looks."""
    world = World(tmp_path).build({"a1": (MEMORY_ERROR, "200")})
    real = Store.end_rescue

    def die(self: Store, *values: Any) -> None:
        real(self, *values)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "end_rescue", die)
        with pytest.raises(Killed):
            heal(world.seams(matcher=matcher), world.run)
    assert len(world.commands) == 1 and "DAGMAN_FINISHED 0" in (world.run / "jobstate.log").read_text()
    healed = heal(world.seams(matcher=matcher), world.run)
    assert (healed.outcome, len(world.commands)) == ("recovered", 1)
