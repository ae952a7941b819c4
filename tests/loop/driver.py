"""Heals a built world in a process of its own and kills itself at a given point: ``driver.py FOLDER POINT MODE``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from doctor import store
from doctor.loop.heal import heal
from doctor.loop.seams import Event
from tests.loop.world import World


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    folder, point, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

    def tell(event: Event) -> None:
        if event.what == point:
            die()

    if point.startswith("journal-"):
        whole = store.PlanJournal
        name = "intend" if point == "journal-intended" else "done"
        original = getattr(whole, name)

        def wrapped(self: store.PlanJournal, *args: object) -> object:
            answer = original(self, *args)
            die()
            return answer

        setattr(whole, name, wrapped)
    world = World(folder, start_within=2)
    heal(world.seams(mode, tell=tell), world.run, timeout=30)


if __name__ == "__main__":
    main()
