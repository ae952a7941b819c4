"""Shared fixtures: a deterministic hypothesis profile, a private cache, run directories built in a temporary place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from doctor.diagnose.library import load
from doctor.diagnose.matcher import Matcher
from doctor.run.files import Files, Ledger
from tests.pool.fixtures import fleet, pool, pool_folder  # noqa: F401 - fixtures for everyone

settings.register_profile(
    "doctor",
    derandomize=True,
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
settings.load_profile("doctor")


#: Tests on a pool mostly wait; `make test` runs them beside all others (`-m pool`, `-m "not pool"`).
POOLS = (
    "tests/e2e/",
    "tests/pool/",
    "tests/actions/test_queue.py",
    "tests/watch/test_detections_live.py",
    "tests/watch/test_kill_pool.py",
    "tests/watch/test_live.py",
    "tests/watch/test_schedd_down.py",
    "tests/watch/test_watched_replan.py",
)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(POOLS):
            item.add_marker("pool")


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The compiled rule library goes to a temporary folder, never to the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def matcher(_private_cache: Path) -> Matcher:
    """The real rule library, compiled once."""
    return Matcher(load())


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def files(tmp_path: Path, ledger: Ledger) -> Files:
    """A reader of the test's own temporary folder."""
    return Files(tmp_path.resolve(), ledger)
