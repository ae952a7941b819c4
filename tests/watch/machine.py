"""A real systemd to test the service in: a small Debian or Ubuntu, booted by systemd-nspawn with a throw-away overlay."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from tests.pool import live
from tests.pool.packages import PoolUnavailable, cache_folder, locked

CACHE = Path("~/.cache/pegasus-doctor-tests").expanduser()
INCLUDE = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,python3"


class NoMachine(Exception):
    """Why no systemd can be booted here."""


def rootfs() -> Path:
    """The file system of the machine; made on first use (about a minute) and kept."""
    if os.geteuid() != 0:
        raise NoMachine("booting a systemd needs root")
    facts = Path("/etc/os-release").read_text("utf-8") if Path("/etc/os-release").exists() else ""
    names = dict(line.partition("=")[::2] for line in facts.splitlines())
    if names.get("ID", "").strip('"') not in ("debian", "ubuntu"):
        raise NoMachine("the machine is made with debootstrap, on Debian or Ubuntu")
    for program, package in (("systemd-nspawn", "systemd-container"), ("debootstrap", "debootstrap")):
        if shutil.which(program) is None:
            raise NoMachine(f"{program} is not installed (package {package})")
    place = CACHE / f"rootfs-{hashlib.sha256(INCLUDE.encode()).hexdigest()[:8]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE):
        if not (place / "usr/bin/python3").exists():
            shutil.rmtree(place, ignore_errors=True)
            fresh = CACHE / "rootfs.new"
            for old in (fresh, *CACHE.glob("rootfs*")):
                shutil.rmtree(old, ignore_errors=True)
            suite = names.get("VERSION_CODENAME", "stable")
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={INCLUDE}", suite, fresh],
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
            if done.returncode != 0:
                raise NoMachine(f"debootstrap failed: {(done.stdout or done.stderr).strip().splitlines()[-1:]}")
            fresh.rename(place)
    return place


def system_python() -> Path:
    """A virtual environment of the system's own Python with the doctor's libraries; it works inside the machine too."""
    project = (live.ROOT / "pyproject.toml").read_text("utf-8")
    needed = live._requirements(project)
    place = cache_folder() / f"doctor-{hashlib.sha256(repr(needed).encode()).hexdigest()[:12]}"
    if not (place / ".complete").exists():
        try:
            shutil.rmtree(place, ignore_errors=True)
            live.run([live.SYSTEM_PYTHON, "-m", "venv", place])
            live.run([place / "bin/python", "-m", "pip", "install", "-q", *needed], seconds=900)
        except PoolUnavailable as problem:
            raise NoMachine(str(problem)) from problem
        (place / ".complete").touch()
    return place / "bin/python"


class Machine:
    """One booted machine with the repository at /opt/doctor and the command pegasus-doctor."""

    def __init__(self) -> None:
        self.root = rootfs()
        self.python = system_python()
        self.share = Path(tempfile.mkdtemp(prefix="doctor-machine-"))
        self.share.chmod(0o755)
        self.bin = self.share / "bin"
        self.bin.mkdir()
        self.source = self.share / "source"
        for name in ("doctor", "actions", "patterns", "service"):
            shutil.copytree(live.ROOT / name, self.source / name, ignore=shutil.ignore_patterns("__pycache__"))
        program = self.bin / "pegasus-doctor"
        program.write_text(f'#!/bin/sh\nPYTHONPATH=/opt/doctor PYTHONDONTWRITEBYTECODE=1 exec {self.python} -m doctor "$@"\n')
        program.chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None
        self.leader = 0

    def __enter__(self) -> Machine:
        venv = self.python.parent.parent
        argv = ["systemd-nspawn", "-q", "-D", str(self.root), "--volatile=overlay", "--boot", "--register=no", "--keep-unit"]
        argv += [f"--bind-ro={self.source}:/opt/doctor", f"--bind-ro={venv}", f"--bind={self.share}:/mnt"]
        argv += [f"--bind-ro={self.bin}/pegasus-doctor:/usr/local/bin/pegasus-doctor", "--private-network"]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise NoMachine(f"systemd-nspawn ended with {self.process.returncode} (not allowed in this container?)")
            children = psutil.Process(self.process.pid).children()
            self.leader = next((child.pid for child in children if child.name() == "systemd"), 0)
            if self.leader and self("systemctl", "is-system-running", check=False)[1].strip() in ("running", "degraded"):
                self("useradd", "--create-home", "alice")
                return self
            time.sleep(0.5)
        self.__exit__()
        raise NoMachine("systemd did not come up within a minute")

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            if self.leader:
                subprocess.run(self._inside(["systemctl", "poweroff"]), capture_output=True, timeout=30, check=False)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.share, ignore_errors=True)

    def _inside(self, words: list[str]) -> list[str]:
        path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["nsenter", "-t", str(self.leader), "-a", "--", "/usr/bin/env", "-i", path, "HOME=/root", *words]

    def __call__(self, *words: str, check: bool = True, seconds: float = 120) -> tuple[int, str]:
        """(exit code, output) of a command inside."""
        done = subprocess.run(self._inside(list(words)), capture_output=True, text=True, timeout=seconds, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}{self._journal()}")
        return done.returncode, done.stdout + done.stderr

    def _journal(self) -> str:
        return self("journalctl", "-n", "30", "-o", "cat", check=False)[1][-3000:]

    def show(self, unit: str, name: str) -> str:
        return self("systemctl", "show", "-P", name, unit)[1].strip()


def score(text: str) -> float:
    """The overall exposure level of ``systemd-analyze security``."""
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", text)
    return float(found[1]) if found else 10.0
