"""More than one doctor at a time: one of them works, the others say why they do not, and nothing is done twice."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from doctor.statedir import BusyRun, run_key, run_lock
from doctor.store import Store
from tests.watch.flows import Flow, start_daemon, until
from tests.watch.small.books import check, states
from tests.watch.small.mill import KINDS, Mill
from tests.watch.small.nurse import Nursery

DAEMONS = 4


def test_daemons_started_at_the_same_moment(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "run", 5)
    started = [start_daemon(tmp_path / "state", tmp_path, [flow.folder]) for _ in range(DAEMONS)]
    try:
        assert until(lambda: sum(one.poll() is None for one in started) == 1, 30)
        assert sorted(one.returncode for one in started if one.returncode is not None) == [2] * (DAEMONS - 1)
        log = (tmp_path / "daemon.log").read_text()
        alive = next(one for one in started if one.poll() is None)
        assert log.count("works on this state directory already") == DAEMONS - 1 and "Traceback" not in log
        assert f"(pid {alive.pid})" in log, "who has it is said"
        flow.job(0, True)
        store = Store(tmp_path / "state", time.time)
        assert until(lambda: set(store.seen(run_key(str(flow.folder)))) == {"step_0"})
        store.close()
    finally:
        for one in started:
            if one.poll() is None:
                one.send_signal(signal.SIGTERM)
        assert [one.wait(10) for one in started].count(0) == 1


def test_heal_by_hand_beside_the_daemon(tmp_path: Path) -> None:
    """A person heals the very runs that the daemon repairs, again and again, for short and for long."""
    nursery = Nursery(tmp_path)
    store = None
    try:
        mills = [Mill(tmp_path, f"run{number:04d}", kind) for number, kind in enumerate(KINDS.values())]
        nursery.start()
        codes: Counter[int] = Counter()
        for mill in mills:
            mill.start()
            time.sleep(0.3)
            codes[nursery.heal(mill.run, "--timeout", "0")] += 1
        for number in range(12):
            codes[nursery.heal(mills[number % len(mills)].run, "--timeout", str(number % 3))] += 1
        codes[nursery.heal(mills[-1].run)] += 1
        assert until(lambda: all(mill.finished for mill in mills), 90), [mill.run.name for mill in mills if not mill.finished]
        assert until(lambda: all(states(tmp_path / "state", mill) == {"recovered"} for mill in mills), 60)
        store = Store(tmp_path / "state", time.time)
        assert until(lambda: store is not None and not store.unfinished(), 30)
        assert {mill.run.name: mill.wrong() for mill in mills if mill.wrong()} == {}
        for mill in mills:
            check(store, run_key(str(mill.run)), mill)
        print(f"exit codes of {codes.total()} heals by hand: {dict(codes)}")
        assert set(codes) <= {0, 2, 3} and "Traceback" not in nursery.log
        assert codes[2] == nursery.log.count("takes care of this run; this one stays out"), "a heal that stays out says why"
    finally:
        if store is not None:
            store.close()
        nursery.close()


def test_a_run_is_one_doctors_also_with_another_state_directory(tmp_path: Path) -> None:
    run = tmp_path / "run0001"
    run.mkdir()
    before = run.stat()
    with run_lock(tmp_path / "one", str(run)):
        with pytest.raises(BusyRun, match="with another state directory"), run_lock(tmp_path / "two", str(run)):
            raise AssertionError("both have it")
        with pytest.raises(BusyRun, match="pid"), run_lock(tmp_path / "one", str(run)):
            raise AssertionError("both have it")
    with run_lock(tmp_path / "two", str(run)):
        pass
    assert (run.stat().st_mtime_ns, list(run.iterdir())) == (before.st_mtime_ns, []), "nothing is left in the run"
