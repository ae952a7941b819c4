"""The systemd units: write, enable, remove. Templates lie in ``service/``."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from pathlib import Path

from doctor.errors import DoctorError
from doctor.process import run
from doctor.repair import Finished

NAME = "pegasus-doctor"
_SYSTEM = Path("/etc/systemd/system")


def template(name: str) -> str:
    """A unit as shipped: in the wheel beside the package, in a checkout below ``service``."""
    here = Path(__file__).resolve().parents[2]
    for folder in (here / "doctor" / "_service", here / "service"):
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8")
    raise DoctorError(f"the unit {name} is not part of this installation")


def program() -> str:
    """The command that the unit starts: this very installation."""
    found = Path(sys.argv[0]).resolve()
    if found.name == "pegasus-doctor" and os.access(found, os.X_OK):
        return str(found)
    beside = Path(sys.executable).parent / "pegasus-doctor"
    return str(beside) if beside.exists() else shutil.which("pegasus-doctor") or f"{sys.executable} -m doctor"


def unit_text(account: str | None) -> str:
    """The unit for one's own session, or the template for accounts of the system."""
    text = template(f"{NAME}@.service" if account else f"{NAME}.service").replace("@PROGRAM@", program())
    extra = []
    path = os.environ.get("PATH", "")
    if path:
        extra.append(f'Environment="PATH={path}"')
    for name in ("CONDOR_CONFIG", "PEGASUS_HOME"):
        if os.environ.get(name):
            extra.append(f'Environment="{name}={os.environ[name]}"')
    return text.replace("@ENVIRONMENT@", "\n".join(extra))


def _unit(account: str | None) -> tuple[Path, str, list[str]]:
    """(file, name of the unit, systemctl with its scope)."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        raise DoctorError("this host has no systemd (no systemctl); run `pegasus-doctor watch` under another supervisor, or in tmux")
    if account is None:
        base = os.environ.get("XDG_CONFIG_HOME", "")
        folder = (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"
        return folder / f"{NAME}.service", f"{NAME}.service", [systemctl, "--user"]
    try:
        pwd.getpwnam(account)
    except KeyError as problem:
        raise DoctorError(f"there is no user {account!r} on this host") from problem
    if account == "root":
        raise DoctorError("the doctor runs as the user who owns the workflows, never as root")
    if os.geteuid() != 0:
        raise DoctorError("--system needs root; without it: `pegasus-doctor service install --user`")
    return _SYSTEM / f"{NAME}@.service", f"{NAME}@{account}.service", [systemctl]


def install(account: str | None, start: bool = True) -> list[str]:
    """Write the unit, enable and start it; what was done, a line each."""
    path, name, systemctl = _unit(account)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = unit_text(account)
    fresh = path.with_suffix(".new")
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)
    done = [f"wrote {path}"]
    _must([*systemctl, "daemon-reload"])
    _must([*systemctl, "enable", name])
    done.append(f"enabled {name}")
    if start:
        _must([*systemctl, "restart", name], timeout=120)
        done.append(f"started {name}: it watches")
    if account is None:
        done.append("to keep it running when you are not logged in: loginctl enable-linger")
    return done


def uninstall(account: str | None) -> list[str]:
    """Stop and remove the unit; the template goes when no other account uses it."""
    path, name, systemctl = _unit(account)
    done = []
    run([*systemctl, "disable", "--now", name], timeout=60)
    done.append(f"stopped and disabled {name}")
    others = account is not None and any(other.name != name for other in (_SYSTEM / "multi-user.target.wants").glob(f"{NAME}@*.service"))
    if path.exists() and not others:
        path.unlink()
        done.append(f"removed {path}")
    run([*systemctl, "daemon-reload"], timeout=60)
    run([*systemctl, "reset-failed", name], timeout=60)
    return done


def status(account: str | None) -> tuple[int, str]:
    """(exit code of ``systemctl is-active``, one line)."""
    path, name, systemctl = _unit(account)
    if not path.exists():
        return 4, f"{name}: not installed"
    shown = run([*systemctl, "show", name, "-p", "ActiveState,SubState,StatusText,MainPID,NRestarts"], timeout=30)
    facts = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    active = run([*systemctl, "is-active", name], timeout=30)
    text = f"{name}: {facts.get('ActiveState', '?')} ({facts.get('SubState', '?')}), pid {facts.get('MainPID', '?')}"
    return active.code, f"{text}, {facts.get('NRestarts', '?')} restarts. {facts.get('StatusText', '')}".rstrip()


def _must(argv: list[str], timeout: float = 60) -> Finished:
    done = run(argv, timeout=timeout)
    if done.code != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DoctorError(f"`{' '.join(argv)}` failed: {said[-1] if said else 'exit code ' + str(done.code)}")
    return done
