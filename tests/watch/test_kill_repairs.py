"""kill -9 while repairs are made: every workflow recovers, and every repair is made exactly once.

The first test uses small real programs in the place of Pegasus' and HTCondor's, so that many kills land
within repairs: most of them at a point that the loop has just passed or is about to pass (something
written down, renamed, run, changed in the queue), the others at any time. ``DOCTOR_KILLS`` sets their
number; the figures in docs/daemon.md come from more. The second test is the real thing on a real pool.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor.statedir import run_key
from doctor.store import Store
from tests.watch.flows import until
from tests.watch.small.books import check, found_in, states
from tests.watch.small.mill import KINDS, Mill
from tests.watch.small.nurse import Nursery

KILLS = int(os.environ.get("DOCTOR_KILLS", "12"))
AT_ONCE = 5
HARD = ("journal intend", "journal done", "rename", "queue edit", "queue release", "pegasus-run", "begin_rescue", "move to", "end_rescue")


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.close()


def test_killed_within_repairs(nursery: Nursery, tmp_path: Path) -> None:
    chance = random.Random(KILLS)
    kinds = list(KINDS)
    mills: list[Mill] = []
    landed: Counter[str] = Counter()
    outside = 0

    def more() -> None:
        while sum(not mill.finished for mill in mills) < AT_ONCE:
            name = kinds[len(mills) % len(kinds)]
            mills.append(Mill(tmp_path, f"run{len(mills):04d}", KINDS[name]))
            mills[-1].start()

    for _ in range(KILLS):
        more()
        how = chance.random()
        if how < 0.35:  # at any moment
            nursery.start()
        elif how < 0.65:  # at any point of the loop
            nursery.start(1 + int(chance.expovariate(1 / 40)))
        else:  # within a repair
            nursery.start(chance.choice((1, 1, 2)), chance.choice(HARD))
        until(lambda: not nursery.alive, chance.uniform(0.3, 2.5) if how < 0.35 else 5.0)
        outside += nursery.alive
        nursery.kill()
        landed += found_in(tmp_path / "state")
    nursery.start()
    keys = {run_key(str(mill.run)): mill for mill in mills}
    store = Store(tmp_path / "state", time.time)
    try:
        assert until(lambda: all(mill.finished for mill in mills), 120), [mill.run.name for mill in mills if not mill.finished]

        def open_ones() -> list[str]:
            return [f"{keys[row.run].run.name} {row.stage.value}" for row in store.incidents() if row.stage.value != "recovered"]

        assert until(lambda: not open_ones() and not any(store.session(key) for key in keys), 90), open_ones()
        points = Counter((tmp_path / "kills.log").read_text().splitlines())
        print(f"{KILLS} kills, {outside} of them from outside, {len(mills)} workflows; found in: {dict(landed)}; at: {dict(points)}")
        assert {mill.run.name: mill.wrong() for mill in mills if mill.wrong()} == {}
        for key, mill in keys.items():
            check(store, key, mill)
        assert points.total() >= KILLS // 4
    finally:
        store.close()
        nursery.kill(signal.SIGTERM)


def test_a_command_that_outlives_its_doctor_is_waited_for(nursery: Nursery, tmp_path: Path) -> None:
    """Killed while a slow pegasus-run is at work: the next daemon does not start a second one beside it."""
    mill = Mill(tmp_path, "run0000", KINDS["three jobs, one cause"], slow_s=0.0)
    mill.start()
    assert until(lambda: "DAGMAN_FINISHED 1" in mill.text("jobstate.log") and mill.nobody_runs, 20)
    mill.slow_down(7.0)  # longer than the policy's start_within_s
    nursery.start()
    assert until(lambda: mill.commands.count("run") == 2, 30)
    nursery.kill()
    nursery.start()
    assert until(lambda: mill.finished, 60)
    assert until(lambda: states(tmp_path / "state", mill) == {"recovered"}, 30), states(tmp_path / "state", mill)
    assert mill.wrong() == []
