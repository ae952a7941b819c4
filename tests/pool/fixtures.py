"""The pool for a test session, and the workflows on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .fleet import Fleet
from .live import user_folder
from .packages import PoolUnavailable
from .pool import Pool


@pytest.fixture(scope="session")
def pool_folder() -> Iterator[Path]:
    """The session's own folder for daemons and workflows, which an ordinary user can reach."""
    try:
        folder = user_folder("session-")
    except OSError as problem:
        pytest.skip(f"no pool: {problem}")
    yield folder
    if not os.environ.get("POOL_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pool(pool_folder: Path) -> Iterator[Pool]:
    """A pool of the session's own; the tests are skipped where none can be had."""
    try:
        running = Pool(pool_folder / "pool").start()
    except PoolUnavailable as reason:
        pytest.skip(f"no pool: {reason}")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def fleet(pool: Pool, pool_folder: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """The workflows on the pool; those that the selected tests name as `scenario` begin at once."""
    from tests.e2e.scenarios import SCENARIOS
    from tests.pool.flows import FLOWS

    flows = pool_folder / "flows"
    flows.mkdir()
    try:
        running = Fleet(pool, flows, (*FLOWS, *SCENARIOS))
    except PoolUnavailable as reason:
        pytest.skip(f"no pool: {reason}")
    specs = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = [spec.params["scenario"] for spec in specs if spec is not None and "scenario" in spec.params]
    order = list(running.scenarios)
    possible = {name for name in wanted if not running.scenarios[name].missing}
    running.start(sorted(possible, key=lambda name: (not running.scenarios[name].slow, order.index(name))))
    yield running
    running.close()
