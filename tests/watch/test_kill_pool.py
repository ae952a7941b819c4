"""kill -9 again and again while workflows fail and are repaired on a real pool; ``DOCTOR_KILLS`` sets the number of kills.

The small twin of this test (:mod:`tests.watch.test_kill_repairs`) reaches the moments within a repair; this one
has the real DAGMan, schedd, pegasus-run and monitord.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from doctor.loop.records import IncidentRow
from doctor.statedir import run_key
from doctor.store import Store
from tests.e2e.scenarios import RECOVERED, held
from tests.pool.live import Live, settle
from tests.pool.pool import Pool
from tests.watch.flows import until
from tests.watch.live_daemon import LiveDaemon
from tests.watch.small.books import found_in

KILLS = int(os.environ.get("DOCTOR_KILLS", "6"))
FEW = 8  # kills, for which two workflows are enough
REPAIRS = ("memory-in-queue", "crlf", "execute-bit", "helper-module", "moved-input")
CONFIG = """
[discovery]
workflow_db = false
every_s = 1
[polling]
queue_s = 1
settle_s = 1
[limits]
nice = 0
idle_io = false
free_space_mb = 16
"""
POLICY = 'mode = "act"\n[caps]\nmemory_mb = 1024\n[rescue]\nback_off_s = 1\n[verify]\npoll_s = 1\n'


@pytest.mark.skipif("DOCTOR_KILLS" not in os.environ, reason="takes minutes: set DOCTOR_KILLS to a number of kills, such as 20")
def test_killed_on_the_pool(pool: Pool, pool_folder: Path) -> None:
    chance = random.Random(KILLS)
    base = pool_folder / "kills"
    base.mkdir()
    daemon = LiveDaemon(pool, base, CONFIG, POLICY)
    lives: dict[str, Live] = {}
    kills, rounds, landed = 0, 0, Counter[str]()
    try:
        while not rounds or (KILLS > FEW and kills < KILLS):
            lives.update(_round(base, pool, rounds))
            rounds += 1
            assert until(lambda: any(daemon.incidents(live) for live in lives.values()), 90), daemon.log()
            while not _repaired(daemon, lives):
                until(lambda: daemon.process.poll() is not None, chance.uniform(0.5, 5.0))
                daemon.process.kill()
                daemon.process.wait()
                kills += 1
                landed += found_in(daemon.state)
                daemon.process = subprocess.Popen(daemon.process.args, stdout=daemon._log, stderr=daemon._log, cwd=base)
                if kills >= KILLS:
                    assert until(lambda: _repaired(daemon, lives), 240), (_states(daemon, lives), daemon.log())
        print(f"{kills} kills, {len(lives)} workflows; found in: {dict(landed)}")
        wrong = {name: found for name, live in lives.items() if (found := _wrong(daemon.state, live, "memory" in name))}
        assert wrong == {}
    finally:
        for live in lives.values():
            live.remove()
        if daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGTERM)
            daemon.process.wait(10)


def _round(base: Path, pool: Pool, number: int) -> dict[str, Live]:
    """One workflow of each kind, submitted, and broken where that is done by hand."""
    found = {}
    place = base / f"round{number}"
    place.mkdir()
    for one in RECOVERED:
        if one.name in REPAIRS[: 2 if KILLS <= FEW else None]:
            live = settle(replace(one.flow, name=f"k{number}{one.flow.name}"), place, pool, one.before, one.after)
            live.submit()
            found[f"{one.name} {number}"] = live
    held(found[f"memory-in-queue {number}"])
    return found


def _states(daemon: LiveDaemon, lives: dict[str, Live]) -> dict[str, dict[str, str]]:
    return {name: daemon.incidents(live) for name, live in lives.items()}


def _repaired(daemon: LiveDaemon, lives: dict[str, Live]) -> bool:
    """Whether all workflows have succeeded and the doctor has closed its books on them."""
    if not all(live.ends()[-1:] == [0] for live in lives.values()):
        return False
    store = Store(daemon.state, time.time)
    try:
        keys = [run_key(str(live.run)) for live in lives.values()]
        return all({row.stage.value for row in _failures(store, key)} == {"recovered"} and not store.session(key) for key in keys)
    finally:
        store.close()


def _failures(store: Store, key: str) -> list[IncidentRow]:
    """Without what was seen (and told of) before a job had failed: a stage-in job that looks for its input."""
    return [row for row in store.incidents(key) if not row.incident.diagnosis.decided_by.startswith("live:")]


def _wrong(state: Path, live: Live, in_queue: bool) -> list[str]:
    """What was done twice, or not at all, or was left behind: by HTCondor's logs, the files and the doctor's books.

    One repair leads to one rescue, or to one release where the doctor is in time for the held job.
    """
    found = []
    events = (live.run / f"{live.flow.name}-0.log").read_text("utf-8", "replace")
    store = Store(state, time.time)
    try:
        key = run_key(str(live.run))
        plans = [one for row in _failures(store, key) for one in store.plans(row.id)]
        applied = [one for one in plans if one.applied is not None]
        entries = [entry for one in plans for entry in store.entries(one.id)]
        starts, releases = live.jobstate().count("DAGMAN_STARTED"), events.count("\n013 (")
        for what, have, wanted in (
            ("rescues and releases", starts - 1 + releases, 1),
            ("ends of DAGMan", len(live.ends()), starts),
            ("releases by the doctor", sum("release" in entry.what for entry in entries if entry.state == "done"), releases),
            ("queue edits", sum("RequestMemory = " in entry.what for entry in entries if entry.state == "done"), in_queue),
            ("repairs", len(applied), 1),
            ("rescues", len(store.rescues(key, state="started")), starts - 1),
            ("left half done", sum(entry.state == "intended" for entry in entries), 0),
        ):
            if have != wanted:
                found.append(f"{what}: {have} instead of {wanted}")
        for edit in (edit for one in applied for edit in one.plan.edits):
            path = Path(edit.path)
            if edit.after is not None and path.read_bytes() != edit.after:
                found.append(f"{path.name} is not as the plan has it")
            if edit.mode is not None and path.stat().st_mode & 0o7777 != edit.mode:
                found.append(f"{path.name} has mode {path.stat().st_mode:o}")
    finally:
        store.close()
    return found + [f"left behind: {path.name}" for path in live.root.rglob("*.pegasus-doctor")]
