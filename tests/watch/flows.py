"""Runs whose logs are written while somebody watches."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.builder import EPOCH, Builder, record

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
[discovery]
workflow_db = false
queue = false
every_s = 0.5
[polling]
queue_s = 300
sweep_s = 0.5
settle_s = 0.5
[limits]
nice = 0
idle_io = false
free_space_mb = 1
healers = {healers}
"""


class Flow:
    """A run of independent jobs: each either succeeds or dies of a missing Python package of its own."""

    def __init__(self, folder: Path, jobs: int, label: str = "demo") -> None:
        self.folder = folder
        builder = Builder(folder)
        for number in range(jobs):
            text = f"ModuleNotFoundError: No module named 'package_{number % 7}'"
            builder.job(
                f"step_{number}",
                outputs={".out.000": record(raw=256, stderr=f"Traceback (most recent call last):\n{text}", condor=f"{200 + number}.0")},
            )
        builder.write()
        self.log = folder / "jobstate.log"
        self.seq = 0
        self.failed: set[str] = set()

    def write(self, *lines: str) -> None:
        with self.log.open("a") as stream:
            stream.write("".join(f"{line}\n" for line in lines))

    def job(self, number: int, fails: bool) -> None:
        self.seq += 1
        name, now = f"step_{number}", int(time.time())
        states = ["SUBMIT", "EXECUTE", "JOB_TERMINATED"]
        states += ["JOB_FAILURE"] if fails else ["JOB_SUCCESS"]
        states += ["POST_SCRIPT_STARTED", "POST_SCRIPT_FAILURE" if fails else "POST_SCRIPT_SUCCESS"]
        values = [f"{200 + number}.0"] * 3 + ["1" if fails else "0", f"{200 + number}.0", "1" if fails else "0"]
        self.write(*(f"{now} {name} {state} {value} condorpool - {self.seq}" for state, value in zip(states, values, strict=True)))
        (self.failed.add if fails else self.failed.discard)(name)

    def finish(self, status: int) -> None:
        self.write(f"{int(time.time())} INTERNAL *** DAGMAN_FINISHED {status} ***")


def start_daemon(
    state: Path,
    folder: Path,
    runs: list[Path],
    healers: int = 0,
    extra: str = "",
    policy: Path | None = None,
    free_space_mb: int = 1,
    prefix: Sequence[str] = (),
    folders: str = "",
) -> subprocess.Popen[bytes]:
    """The daemon as a process of its own, on the named runs alone, or on those in ``folders``."""
    config = folder / "config.toml"
    config.write_text(CONFIG.format(healers=healers).replace("free_space_mb = 1", f"free_space_mb = {free_space_mb}") + extra)
    if folders:
        config.write_text(config.read_text().replace("[discovery]", f'[discovery]\nfolders = ["{folders}"]'))
    argv = [
        *prefix,
        sys.executable,
        "-m",
        "doctor",
        "watch",
        *(() if folders else ("--only",)),
        "--state",
        str(state),
        "--config",
        str(config),
    ]
    argv += ["--policy", str(policy)] if policy else []
    log = (folder / "daemon.log").open("ab")
    env = {**os.environ, "CONDOR_CONFIG": os.environ.get("CONDOR_CONFIG", "/dev/null")}
    return subprocess.Popen([*argv, *map(str, runs)], cwd=ROOT, stdout=log, stderr=log, env=env)


def until(condition: object, seconds: float = 30.0) -> bool:
    """Whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


__all__ = ["EPOCH", "Flow", "start_daemon", "until"]
