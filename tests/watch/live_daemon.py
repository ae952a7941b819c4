"""The daemon as a process of its own on a pool, run by the user who submits jobs."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from doctor.loop.records import IncidentRow
from doctor.statedir import run_key
from doctor.store import Store
from tests.pool.live import Doctor, Live, give
from tests.pool.pool import Pool
from tests.pool.toolbox import toolbox
from tests.watch.flows import until


class LiveDaemon:
    """A running daemon. `incidents` and `rows` tell what its store holds of a workflow."""

    def __init__(self, pool: Pool, base: Path, config: str, policy: str) -> None:
        self.doctor = Doctor(pool, base)
        self.base = base
        self.state = base / "state"
        (base / "config.toml").write_text(config)
        (base / "policy.toml").write_text(policy)
        self.state.mkdir(mode=0o700)
        give(base)
        words = ["-m", "doctor", "watch", "--state", str(self.state), "--config", str(base / "config.toml")]
        self._log = (base / "daemon.log").open("ab")
        command = self.doctor.command([*words, "--policy", str(base / "policy.toml")])
        at = command.index("env", command.index("-i"))
        command[at + 1 : at + 1] = [f"PATH={toolbox()}/bin:{pool.environment({})['PATH']}"]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=base)
        # Before the daemon has its store open nobody else may open it: the files beside it would belong to another user.
        assert until(lambda: "watching" in self.log() or self.process.poll() is not None, 120) and self.process.poll() is None, self.log()

    def rows(self, live: Live) -> list[IncidentRow]:
        """What the store holds of a workflow now, oldest first."""
        if not (self.state / "doctor.db").exists():
            return []
        store = Store(self.state, time.time)
        try:
            return store.incidents(run_key(str(live.run)))
        finally:
            store.close()

    def incidents(self, live: Live) -> dict[str, str]:
        """Cause -> state."""
        return {row.incident.diagnosis.cause: row.stage.value for row in self.rows(live)}

    def log(self, size: int = 5000) -> str:
        return (self.base / "daemon.log").read_text("utf-8", "replace")[-size:]

    def stop(self) -> float:
        """Seconds that a clean stop took."""
        begun = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
        self._log.close()
        return time.monotonic() - begun
