"""A whole HTCondor pool on this machine's loopback, for as long as a test needs it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .config import TEMPLATE, PoolSettings, execute_folder
from .packages import Installation, PoolUnavailable, cache_folder, find_htcondor, run
from .processes import born, descendants, gone, send

DAEMON_USER = "condor"
JOB_USER = "sci"


class Pool:
    """One pool: `with Pool() as pool: pool.condor("condor_q")`.

    The daemons live in `folder`, which holds their configuration, logs and spool. A pool
    that another process started there can be taken over with `Pool.attach(folder)`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        settings: PoolSettings | None = None,
        installation: Installation | None = None,
    ) -> None:
        self.folder = folder or cache_folder() / "pool"
        self.settings = settings or PoolSettings()
        self.installation = installation or find_htcondor()
        self._record = self.folder / "pool.json"

    @classmethod
    def attach(cls, folder: Path | None = None) -> Pool | None:
        """The pool that runs in the folder, or None."""
        place = folder or cache_folder() / "pool"
        if not (place / "pool.json").is_file():
            return None
        pool = cls(place)
        return pool if pool.master_pid() else None

    def __enter__(self) -> Pool:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- life -----------------------------------------------------------------------------

    def start(self) -> Pool:
        """Starts the daemons and waits until every node of the pool offers a slot."""
        if self.master_pid():
            return self
        if os.geteuid() == 0:
            for user in (DAEMON_USER, JOB_USER):
                ensure_user(user)
        self._lay_out()
        with open(self.folder / "master.out", "ab") as log:
            master = subprocess.Popen(
                [self.installation.sbin / "condor_master", "-f"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._record.write_text(json.dumps({"pid": master.pid, "born": born(master.pid)}))
        try:
            self._wait_until_ready(master)
        except PoolUnavailable:
            self.stop()
            raise
        return self

    def stop(self, seconds: float = 30.0) -> None:
        """Ends the master and the daemons below it, and nothing else."""
        pid = self.master_pid()
        if pid is not None:
            family = [pid, *descendants(pid)]
            births = {p: born(p) for p in family}
            os.kill(pid, signal.SIGQUIT)  # fast shutdown: the master ends its daemons
            if not gone(births, seconds):
                for left in [p for p, when in births.items() if when and born(p) == when]:
                    send(left, signal.SIGKILL)
                gone(births, 5)
        self._record.unlink(missing_ok=True)

    def master_pid(self) -> int | None:
        """The process id of this folder's master, if that very process still runs."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        alive = born(record["pid"])
        return record["pid"] if alive and alive == record["born"] else None

    # -- use ------------------------------------------------------------------------------

    def execute(self, node: str) -> Path:
        """Where the jobs of a further node run."""
        return self.folder / "local" / execute_folder(node)

    @property
    def config(self) -> Path:
        return self.folder / "condor_config"

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """An environment in which HTCondor's tools, and its bindings, talk to this pool."""
        env = dict(os.environ if base is None else base)
        path = env.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        env["PATH"] = f"{self.installation.bin}:{self.installation.sbin}:{path}"
        env["CONDOR_CONFIG"] = str(self.config)
        return env

    def condor(self, *command: str, cwd: Path | None = None, seconds: int = 60) -> str:
        """Runs a command as the user who submits jobs, and returns what it printed."""
        return run(self.as_job_user(command), cwd=cwd or Path("/"), seconds=seconds)  # the checkout may be out of that user's reach

    def as_job_user(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command as an ordinary user in the pool's environment."""
        env = self.environment({"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"})
        prefix: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam(JOB_USER)
            env |= {"USER": JOB_USER, "LOGNAME": JOB_USER, "HOME": user.pw_dir}
            prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
            prefix += ["--init-groups"]
        else:
            env |= {name: os.environ[name] for name in ("USER", "HOME") if name in os.environ}
        return [*prefix, "env", "-i", *(f"{k}={v}" for k, v in env.items()), *command]

    def version(self) -> str:
        """HTCondor's version string, `$CondorVersion: ... $`."""
        return self.condor("condor_version").splitlines()[0].strip()

    # -- inner ----------------------------------------------------------------------------

    def _lay_out(self) -> None:
        local = self.folder / "local"
        shutil.rmtree(local, ignore_errors=True)
        for name in ("log", "spool", "execute", "lock", "run", *map(execute_folder, self.settings.nodes)):
            (local / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        identity, daemon_user = "", os.environ.get("USER", JOB_USER)
        if os.geteuid() == 0:
            user = pwd.getpwnam(DAEMON_USER)
            for place in (local, *local.iterdir()):
                os.chown(place, user.pw_uid, user.pw_gid)
                place.chmod(0o755)
            identity, daemon_user = f"CONDOR_IDS = {user.pw_uid}.{user.pw_gid}", DAEMON_USER
        text = TEMPLATE.format(
            release=self.installation.release,
            libexec=self.installation.libexec,
            local=local,
            identity=identity,
            daemon_user=daemon_user,
            port=_free_port(),
            cpus=self.settings.cpus,
            memory_mb=self.settings.memory_mb,
            disk_kb=self.settings.disk_kb,
            extra="\n".join([*(f"{k} = {v}" for k, v in self.settings.extra.items()), *self.settings.node_lines()]),
        )
        self.config.write_text(text, encoding="utf-8")

    def _wait_until_ready(self, master: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.settings.start_seconds
        why = "no answer"
        while time.monotonic() < deadline:
            if master.poll() is not None:
                said = (self.folder / "master.out").read_text(errors="replace").strip()
                raise PoolUnavailable(f"condor_master ended with {master.returncode}: {said[-400:]}")
            try:
                slots = self.condor("condor_status", "-af", "Name", seconds=20)
                schedds = self.condor("condor_status", "-schedd", "-af", "Name", seconds=20)
                if len(slots.split()) > len(self.settings.nodes) and schedds.strip():
                    return
                why = f"{len(slots.split())} slots" if schedds.strip() else "no schedd yet"
            except PoolUnavailable as error:
                why = str(error)
            time.sleep(1)
        raise PoolUnavailable(f"the pool was not ready in {self.settings.start_seconds:.0f} s: {why}")


def ensure_user(name: str) -> None:
    """Makes a system account of that name where there is none."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        home = f"/var/lib/pegasus-doctor-pool/{name}"
        Path(home).parent.mkdir(parents=True, exist_ok=True)
        run(["useradd", "--system", "--user-group", "--create-home", "--home-dir", home, name])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
