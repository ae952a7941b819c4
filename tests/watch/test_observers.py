"""How the daemon learns that a log has grown where the kernel does not tell it: polling, and the regular sweep.

Each test proves that the other ways could not have been it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from doctor.statedir import run_key
from doctor.store import Store
from tests.watch.flows import CONFIG, ROOT, Flow, until

IN_TIME_S = 15.0  # far more than it takes; a line that nobody notices is never diagnosed here
#: The real daemon, told that the runs lie on a network file system (there is no such server to be had in a test).
POLLED = """
import sys
from doctor.watch import observe
from doctor.cli import main

mounts = f"/dev/root / ext4 rw 0 0\\nserver:/export {sys.argv.pop(1)} nfs4 rw 0 0\\n"
observe.Observers.__init__.__defaults__ = (lambda: mounts, 0.5)
main()
"""


class Watcher:
    """A daemon on runs in ``folder``; ``sweep_s`` apart from notifications files are looked at."""

    def __init__(self, folder: Path, flows: list[Flow], sweep_s: float, program: tuple[str, ...], prefix: tuple[str, ...] = ()) -> None:
        self.state, self.flows = folder / "state", flows
        (folder / "config.toml").write_text(CONFIG.format(healers=0).replace("sweep_s = 0.5", f"sweep_s = {sweep_s}"))
        words = ["watch", "--only", "--state", str(self.state), "--config", str(folder / "config.toml")]
        self.log = folder / "daemon.log"
        with self.log.open("ab") as log:
            argv = [*prefix, sys.executable, *program, *words, *(str(flow.folder) for flow in flows)]
            self.process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "CONDOR_CONFIG": "/dev/null"})
        assert until(lambda: "watching" in self.log.read_text(), 30), self.log.read_text()
        self.store = Store(self.state, time.time)

    def seen(self, flow: Flow) -> set[str]:
        return set(self.store.seen(run_key(str(flow.folder))))

    def how(self) -> list[str]:
        """How each run is watched, as `status` tells."""
        return sorted(json.loads(row["body"])["how"] for row in self.store.watched())

    def observers(self) -> str:
        return next((row["text"] for row in self.store.sources() if row["name"] == "observers"), "")

    def notice(self, number: int) -> list[float]:
        """Seconds until a failure in each run, one after the other, is diagnosed."""
        found = []
        for flow in self.flows:
            begun = time.monotonic()
            flow.job(number, True)
            assert until(lambda flow=flow: f"step_{number}" in self.seen(flow), IN_TIME_S), (flow.folder.name, self.log.read_text()[-2000:])  # type: ignore[misc]
            found.append(round(time.monotonic() - begun, 2))
        return found

    def stop(self) -> None:
        self.store.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0


def flows_in(place: Path, count: int) -> list[Flow]:
    return [Flow(place / f"run{number}", 10) for number in range(count)]


def test_polling_on_a_network_file_system(tmp_path: Path) -> None:
    """No sweep comes within this test, and a network file system is not asked through inotify."""
    flows = flows_in(tmp_path / "export", 3)
    watcher = Watcher(tmp_path, flows, 3600, ("-c", POLLED, str(tmp_path / "export")))
    try:
        assert until(lambda: watcher.how() == ["polling"] * 3, 20), watcher.how()
        first, second = watcher.notice(0), watcher.notice(1)
        assert watcher.observers() == "3 polling"
        print(f"noticed after {first + second} s by polling")
        flows[0].log.rename(flows[0].log.with_name("jobstate.log.000"))
        watcher.notice(2)
    finally:
        watcher.stop()


def limited(name: str, limit: int) -> tuple[str, ...]:
    """A command prefix that sets a limit of inotify in a user namespace of its own; skips where that cannot be had."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not here: inotify's limits would have to be lowered for everybody")
    prefix = ("unshare", "--user", "--map-root-user", "sh", "-c", f'echo {limit} > /proc/sys/user/{name} && exec "$@"', "sh")
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no user namespace with a limit of its own: {done.stderr.strip()}")
    return prefix


@pytest.mark.parametrize(
    ("limit", "number", "expected"),
    [
        ("max_inotify_watches", 2, lambda how: how.count("sweep") >= 2 and how.count("inotify") <= 2),
        ("max_inotify_instances", 0, lambda how: how == ["sweep"] * 4),
    ],
    ids=["too few watches", "no inotify at all"],
)
def test_the_sweep_where_inotify_is_exhausted(tmp_path: Path, limit: str, number: int, expected: Callable[[list[str]], bool]) -> None:
    """The kernel's own limits, exceeded for real; the runs without a watch are noticed by the sweep."""
    flows = flows_in(tmp_path / "runs", 4)
    watcher = Watcher(tmp_path, flows, 0.5, ("-m", "doctor"), limited(limit, number))
    try:
        first, second = watcher.notice(0), watcher.notice(1)
        assert until(lambda: expected(watcher.how()), 20), (watcher.how(), watcher.log.read_text()[-2000:])
        assert "sweep" in watcher.observers()
        print(f"noticed after {first + second} s, watched by {watcher.how()}")
    finally:
        watcher.stop()
