"""Starts the nursery and asks it for daemons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.watch.flows import ROOT, until
from tests.watch.small.mill import programs

CONFIG = """
[discovery]
folders = ["{folder}/runs"]
workflow_db = false
every_s = 0.5
[polling]
queue_s = 1
sweep_s = 0.5
settle_s = 0.3
[limits]
nice = 0
idle_io = false
free_space_mb = 1
"""
POLICY = 'mode = "act"\n[rescue]\nstart_within_s = 4\nback_off_s = 1\n[verify]\npoll_s = 1\n'


class Nursery:
    """Starts daemons, one at a time, and knows how they end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "queue").mkdir()
        (folder / "runs").mkdir(exist_ok=True)
        (folder / "config.toml").write_text(CONFIG.format(folder=folder))
        (folder / "policy.toml").write_text(POLICY)
        env = {**os.environ, "PATH": f"{programs(folder)}:{os.environ['PATH']}", "CONDOR_CONFIG": "/dev/null"}
        words = [sys.executable, "-m", "tests.watch.small.nursery", str(folder)]
        self.process = subprocess.Popen(words, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = 0

    def start(self, last: int = 0, word: str = "") -> None:
        """A daemon, which ends itself at its ``last`` point (of those whose name holds the word)."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"START {last} {word}\n")
        self.process.stdin.flush()
        self.pid = int(self.process.stdout.readline())

    def run(self, *words: str) -> int:
        """The exit code of one command of the doctor, in the same small world; its output is in ``daemon.log``."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"RUN {json.dumps(words)}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def heal(self, run: Path, *words: str) -> int:
        """`heal` by hand, with the daemon's memory and policy."""
        return self.run("heal", str(run), "--state", str(self.folder / "state"), "--policy", str(self.folder / "policy.toml"), *words)

    @property
    def log(self) -> str:
        return (self.folder / "daemon.log").read_text("utf-8", "replace")

    @property
    def alive(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.alive:
            os.kill(self.pid, number)
        assert until(lambda: not self.alive, 10)

    def close(self) -> None:
        self.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
