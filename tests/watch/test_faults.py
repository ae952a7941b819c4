"""What may go wrong around the daemon, and that it stays exact."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.errors import DoctorError
from doctor.loop.policy import load_policy
from doctor.model import Incident
from doctor.settings import SettingsError
from doctor.statedir import run_key
from doctor.store import Store
from doctor.watch import detect
from doctor.watch.backoff import Backoff
from doctor.watch.config import load_config
from doctor.watch.daemon import Daemon
from doctor.watch.follow import Follower
from doctor.watch.observe import file_system
from doctor.watch.opening import MARK, open_store
from doctor.watch.ready import Ready
from doctor.watch.snapshots import HELD, QueueJob
from doctor.watch.trend import Series, theil_sen
from tests.watch.flows import CONFIG, Flow, start_daemon, until


class NoQueue:
    """A schedd that is down."""

    def __init__(self) -> None:
        self.asked = 0

    def jobs(self) -> list[object]:
        self.asked += 1
        raise RuntimeError("Failed to connect to schedd")

    slots = jobs


@pytest.fixture
def running(tmp_path: Path, matcher: Matcher) -> Iterator[tuple[Daemon, Flow, Path]]:
    """A daemon inside this process, on one run."""
    flow = Flow(tmp_path / "run0", 40)
    (tmp_path / "config.toml").write_text(CONFIG.format(healers=0))
    daemon = make(tmp_path, matcher, [flow.folder])
    daemon.start()
    keeper = threading.Thread(target=daemon._keep_time, daemon=True)
    keeper.start()
    yield daemon, flow, tmp_path
    daemon.stop()
    keeper.join(5)
    daemon.ready.stop()
    daemon.observers.stop()
    daemon.writer.stop()


def make(folder: Path, matcher: Matcher, runs: list[Path]) -> Daemon:
    store = Store(folder / "state", time.time)
    return Daemon(
        store, load_config(folder / "config.toml"), load_policy(), matcher, named=map(str, runs), condor=NoQueue(), alone=True, heal=False
    )  # fmt: skip


def seen(daemon: Daemon, flow: Flow) -> set[str]:
    return set(daemon.store.seen(run_key(str(flow.folder))))


def test_the_log_is_rotated_and_truncated_under_it(running: tuple[Daemon, Flow, Path]) -> None:
    daemon, flow, _ = running
    flow.job(0, True)
    assert until(lambda: seen(daemon, flow) == {"step_0"}, 10)
    flow.job(1, True)
    flow.log.rename(flow.log.with_name("jobstate.log.000"))
    flow.job(2, True)
    assert until(lambda: seen(daemon, flow) == {"step_0", "step_1", "step_2"}, 10)
    flow.log.write_text("")
    flow.job(3, True)
    assert until(lambda: "step_3" in seen(daemon, flow), 10)
    flow.log.unlink()
    flow.job(4, True)
    assert until(lambda: "step_4" in seen(daemon, flow), 10)


def test_a_retry_that_succeeds_is_history(running: tuple[Daemon, Flow, Path]) -> None:
    daemon, flow, _ = running
    flow.job(0, True)
    assert until(lambda: seen(daemon, flow) == {"step_0"}, 10)
    flow.job(0, False)
    key = run_key(str(flow.folder))
    assert until(lambda: [row.stage.value for row in daemon.store.incidents(key)] == ["recovered"], 10)


def test_a_run_that_vanishes_harms_no_other(running: tuple[Daemon, Flow, Path], tmp_path: Path) -> None:
    daemon, flow, folder = running
    other = Flow(folder / "other", 5)
    daemon.named.append(str(other.folder))
    daemon.scout.discover()
    other.job(0, True)
    assert until(lambda: bool(daemon.store.seen(run_key(str(other.folder)))), 10)
    shutil.rmtree(other.folder)
    flow.job(1, True)
    assert until(lambda: "step_1" in seen(daemon, flow), 10)


def test_the_database_is_locked_for_a_while(running: tuple[Daemon, Flow, Path]) -> None:
    daemon, flow, folder = running
    assert until(lambda: daemon.writer.batches > 0, 10)
    blocker = sqlite3.connect(folder / "state" / "doctor.db", timeout=5)
    blocker.execute("BEGIN IMMEDIATE")
    flow.job(0, True)
    time.sleep(2)
    assert not daemon.store.seen(run_key(str(flow.folder)))
    blocker.rollback()
    blocker.close()
    assert until(lambda: seen(daemon, flow) == {"step_0"}, 25)


def test_below_the_floor_of_free_space_nothing_is_written_and_nothing_lost(
    running: tuple[Daemon, Flow, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, flow, _ = running
    monkeypatch.setattr("doctor.watch.system.free_bytes", lambda folder: 0.0)
    time.sleep(0.2)
    batches = daemon.writer.batches
    flow.job(0, True)
    assert until(lambda: daemon.writer.paused, 10)
    time.sleep(1)
    assert daemon.writer.batches == batches and not daemon.store.seen(run_key(str(flow.folder)))
    monkeypatch.setattr("doctor.watch.system.free_bytes", lambda folder: 1e12)
    assert until(lambda: seen(daemon, flow) == {"step_0"}, 10)


def test_a_schedd_that_is_down_is_asked_ever_less_and_stops_nothing(running: tuple[Daemon, Flow, Path]) -> None:
    daemon, flow, _ = running
    assert until(lambda: "queue" in daemon.sources and not daemon.sources["queue"].ok, 10)
    flow.job(0, True)
    assert until(lambda: seen(daemon, flow) == {"step_0"}, 10)
    assert daemon.condor.asked <= 2
    pauses = Backoff(15, 300, chance=lambda: 1.0)
    assert [pauses.failed() for _ in range(6)] == [30, 60, 120, 240, 300, 300]
    assert pauses.succeeded() == 15
    low = Backoff(15, 300, chance=lambda: 0.0)
    assert low.failed() >= 15


def test_a_damaged_database_is_put_aside_and_nothing_is_repaired(tmp_path: Path) -> None:
    store, harmed = open_store(tmp_path / "state")
    assert not harmed
    store.close()
    database = tmp_path / "state" / "doctor.db"
    database.write_bytes(b"this is no database at all " * 400)
    for suffix in ("-wal", "-shm"):
        database.with_name(f"doctor.db{suffix}").unlink(missing_ok=True)
    store, harmed = open_store(tmp_path / "state")
    assert harmed and store.sound() == "ok" and (tmp_path / "state" / MARK).exists()
    assert list((tmp_path / "state").glob("doctor.db-damaged-*"))
    store.close()
    assert open_store(tmp_path / "state")[1], "until a person says so"


def test_clock_jumps(running: tuple[Daemon, Flow, Path]) -> None:
    """Pauses are measured on the monotonic clock; a series of samples begins anew when the clock goes back."""
    daemon, flow, _ = running
    daemon.clock = lambda: time.time() - 86_400
    daemon.lookout.look()
    daemon.clock = lambda: time.time() + 86_400
    daemon.lookout.look()
    flow.job(0, True)
    assert until(lambda: seen(daemon, flow) == {"step_0"}, 10)
    series = Series()
    for when in (100, 110, 120, 50, 60):
        series.add(when, 1.0)
    assert list(series.points) == [(50, 1.0), (60, 1.0)]


def test_a_trend_with_outliers() -> None:
    points = [(float(n), 1000.0 - 10 * n + (500 if n % 7 == 3 else 0)) for n in range(30)]
    trend = theil_sen(points)
    assert trend is not None and -11 < trend.slope < -9
    assert theil_sen(points[:3]) is None


def test_thousands_of_runs_at_once(tmp_path: Path, matcher: Matcher) -> None:
    """2,000 runs appear together: all are watched, those that failed are diagnosed, and memory stays bounded."""
    count = int(os.environ.get("DOCTOR_MANY_RUNS", "500"))
    flows = [Flow(tmp_path / "runs" / f"run{number:04d}", 1) for number in range(count)]
    for flow in flows[::50]:
        flow.job(0, True)
    extra = f'discovery.folders = ["{tmp_path}/runs"]\n'
    (tmp_path / "config.toml").write_text(
        extra + CONFIG.format(healers=0).replace("[discovery]\n", "[discovery]\n").replace("[discovery]", "[discovery]")
    )
    (tmp_path / "config.toml").write_text(
        CONFIG.format(healers=0).replace("[discovery]\n", f'[discovery]\nfolders = ["{tmp_path}/runs"]\n')
    )
    daemon = make(tmp_path, matcher, [])
    daemon.alone = False
    daemon.master_db = tmp_path / "none.db"
    daemon.start()
    try:
        assert len(daemon.runs) == count
        assert until(lambda: all(seen(daemon, flow) == {"step_0"} for flow in flows[::50]), 60)
        assert until(lambda: all(watched.follower is not None for watched in daemon.runs.values()), 60)
    finally:
        daemon.stop()
        daemon.ready.stop()
        daemon.observers.stop()
        daemon.writer.stop()


def test_one_runs_fault_is_its_own(running: tuple[Daemon, Flow, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    daemon, flow, folder = running
    other = Flow(folder / "cursed", 5)
    real = Follower.turn

    def turn(self: Follower, *rest: object) -> object:
        if self.directory.name == "cursed":
            raise ZeroDivisionError("a bug")
        return real(self)

    monkeypatch.setattr(Follower, "turn", turn)
    daemon.named.append(str(other.folder))
    daemon.scout.discover()
    flow.job(0, True)
    assert until(lambda: seen(daemon, flow) == {"step_0"}, 10)
    assert until(lambda: "a bug" in daemon.runs[run_key(str(other.folder))].problem, 10)


def test_one_detections_fault_is_its_own(running: tuple[Daemon, Flow, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The others still look, what they saw before is not taken for over, and the fault has a name."""
    daemon, flow, _ = running
    watched = next(iter(daemon.runs.values()))
    assert until(lambda: watched.follower is not None and watched.follower.rounds > 0, 10)
    place = str(flow.folder.resolve())
    daemon.jobs = (QueueJob("7.0", HELD, run=place, workflow=place, is_dagman=True, hold_reason="by a person"),)
    daemon.jobs_at = daemon.clock()
    daemon.lookout.look()
    assert len(watched.live) == 1

    def broken(*_: object) -> list[object]:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(detect, "dagman_held", broken)
        for _ in range(5):
            with pytest.raises(DoctorError, match="detection dagman_held: ZeroDivisionError: a bug"):
                daemon.lookout.look()
    assert len(watched.live) == 1
    daemon.lookout.look()
    assert len(watched.live) == 1


def test_network_file_systems_are_polled() -> None:
    mounts = "/dev/sda1 / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\nmds:/l /mnt/my\\040data lustre rw 0 0\n"
    assert file_system("/home/alice/run", mounts) == "nfs4"
    assert file_system("/mnt/my data/x", mounts) == "lustre"
    assert file_system("/homely", mounts) == "ext4"


def test_ready_holds_each_run_once() -> None:
    ready = Ready()
    for _ in range(1000):
        ready.wake("a")
        ready.wake("b")
    assert len(ready) == 2
    taken = ready.take(0.1)
    assert taken is not None and taken[0] == "a"
    ready.wake("a")
    second = ready.take(0.1)
    assert second is not None and second[0] == "b"
    assert ready.take(0.05) is None, "a is busy: never two turns of one run"
    ready.done("a", again=False)
    third = ready.take(0.1)
    assert third is not None and third[0] == "a"


def test_every_mistake_in_the_configuration_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[polling]\nqueue_s = -1\nbogus = 3\n[notify]\nevents = ["never"]\n')
    with pytest.raises(SettingsError) as caught:
        load_config(file)
    assert f"{file}:2: polling.queue_s" in str(caught.value) and f"{file}:3: polling.bogus: unknown key" in str(caught.value)
    file.write_text('[notify]\nevents = ["never"]\nbody = "{nothing}"\n')
    with pytest.raises(SettingsError) as caught:
        load_config(file)
    assert ":2: notify.events" in str(caught.value) and ":3: notify.body" in str(caught.value)


def test_two_daemons_on_one_state_directory(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "run", 2)
    first = start_daemon(tmp_path / "state", tmp_path, [flow.folder])
    try:
        assert until(lambda: "watching" in (tmp_path / "daemon.log").read_text(), 20)
        second = start_daemon(tmp_path / "state", tmp_path, [flow.folder])
        assert second.wait(20) == 2
        assert "works on this state directory already" in (tmp_path / "daemon.log").read_text()
        first.send_signal(signal.SIGHUP)
        assert until(lambda: "read again" in (tmp_path / "daemon.log").read_text(), 10)
    finally:
        first.send_signal(signal.SIGTERM)
        assert first.wait(5) == 0


__all__ = ["Incident"]
