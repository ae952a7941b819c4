"""Disks that are really full: that of the doctor's memory, and that of a workflow that is to be repaired."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doctor.statedir import run_key
from doctor.store import Store
from tests.watch.flows import ROOT, Flow, start_daemon, until
from tests.watch.full import SmallDisk
from tests.watch.small.mill import KINDS, Mill
from tests.watch.small.nurse import Nursery


def status(state: Path) -> dict[str, Any]:
    """What `pegasus-doctor status --json` says."""
    words = [sys.executable, "-m", "doctor", "status", "--json", "--state", str(state)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def source(state: Path, name: str) -> dict[str, Any]:
    return next((one for one in status(state)["sources"] if one["name"] == name), {"ok": True, "text": "not there"})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "disk")
    yield made
    made.unmount()


@pytest.mark.parametrize("floor_mb", [1, 0], ids=["floor", "to the last byte"])
def test_the_state_lies_on_a_full_disk(tmp_path: Path, disk: SmallDisk, floor_mb: int) -> None:
    """Nothing is lost, not even by a kill meanwhile; the daemon lives and says why it waits, and goes on when there is space."""
    flow = Flow(tmp_path / "run", 60)
    state = disk.place / "state"

    def start() -> subprocess.Popen[bytes]:
        return start_daemon(state, tmp_path, [flow.folder], free_space_mb=floor_mb)

    daemon = start()
    store: Store | None = None
    try:
        assert until(lambda: (state / "doctor.db").exists())
        store = Store(state, time.time)
        key = run_key(str(flow.folder))
        flow.job(0, True)
        assert until(lambda: set(store.seen(key)) == flow.failed)
        disk.fill()
        for number in range(1, 40):
            flow.job(number, True)
        assert until(lambda: not source(state, "writer")["ok"], 30), status(state)["sources"]
        said = source(state, "writer")["text"]
        assert ("free space" in said) if floor_mb else ("full" in said or "disk" in said), said
        assert status(state)["running"] and daemon.poll() is None
        assert set(store.seen(key)) == {"step_0"}
        daemon.kill()
        daemon.wait()
        for number in range(40, 50):
            flow.job(number, True)
        daemon = start()
        time.sleep(3)
        assert daemon.poll() is None, (tmp_path / "daemon.log").read_text()[-2000:]
        disk.free()
        begun = time.monotonic()
        assert until(lambda: set(store.seen(key)) == flow.failed, 30), sorted(flow.failed - set(store.seen(key)))
        print(f"{said!r}; all 50 failures stored {time.monotonic() - begun:.1f} s after there was space")
        assert until(lambda: source(state, "writer")["ok"], 20), source(state, "writer")
        assert {job for row in store.incidents(key) for job in row.incident.jobs} == flow.failed
    finally:
        if store is not None:
            store.close()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0


class ReadOnly(SmallDisk):
    """A file system that became read-only, as after an error of its device."""

    def _mount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.place)], check=True)

    def fill(self) -> None:
        self._mount("ro")

    def free(self) -> None:
        self._mount("rw")


@pytest.mark.parametrize(("kind", "words"), [(SmallDisk, "No space left on device"), (ReadOnly, "Read-only file system")])
def test_the_workflow_cannot_be_written(tmp_path: Path, kind: type[SmallDisk], words: str) -> None:
    """A repair that cannot be written leaves every byte as it was, and a person is told why; later it can be made."""
    disk = kind(tmp_path / "runs")
    nursery = Nursery(tmp_path)
    store = None
    try:
        mill = Mill(tmp_path, "run0000", KINDS["three jobs, one cause"])
        mill.start()
        assert until(lambda: "DAGMAN_FINISHED 1" in mill.text("jobstate.log") and mill.nobody_runs, 20)
        before = {path: path.read_bytes() for path in mill.run.rglob("*.sub")}
        disk.fill()
        nursery.start()
        assert until(lambda: (tmp_path / "state" / "doctor.db").exists())
        store = Store(tmp_path / "state", time.time)
        key = run_key(str(mill.run))
        assert until(lambda: [row.stage.value for row in store.incidents(key)] == ["escalated"], 40), nursery.log[-3000:]
        (row,) = store.incidents(key)
        assert "could not be carried out" in row.reason and words in row.reason, row.reason
        assert {path: path.read_bytes() for path in mill.run.rglob("*.sub")} == before
        assert not list(mill.run.rglob("*.pegasus-doctor")) and mill.commands == ["run"]
        nursery.kill(signal.SIGTERM)
        disk.free()
        assert nursery.heal(mill.run) == 0, nursery.log[-3000:]
        assert mill.finished and mill.wrong() == []
    finally:
        if store is not None:
            store.close()
        nursery.close()
        disk.unmount()
