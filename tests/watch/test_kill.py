"""kill -9 at any moment: nothing is lost, nothing is told or done twice.

``DOCTOR_KILLS`` sets the number of kills (default 24; the figures in docs/daemon.md come from more).
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from doctor.statedir import run_key
from doctor.store import Store
from tests.watch.flows import Flow, start_daemon, until

KILLS = int(os.environ.get("DOCTOR_KILLS", "24"))
JOBS = max(60, 8 * KILLS)  # of each run


def test_killed_again_and_again(tmp_path: Path) -> None:
    chance = random.Random(KILLS)
    flows = [Flow(tmp_path / f"run{number}", JOBS) for number in range(3)]
    state = tmp_path / "state"
    turn = [0, 0, 0]
    for _ in range(KILLS):
        daemon = start_daemon(state, tmp_path, [flow.folder for flow in flows])
        end = time.monotonic() + chance.uniform(0.3, 2.2)
        while time.monotonic() < end:
            which = chance.randrange(3)
            if turn[which] < JOBS and chance.random() < 0.4:
                flows[which].job(turn[which], fails=chance.random() < 0.4)
                turn[which] += 1
            time.sleep(chance.uniform(0, 0.05))
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    for flow, done in zip(flows, turn, strict=True):
        for number in range(done, JOBS):
            flow.job(number, fails=chance.random() < 0.4)
    daemon = start_daemon(state, tmp_path, [flow.folder for flow in flows])
    store = None
    try:
        assert until(lambda: (state / "doctor.db").exists())
        store = Store(state, time.time)
        whole = {run_key(str(flow.folder)): flow for flow in flows}
        begun = time.monotonic()
        assert until(lambda: all(set(store.seen(key)) == flow.failed for key, flow in whole.items()), 60), {
            key: sorted(set(store.seen(key)) ^ flow.failed) for key, flow in whole.items()
        }
        print("caught up in", time.monotonic() - begun)
        for key, flow in whole.items():
            rows = store.incidents(key)
            assert {job for row in rows for job in row.incident.jobs} == flow.failed, "every failed job belongs to an incident"
            opened = Counter(entry["incident"] for entry in store.history(key) if entry["event"] == "opened")
            assert set(opened.values()) <= {1} and len(opened) == len(rows), "no incident was opened twice"
            again = [entry for entry in store.history(key) if "the same failure again" in entry["text"]]
            assert not again
        assert until(lambda: all(store.marks(key).get("|jobstate", "").startswith("[") for key in whole))
    finally:
        said = (tmp_path / "daemon.log").read_text
        assert until(lambda: said().rstrip().splitlines()[-1:] and "watching" in said()[-20_000:])
        time.sleep(1)  # a signal before the daemon is ready simply ends it
        daemon.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert daemon.wait(10) == 0
        assert time.monotonic() - begun < 5
        if store is not None:
            store.close()
