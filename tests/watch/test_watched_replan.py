"""A run that is planned again while the daemon watches: the new run shows up by itself, too, and is still handled once.

With the real planner of this host, where one is on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor.statedir import run_key
from doctor.store import Store
from tests.e2e.test_replan import PLANNER, SIZE, STEPS, _write
from tests.pool.fleet import unmount
from tests.pool.live import give
from tests.pool.pool import Pool
from tests.watch.flows import until
from tests.watch.live_daemon import LiveDaemon
from tests.watch.test_kill_pool import CONFIG, POLICY

pytestmark = pytest.mark.skipif(PLANNER is None, reason="pegasus-plan is not installed on this host")


@pytest.fixture
def place(pool_folder: Path) -> Iterator[Path]:
    """A workflow's folder whose scratch is a small file system; taken away afterwards."""
    place = pool_folder / "watched-replan"
    scratch = place / "scratch"
    scratch.mkdir(parents=True)
    size = (STEPS - 1) * SIZE
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=777", "tmpfs", str(scratch)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    unmount(scratch)


def test_a_run_that_is_planned_again_is_handled_once(place: Path, pool: Pool) -> None:
    _write(place, place / "scratch")
    give(place)
    base = place / "doctor"
    base.mkdir()
    config = CONFIG.replace("[discovery]", f'[discovery]\nfolders = ["{place}/runs"]')
    daemon = LiveDaemon(pool, base, config, POLICY)
    tools = f"PATH={Path(PLANNER or '').parent}:{pool.installation.bin}:/usr/bin:/bin"
    words = ["--conf", "pegasus.properties", "--sites", "condorpool", "--output-sites", "local", "--dir", str(place / "runs")]
    store = None
    try:
        assert until(lambda: "watching" in daemon.log(), 60), daemon.log()
        pool.condor("env", tools, str(PLANNER), *words, "--cleanup", "none", "--submit", "workflow.yml", cwd=place, seconds=300)
        (run,) = (path.parent for path in (place / "runs").rglob("braindump.yml"))
        new = run.parent / f"replanned-{run.name}"
        old_key, new_key = run_key(str(run)), run_key(str(new))
        assert until(lambda: "DAGMAN_FINISHED 0" in _text(new / "jobstate.log"), 300), daemon.log()
        store = Store(daemon.state, time.time)
        assert until(lambda: {row.stage.value for row in _failures(store, old_key)} == {"recovered"}, 90), daemon.log()
        assert until(lambda: any(row["run"] == new_key for row in store.watched()), 30), "the daemon has met the new run by itself"
        assert until(lambda: not store.unfinished(), 60), store.unfinished()
        time.sleep(5)
        plans = [one for key in (old_key, new_key) for row in store.incidents(key) for one in store.plans(row.id)]
        assert [one.plan.action for one in plans if one.applied is not None] == ["enable-cleanup"]
        assert _failures(store, new_key) == [] and store.session(new_key) == 0
        assert store.rescues(new_key) == [] and len(store.rescues(old_key, state="started")) == 1
        for log, word in (("jobstate.log", "DAGMAN_STARTED"), (f"{_dag(new)}.dagman.out", "STARTING UP")):
            assert _text(new / log).count(word) == 1, "the new run was started once"
        assert _text(run / "jobstate.log").count("DAGMAN_STARTED") == 1, "the old run was not started again"
        assert sorted(path.name for path in run.parent.iterdir()) == [new.name, run.name]
        assert (place / f"output/v{STEPS - 1}.bin").stat().st_size == SIZE << 20
    finally:
        if store is not None:
            store.close()
        took = daemon.stop()
    assert took < 5
    shutil.rmtree(place / "runs", ignore_errors=True)


def _failures(store: Store, key: str) -> list:  # type: ignore[type-arg]
    return [row for row in store.incidents(key) if not row.incident.diagnosis.decided_by.startswith("live:")]


def _dag(run: Path) -> str:
    return next(path.name for path in run.glob("*.dag"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
