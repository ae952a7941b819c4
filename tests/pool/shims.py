"""Pegasus' run-time programs, made from its Python wheels: enough to run a planned workflow.

The wheels hold pegasus-run, pegasus-dagman, pegasus-monitord and the like, but not the
small programs in front of them, nor the planner, kickstart and PegasusLite. This module
puts the small programs into a folder that looks like an installed Pegasus.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from .packages import PoolUnavailable, cache_folder, locked, run

PROGRAMS = ("run", "dagman", "monitord", "exitcode", "analyzer", "status", "remove")
REQUIREMENTS = ("pegasus-wms>=5.1,<5.2",)

_SYSTEM_PYTHON = Path("/usr/bin/python3")
_SHIM = """\
#!/bin/sh
PEGASUS_HOME='{home}'; export PEGASUS_HOME
exec '{python}' '{cli}/pegasus-{program}.py' "$@"
"""


def pegasus_home() -> Path:
    """The folder of an installed Pegasus, or of the programs made from the wheels."""
    if (found := shutil.which("pegasus-dagman")) is not None:
        return Path(found).resolve().parent.parent
    return wheel_home()


def wheel_home() -> Path:
    """The folder of the programs made from the wheels, whatever else is installed."""
    cache = cache_folder()
    home = cache / "pegasus"
    if (home / ".complete").exists():
        return home
    with locked(cache):
        if not (home / ".complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            _make(home)
            (home / ".complete").touch()
    return home


def use_home(submit_dir: Path, home: Path) -> None:
    """Points a planned workflow at the programs of `home`: its DAGMan job and its POST scripts."""
    for submit_file in submit_dir.rglob("*.dag.condor.sub"):
        _replace(submit_file, r"^(executable\s*=\s*)\S*/pegasus-dagman\s*$", rf"\g<1>{home}/bin/pegasus-dagman")
    for dag in submit_dir.rglob("*.dag"):
        _replace(dag, r"^(SCRIPT POST \S+ )\S*/pegasus-exitcode\b", rf"\g<1>{home}/bin/pegasus-exitcode")


def _replace(path: Path, pattern: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(pattern, new, text, flags=re.M), encoding="utf-8")


def _make(home: Path) -> None:
    """Installs the wheels for the system's Python: an ordinary user can reach that one."""
    python = _SYSTEM_PYTHON if _SYSTEM_PYTHON.exists() else Path(sys.executable)
    packages = home / "python"
    run([python, "-m", "venv", packages])
    run([packages / "bin/python", "-m", "pip", "install", "-q", *REQUIREMENTS], seconds=600)
    if next(packages.glob("lib/python3*/site-packages/Pegasus/cli"), None) is None:
        raise PoolUnavailable("the Pegasus wheels hold no command-line programs")
    (home / "bin").mkdir()
    for program in PROGRAMS:
        shim(home / "bin", program, home, packages)


def shim(folder: Path, program: str, home: Path, packages: Path) -> None:
    """Writes one of the small programs; `packages` is the environment that the wheels are installed in."""
    cli = next(packages.glob("lib/python3*/site-packages/Pegasus/cli"))
    path = folder / f"pegasus-{program}"
    path.write_text(_SHIM.format(home=home, python=packages / "bin/python", cli=cli, program=program), encoding="utf-8")
    path.chmod(0o755)
