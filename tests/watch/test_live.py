"""On a real pool: workflows fail while the daemon watches, unattended, and what is healthy is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.pool.flow import Flow, Task
from tests.pool.live import Live, give, settle, user_folder
from tests.pool.pool import Pool
from tests.watch.flows import until
from tests.watch.live_daemon import LiveDaemon

GOOD = "#!/bin/sh\nsleep ${2:-1}\necho result > $1\n"
CONFIG = """
[discovery]
folders = []
every_s = 2
[polling]
queue_s = 3
pool_s = 5
disk_s = 5
settle_s = 3
[detections]
unmatchable_s = 8
stalled_s = 900
[limits]
free_space_mb = 16
"""
POLICY = 'mode = "act"\n[caps]\nmemory_mb = 1024\n[rescue]\nback_off_s = 1\n[verify]\npoll_s = 1\n'


@pytest.fixture(scope="module")
def base() -> Path:
    return user_folder("watch-")


@pytest.fixture(scope="module")
def service(pool: Pool, base: Path) -> Iterator[LiveDaemon]:
    service = LiveDaemon(pool, base, CONFIG, POLICY)
    yield service
    took = service.stop()
    assert took < 5, f"a clean stop took {took:.1f} s"


def crlf(place: Path) -> None:
    program = place / "bin" / "good.sh" if (place / "bin" / "good.sh").exists() else next((place / "bin").iterdir())
    program.write_bytes(program.read_bytes().replace(b"\n", b"\r\n"))


def flows() -> dict[str, Flow]:
    one = Task("1", "good", outputs=("a.txt",), arguments=("a.txt",))
    return {
        "healthy": Flow("whealthy", (one, Task("2", "good", inputs=("a.txt",), outputs=("b.txt",), arguments=("b.txt",))), {"good": GOOD}),
        "apperror": Flow(
            "wapperror", (Task("1", "bad", outputs=("a.txt",)),),
            {"bad": "#!/bin/sh\necho 'ValueError: bad number' >&2\nexit 3\n"},
        ),
        "huge": Flow("whuge", (Task("1", "good", outputs=("a.txt",), arguments=("a.txt",), memory_mb=999_999),), {"good": GOOD}),
        "missing": Flow(
            "wmissing", (Task("1", "good", inputs=("in.txt",), outputs=("a.txt",), arguments=("a.txt",)),), {"good": GOOD},
            inputs={"in.txt": "x\n"}, transfer_options="-m 3",
        ),
    }  # fmt: skip


def remove_input(place: Path) -> None:
    (place / "inputs" / "in.txt").unlink()


def test_unattended(pool: Pool, base: Path, service: LiveDaemon) -> None:
    described = flows()
    lives: dict[str, Live] = {}
    for name, flow in described.items():
        lives[name] = settle(flow, base, pool, after=lambda _run: None)
    remove_input(lives["missing"].root)
    for live in lives.values():
        live.submit()

    def seen(name: str) -> dict[str, str]:
        return service.incidents(lives[name])

    def log() -> str:
        return (base / "daemon.log").read_text()[-3000:]

    try:
        assert until(lambda: seen("apperror").get("user-code/application-error") == "escalated", 120), (seen("apperror"), log())
        assert until(lambda: "resources/unmatchable-request" in seen("huge"), 120), (seen("huge"), log())
        assert until(lambda: any(cause.startswith("staging/") for cause in seen("missing")), 120), (seen("missing"), log())
        assert lives["healthy"].wait_end(180) == 0
        assert seen("healthy") == {}
    finally:
        for live in lives.values():
            live.remove()


def test_recovered_unattended(pool: Pool, base: Path, service: LiveDaemon) -> None:
    """In mode act: a memory hold is cured in the queue, a script with CRLF line ends by a rescue DAG."""
    from tests.e2e.scenarios import RECOVERED

    chosen = {one.name: one for one in RECOVERED if one.name in ("memory-in-queue", "crlf")}
    lives = {name: settle(replace(one.flow, name=f"w{one.flow.name}"), base, pool) for name, one in chosen.items()}
    for live in lives.values():
        live.submit()

    def log() -> str:
        return (base / "daemon.log").read_text()[-5000:]

    try:
        for name, live in lives.items():
            ok = until(lambda live=live: live.ends()[-1:] == [0], 240)  # type: ignore[misc]
            assert ok, (name, service.incidents(live), log())
            assert until(lambda live=live: set(service.incidents(live).values()) == {"recovered"}, 60), (
                name,
                service.incidents(live),
                log(),
            )  # type: ignore[misc]
    finally:
        for live in lives.values():
            live.remove()


def test_two_runs_that_write_the_same_file(pool: Pool, base: Path, service: LiveDaemon) -> None:
    """Both are told while they still run; a third run beside them is not."""
    common = base / "common"
    common.mkdir()

    def share(run: Path) -> None:
        for path in run.rglob("stage_out*.in"):
            path.write_text(path.read_text().replace(f"/{run.relative_to(base).parts[0]}/output/", "/common/"))

    task = Task("1", "good", outputs=("a.txt",), arguments=("a.txt", "30"))
    lives = [settle(Flow(f"wsame{n}", (task,), {"good": GOOD}), base, pool, after=share if n < 2 else lambda _run: None) for n in range(3)]
    give(common)
    for live in lives:
        live.submit()
    try:
        for live in lives[:2]:
            assert until(lambda live=live: "collision/output-overwritten" in service.incidents(live), 90), service.incidents(live)  # type: ignore[misc]
        assert service.incidents(lives[2]) == {}
    finally:
        for live in lives:
            live.remove()


def facts(service: LiveDaemon) -> dict[str, Any]:
    _, document = service.doctor.json("status", "--json", "--state", str(service.state))
    return document


def test_status_tells_of_the_daemon(service: LiveDaemon) -> None:
    document = facts(service)
    assert document["running"] and {one["name"] for one in document["sources"]} >= {"queue", "discovery", "writer"}
    assert all(one["ok"] for one in document["sources"] if one["name"] in ("queue", "discovery", "writer")), document["sources"]
