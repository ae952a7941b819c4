"""A real pool whose schedd, and then whose collector, is stopped and started again while the daemon watches."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from doctor.statedir import run_key
from doctor.store import Store
from tests.pool.live import Doctor, give
from tests.pool.packages import PoolUnavailable
from tests.pool.pool import Pool
from tests.watch.flows import Flow, until

LONGEST_S = 5
CONFIG = """
[discovery]
folders = ["{base}/runs"]
workflow_db = false
every_s = 1
[polling]
queue_s = 1
queue_back_off_s = {longest}
pool_s = 5
sweep_s = 0.5
settle_s = 0.5
[limits]
nice = 0
idle_io = false
free_space_mb = 1
"""
#: The real daemon, which notes when it asks the schedd and the collector, and whether they answered.
DRIVER = """
import sys, time
from doctor.cli import main
from doctor.watch.queue import Condor

place = sys.argv.pop(1)

def noted(name):
    real = getattr(Condor, name)
    def wrapped(self):
        answered = False
        try:
            answer = real(self)
            answered = True
            return answer
        finally:
            with open(place, "a") as log:
                log.write(f"{time.monotonic()} {name} {answered}\\n")
    setattr(Condor, name, wrapped)

noted("jobs")
noted("slots")
main()
"""
#: A job that waits for ever, and so makes the daemon ask for the pool's slots.
IDLE = """
executable = /bin/true
requirements = false
+pegasus_wf_uuid = "nobody"
queue
"""


@pytest.fixture
def own(pool_folder: Path) -> Iterator[Pool]:
    """A pool for this test alone."""
    try:
        running = Pool(pool_folder / "down").start()
    except PoolUnavailable as reason:
        pytest.skip(f"no pool: {reason}")
    yield running
    running.stop()


def admin(pool: Pool, *command: str) -> None:
    """What only the pool's owner may do."""
    subprocess.run(command, env=pool.environment(), check=True, capture_output=True, timeout=60)


class Daemon:
    """The daemon of the user who submits jobs."""

    def __init__(self, pool: Pool, base: Path) -> None:
        self.doctor, self.state, self._asked = Doctor(pool, base), base / "state", base / "asked"
        (base / "config.toml").write_text(CONFIG.format(base=base, longest=LONGEST_S))
        self.state.mkdir(mode=0o700)
        give(base)
        words = ["-c", DRIVER, str(self._asked), "watch", "--state", str(self.state), "--config", str(base / "config.toml")]
        self.log = (base / "daemon.log").open("ab")
        self.process = subprocess.Popen(self.doctor.command(words), stdout=self.log, stderr=self.log, cwd=base)

    def status(self, name: str) -> dict[str, Any]:
        """What `status` says of a source."""
        _, document = self.doctor.json("status", "--json", "--state", str(self.state))
        return next((one for one in document["sources"] if one["name"] == name), {"ok": True, "text": "not told yet"})

    def asked(self, what: str) -> list[tuple[float, bool]]:
        """When the schedd (``jobs``) or the collector (``slots``) was asked, and whether it answered."""
        rows = [row.split() for row in self._asked.read_text().splitlines()] if self._asked.exists() else []
        return [(float(row[0]), row[2] == "True") for row in rows if len(row) == 3 and row[1] == what]

    def ok(self, what: str) -> bool | None:
        """Whether it answered when it was asked last."""
        return next((answered for _, answered in reversed(self.asked(what))), None)


def test_the_schedd_and_the_collector_are_down_for_a_while(own: Pool, pool_folder: Path) -> None:
    base = pool_folder / "schedd-down"
    flow = Flow(base / "runs" / "run0001", 10)
    (base / "idle.sub").write_text(IDLE)
    daemon = Daemon(own, base)
    own.condor("condor_submit", str(base / "idle.sub"))
    store: Store | None = None

    def diagnosed() -> set[str]:
        assert store is not None
        return set(store.seen(run_key(str(flow.folder))))

    try:
        assert until(lambda: daemon.ok("jobs") and daemon.ok("slots"), 60), (base / "daemon.log").read_text()[-2000:]
        store = Store(daemon.state, time.time)
        flow.job(0, True)
        assert until(lambda: diagnosed() == flow.failed, 20)
        # the schedd
        admin(own, "condor_off", "-daemon", "schedd", "-fast")
        assert until(lambda: daemon.ok("jobs") is False, 60)
        down = time.monotonic()
        flow.job(1, True)
        assert until(lambda: diagnosed() == flow.failed, 10), "the logs are followed meanwhile"
        assert until(lambda: not daemon.status("queue")["ok"], 20)
        said = daemon.status("queue")
        assert said["text"] and said["age_s"] is not None
        assert until(lambda: sum(when > down for when, _ in daemon.asked("jobs")) >= 3, 60)
        assert daemon.ok("slots"), "the collector still answers"
        times = [when for when, _ in daemon.asked("jobs") if when > down - 3]
        pauses = [round(after - before, 1) for before, after in pairwise(times)]
        assert pauses[-1] >= LONGEST_S / 2 and max(pauses) < LONGEST_S + 5, pauses
        admin(own, "condor_on", "-daemon", "schedd")
        assert until(lambda: daemon.ok("jobs"), 60)
        back = len(daemon.asked("jobs"))
        assert until(lambda: len(daemon.asked("jobs")) >= back + 3, 10), "asked every second again"
        # the collector
        admin(own, "condor_off", "-daemon", "collector", "-fast")
        assert until(lambda: daemon.ok("slots") is False, 60)
        flow.job(2, True)
        assert until(lambda: diagnosed() == flow.failed, 10)
        assert until(lambda: not daemon.status("pool")["ok"], 20)
        assert daemon.ok("jobs") and daemon.status("pool")["text"]
        admin(own, "condor_on", "-daemon", "collector")
        assert until(lambda: daemon.ok("slots"), 60)
        print(f"pauses between two queries while the schedd was down: {pauses} s")
    finally:
        if store is not None:
            store.close()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
