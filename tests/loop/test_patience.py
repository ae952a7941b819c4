"""HTCondor's queue does not answer for a while: what only it can tell is waited for, where it is expected to be back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.errors import DoctorError
from doctor.loop import heal as loop
from doctor.loop.seams import Event, Seams
from tests.loop.world import MEMORY_ERROR, FakeQueue, World


class Down(FakeQueue):
    """A schedd that can be stopped."""

    down = True

    def present(self, constraint: str) -> list[dict[str, Any]]:
        if self.down:
            raise DoctorError("HTCondor's schedd does not answer")
        return super().present(constraint)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).build({"a1": (MEMORY_ERROR, "200")})


def seams(world: World, matcher: Matcher, queue: Down, **more: Any) -> Seams:
    return world.seams(matcher=matcher, queue=queue, patient=lambda: True, **more)


def test_a_repair_waits_for_the_queue(world: World, matcher: Matcher) -> None:
    queue = Down(world.folder)
    made = seams(world, matcher, queue)
    for _ in range(3):
        assert loop.heal(made, world.run, timeout=0, called=False).outcome == "waiting"
    assert world.commands == [] and "request_memory = 100 MB" in world.text("a1")
    queue.down = False
    assert loop.heal(made, world.run, timeout=0, called=False).outcome == "recovered"
    assert len(world.commands) == 1


def test_a_rescue_waits_for_the_queue(world: World, matcher: Matcher) -> None:
    """The schedd goes down after the repair and before the rescue."""
    queue = Down(world.folder)
    queue.down = False

    def tell(event: Event) -> None:
        if event.what == "applied":
            queue.down = True

    made = seams(world, matcher, queue, tell=tell)
    for _ in range(3):
        assert loop.heal(made, world.run, timeout=0, called=False).outcome == "waiting"
    assert world.commands == [] and "request_memory = 200 MB" in world.text("a1")
    queue.down = False
    made = replace(made, tell=lambda event: None)
    assert loop.heal(made, world.run, timeout=0, called=False).outcome == "recovered"
    assert len(world.commands) == 1 and "request_memory = 200 MB" in world.text("a1")


def test_where_there_is_no_queue_a_person_is_told_at_once(world: World, matcher: Matcher) -> None:
    made = replace(seams(world, matcher, Down(world.folder)), patient=lambda: False)
    healed = loop.heal(made, world.run, timeout=0, called=False)
    assert healed.outcome == "escalated" and "queue cannot be asked" in healed.treated[0].reason
