"""Planned workflows on a pool, run by an ordinary user, and the doctor run beside them by the same user."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .flow import Flow
from .packages import PoolUnavailable, cache_folder, locked, run
from .planner import plan, write_sources
from .pool import JOB_USER, Pool
from .toolbox import toolbox

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PYTHON = Path("/usr/bin/python3")
_END = re.compile(r"EXITING WITH STATUS (\d+)")
Tweak = Callable[[Path], None]
Planner = Callable[[Flow, Path, Pool], tuple[Path, Path]]  # from the sources' folder: the submit directory and Pegasus' home


def nothing(place: Path) -> None:
    """No change."""


def user_folder(prefix: str) -> Path:
    """A new folder for workflows: below /tmp DAGMan refuses its logs, and jobs see a /tmp and /var/tmp of their own."""
    flows = cache_folder() / "flows"
    flows.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=flows))
    folder.chmod(0o755)
    give(folder)
    return folder


def give(place: Path) -> None:
    """Hands a tree over to the user who submits jobs; links are not followed."""
    if os.geteuid() != 0:
        return
    user = pwd.getpwnam(JOB_USER)
    for base, folders, files in os.walk(place):
        for path in (base, *(os.path.join(base, name) for name in (*folders, *files))):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def state_of(place: Path) -> dict[str, str]:
    """Kind, permissions and content of everything below a folder, to tell whether anything was changed."""
    found: dict[str, str] = {}
    for base, folders, files in os.walk(place):
        for name in (*folders, *files):
            path = Path(base) / name
            try:
                info = path.lstat()
                what = os.readlink(path) if path.is_symlink() else "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
            except FileNotFoundError:
                continue  # DAGMan and monitord are at work and remove files of their own
            found[str(path.relative_to(place))] = f"{info.st_mode:o} {info.st_uid} {what}"
    return found


@dataclass
class Live:
    """One planned workflow on a pool. `root` holds everything of it, `run` is its submit directory."""

    flow: Flow
    root: Path
    run: Path
    home: Path
    pool: Pool

    @property
    def dag(self) -> str:
        return f"{self.flow.name}-0.dag"

    def submit(self) -> None:
        tools = f"PATH={self.home}/bin:{self.pool.installation.bin}:{self.pool.installation.sbin}:/usr/local/bin:/usr/bin:/bin"
        self.pool.condor("env", tools, str(self.home / "bin/pegasus-run"), str(self.run), seconds=120)

    def ends(self) -> list[int]:
        """DAGMan's exit status of every time that it ended."""
        try:
            return [int(code) for code in _END.findall((self.run / f"{self.dag}.dagman.out").read_text("utf-8", "replace"))]
        except FileNotFoundError:
            return []

    def wait_end(self, seconds: float = 240.0, times: int = 1) -> int:
        """DAGMan's exit status, once it has ended so many times and monitord has written it down."""
        self.wait(lambda: len(self.ends()) >= times and self.jobstate().count("DAGMAN_FINISHED") >= times, seconds, "DAGMan's end")
        return self.ends()[-1]

    def wait(self, ready: Callable[[], object], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.flow.name}: no {what} in {seconds:.0f} s\n{self.jobstate()[-2000:]}")
            time.sleep(0.5)

    def wait_state(self, job: str, state: str, seconds: float = 180.0) -> None:
        """Until jobstate.log has that state of that job."""
        self.wait(lambda: f" {job} {state} " in self.jobstate(), seconds, f"{state} of {job}")

    def jobstate(self) -> str:
        try:
            return (self.run / "jobstate.log").read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def queue_id(self, job: str) -> str:
        """The job's id in the queue, '' when it is not there."""
        constraint = f'DAGNodeName == "{job}" && regexp("{self.run}", UserLog)'
        return self.pool.condor("condor_q", "-allusers", "-constraint", constraint, "-af:j", "JobStatus").split(" ")[0].strip()

    def dagman_in_queue(self) -> bool:
        rows = self.pool.condor("condor_q", "-allusers", "-constraint", f'JobUniverse == 7 && Iwd == "{self.run}"', "-af:j", "JobStatus")
        return bool(rows.strip())

    def wait_gone(self, seconds: float = 90.0) -> None:
        """Until DAGMan has left the queue (pegasus-dagman looks for its end every few seconds only)."""
        self.wait(lambda: not self.dagman_in_queue(), seconds, "end of the DAGMan job")

    def remove(self) -> None:
        """Takes whatever is left of the workflow out of the queue."""
        uuid = re.search(r'root_wf_uuid: "([^"]+)"', (self.run / "braindump.yml").read_text("utf-8"))
        assert uuid is not None
        subprocess.run(
            self.pool.as_job_user(["condor_rm", "-constraint", f'pegasus_root_wf_uuid == "{uuid[1]}"']),
            capture_output=True,
            timeout=60,
            check=False,
        )


def small(flow: Flow, root: Path, pool: Pool) -> tuple[Path, Path]:
    """The test-only planner."""
    home = toolbox()
    return plan(flow, root, home, pool), home


def settle(flow: Flow, base: Path, pool: Pool, before: Tweak = nothing, after: Tweak = nothing, planner: Planner = small) -> Live:
    """Writes and plans a workflow below `base`. `before` changes its sources, `after` the planned run directory."""
    root = base / flow.name
    root.mkdir()
    write_sources(flow, root)
    submit_dir, home = planner(flow, root, pool)
    before(root)
    after(submit_dir)
    give(root)
    return Live(flow, root, submit_dir, home, pool)


# -- the doctor -------------------------------------------------------------------------------------------


@dataclass
class Doctor:
    """Runs `pegasus-doctor` as the user who submits jobs, with the repository's own code."""

    pool: Pool
    base: Path
    python: Path = field(default_factory=lambda: doctor_python())
    source: Path = ROOT

    def __post_init__(self) -> None:
        for name in ("cache", "home"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        give(self.base)
        if self._run(["-c", "import doctor"], 60).returncode:
            self.source = self.base / "source"
            for name in ("doctor", "actions", "patterns", "service"):
                shutil.copytree(ROOT / name, self.source / name, ignore=shutil.ignore_patterns("__pycache__"))
            give(self.source)

    def command(self, words: Sequence[str]) -> list[str]:
        """The whole command line."""
        settings = [f"PYTHONPATH={self.source}", f"XDG_CACHE_HOME={self.base}/cache", f"HOME={self.base}/home", "PYTHONDONTWRITEBYTECODE=1"]
        return self.pool.as_job_user(["env", *settings, str(self.python), *words])

    def _run(self, words: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(words), capture_output=True, text=True, timeout=seconds, cwd=self.base, check=False)

    def __call__(self, *words: str, seconds: float = 400.0) -> subprocess.CompletedProcess[str]:
        """Runs one command of the doctor to its end."""
        return self._run(["-m", "doctor", *words], seconds)

    def json(self, *words: str, seconds: float = 400.0) -> tuple[int, dict[str, Any]]:
        """(exit code, document) of a command with `--json`; the words must hold that option."""
        done = self(*words, seconds=seconds)
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError as error:
            raise AssertionError(f"{' '.join(words)} ended with {done.returncode}: {done.stdout[-1500:]}{done.stderr[-2500:]}") from error


def doctor_python() -> Path:
    """A Python with the doctor's libraries that the ordinary user can start: this one, or one made for the purpose.

    The environment of whoever runs the tests may lie in a home that no other user can enter.
    """
    if _reachable(Path(sys.executable)):
        return Path(sys.executable)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    digest = hashlib.sha256(project.encode()).hexdigest()[:12]
    place = cache_folder() / f"doctor-{digest}"
    if not (place / ".complete").exists():
        if not SYSTEM_PYTHON.exists():
            raise PoolUnavailable(f"{sys.executable} is out of the ordinary user's reach, and there is no {SYSTEM_PYTHON}")
        with locked(cache_folder()):
            if not (place / ".complete").exists():
                shutil.rmtree(place, ignore_errors=True)
                run([SYSTEM_PYTHON, "-m", "venv", place])
                run([place / "bin/python", "-m", "pip", "install", "-q", *_requirements(project)], seconds=900)
                (place / ".complete").touch()
    return place / "bin/python"


def _reachable(python: Path) -> bool:
    if os.geteuid() != 0:
        return True
    user = pwd.getpwnam(JOB_USER)
    words = [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "env",
        python,
        "-c",
        "import click, htcondor2",
    ]
    try:
        return subprocess.run(words, capture_output=True, timeout=60, cwd="/", check=False).returncode == 0
    except OSError:
        return False


def _requirements(project: str) -> list[str]:
    """The `dependencies` of pyproject.toml."""
    block = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    if block is None:
        raise PoolUnavailable("pyproject.toml lists no dependencies")
    return re.findall(r'^\s*"([^"]+)"', block[1], re.MULTILINE)
