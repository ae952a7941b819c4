"""The systemd units: write, enable, remove. Templates lie in ``service/``."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from doctor.errors import DoctorError
from doctor.process import run
from doctor.repair import Finished
from doctor.settings import shipped

NAME = "pegasus-doctor"
_SYSTEM = Path("/etc/systemd/system")
_LINGER = Path("/var/lib/systemd/linger")
_KEPT = ("PATH", "CONDOR_CONFIG", "PEGASUS_HOME")


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of this host: its file, its name, and ``systemctl`` for its manager."""

    path: Path
    name: str
    systemctl: tuple[str, ...]
    account: str | None  # None: of one's own session

    def ask(self, *words: str, timeout: float = 60) -> Finished:
        return run([*self.systemctl, *words], timeout=timeout, env=_environment())

    def must(self, *words: str, timeout: float = 60) -> None:
        done = self.ask(*words, timeout=timeout)
        if done.code != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise DoctorError(f"`{' '.join(words)}` failed: {said[0] if said else f'exit code {done.code}'}{self._hint(done.stderr)}")

    def _hint(self, said: str) -> str:
        if "connect to bus" in said and self.account is None:
            return (
                "\nThere is no session of systemd for this user: log in directly (not through su or sudo), "
                "or have root run `loginctl enable-linger USER` first."
            )
        if "control process exited" in said or "timeout" in said or "failed because" in said:
            return f"\nIts last words: `journalctl {'--user ' if self.account is None else ''}-u {self.name} -n 20`"
        return ""


def _environment() -> dict[str, str]:
    """This process's, with the place of the user's own service manager where only a login would have set it."""
    found = dict(os.environ)
    own = f"/run/user/{os.getuid()}"
    if not found.get("XDG_RUNTIME_DIR") and os.path.isdir(f"{own}/systemd"):
        found["XDG_RUNTIME_DIR"] = own
    return found


def program() -> list[str]:
    """The command that the unit starts: this very installation."""
    found = Path(sys.argv[0]).absolute()
    if found.name == NAME and os.access(found, os.X_OK):
        return [str(found)]
    beside = Path(sys.executable).parent / NAME
    if beside.exists():
        return [str(beside)]
    elsewhere = shutil.which(NAME)
    return [elsewhere] if elsewhere else [sys.executable, "-m", "doctor"]


def quoted(word: str) -> str:
    """One word as systemd reads it in a unit: specifiers, variables and quotes are taken literally."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"'


def _word(word: str) -> str:
    return word if word.replace("/", "").replace("-", "").replace(".", "").replace("_", "").isalnum() else quoted(word.replace("$", "$$"))


def unit_text(account: str | None) -> str:
    """The unit for one's own session, or the template for accounts of the system."""
    file = shipped(f"{NAME}@.service" if account else f"{NAME}.service")
    try:
        text = file.read_text("utf-8")
    except OSError as problem:
        raise DoctorError("the unit is not part of this installation", file=str(file)) from problem
    extra = [f"Environment={quoted(f'{name}={os.environ[name]}')}" for name in _KEPT if os.environ.get(name)]
    return text.replace("@PROGRAM@", " ".join(map(_word, program()))).replace("@ENVIRONMENT@", "\n".join(extra))


def _unit(account: str | None) -> Unit:
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        raise DoctorError("this host has no systemd (no systemctl); run `pegasus-doctor watch` under another supervisor, or in tmux")
    if account is None:
        base = os.environ.get("XDG_CONFIG_HOME", "")
        folder = (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"
        return Unit(folder / f"{NAME}.service", f"{NAME}.service", (systemctl, "--user"), None)
    try:
        user = pwd.getpwnam(account)
    except KeyError as problem:
        raise DoctorError(f"there is no user {account!r} on this host") from problem
    if user.pw_uid == 0:
        raise DoctorError("the doctor runs as the user who owns the workflows, never as root")
    return Unit(_SYSTEM / f"{NAME}@.service", f"{NAME}@{account}.service", (systemctl,), account)


def _as_root(account: str | None) -> None:
    if account is not None and os.geteuid() != 0:
        raise DoctorError("--system needs root; without it: `pegasus-doctor service install --user`")


def install(account: str | None, start: bool = True) -> list[str]:
    """Write the unit, enable and start it; what was done, a line each."""
    unit = _unit(account)
    _as_root(account)
    fresh = unit.path.with_suffix(".new")
    try:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(unit_text(account), "utf-8")
        os.chmod(fresh, 0o644)
        os.replace(fresh, unit.path)
    except OSError as problem:
        raise DoctorError(problem.strerror or "cannot be written", file=str(unit.path)) from problem
    done = [f"wrote {unit.path}"]
    if not start and unit.ask("daemon-reload").code != 0:
        return [*done, "no service manager answers: nothing is enabled yet"]
    unit.must("daemon-reload")
    unit.must("enable", unit.name)
    done.append(f"enabled {unit.name}")
    if start:
        unit.ask("reset-failed", unit.name)
        unit.must("restart", unit.name, timeout=150)
        done.append(f"started {unit.name}: it watches")
    if account is None and not (_LINGER / pwd.getpwuid(os.getuid()).pw_name).exists():
        done.append("to keep it running when you are not logged in: loginctl enable-linger")
    return done


def uninstall(account: str | None) -> list[str]:
    """Stop and remove the unit; the template goes when no other account uses it. What was done, a line each."""
    unit = _unit(account)
    _as_root(account)
    done = []
    stopped = unit.ask("disable", "--now", unit.name)
    if stopped.code == 0:
        done.append(f"stopped and disabled {unit.name}")
    wanted = unit.path.parent / "default.target.wants" / unit.name
    if account is None and stopped.code != 0 and wanted.is_symlink():
        wanted.unlink()
        done.append(f"disabled {unit.name}; no service manager answers, so a running one is not stopped")
    others = account is not None and any(
        other.name != unit.name for other in (_SYSTEM / "multi-user.target.wants").glob(f"{NAME}@*.service")
    )
    if unit.path.exists() and not others:
        unit.path.unlink()
        done.append(f"removed {unit.path}")
    unit.ask("daemon-reload")
    unit.ask("reset-failed", unit.name)
    return done or [f"{unit.name}: not installed"]


def status(account: str | None) -> tuple[int, str]:
    """(exit code of ``systemctl is-active``, one line)."""
    unit = _unit(account)
    if not unit.path.exists():
        return 4, f"{unit.name}: not installed"
    shown = unit.ask("show", unit.name, "-p", "ActiveState,SubState,StatusText,MainPID,NRestarts,Result,UnitFileState", timeout=30)
    facts = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    active = unit.ask("is-active", unit.name, timeout=30)
    if not facts:
        said = (shown.stderr or active.stderr).strip().splitlines()
        return active.code or 1, f"{unit.name}: installed; its state cannot be told: {said[0] if said else 'no answer'}"
    parts = [f"{facts.get('ActiveState', '?')} ({facts.get('SubState', '?')})", facts.get("UnitFileState", "")]
    if facts.get("MainPID", "0") != "0":
        parts.append(f"pid {facts['MainPID']}")
    if facts.get("NRestarts", "0") != "0":
        parts.append(f"{facts['NRestarts']} restarts")
    if facts.get("Result", "success") != "success":
        parts.append(f"ended with {facts['Result']}")
    if facts.get("StatusText"):
        parts.append(facts["StatusText"])
    return active.code, f"{unit.name}: {', '.join(part for part in parts if part)}"
