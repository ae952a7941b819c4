"""A folder that looks like an installed Pegasus, from which planned jobs take their programs.

The programs are those of the PyPI wheels; kickstart and PegasusLite's functions, which no wheel has,
are the stand-ins beside this module.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from .packages import cache_folder, locked
from .shims import PROGRAMS, shim, wheel_home

_HERE = Path(__file__).parent
_MORE = ("transfer", "integrity")


def toolbox() -> Path:
    """The folder; made on first use, anew when a stand-in has changed."""
    wheels = wheel_home()
    sources = [_HERE / name for name in ("kickstart.py", "lite-common.sh", "lite-local.sh", "toolbox.py", "shims.py")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    home = cache_folder() / f"toolbox-{digest}"
    if (home / ".complete").exists():
        return home
    with locked(cache_folder()):
        if not (home / ".complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            _make(home, wheels)
            (home / ".complete").touch()
    return home


def _make(home: Path, wheels: Path) -> None:
    programs, shell = home / "bin", home / "share/pegasus/sh"
    for folder in (programs, shell):
        folder.mkdir(parents=True)
    for program in (*PROGRAMS, *_MORE):
        shim(programs, program, home, wheels / "python")
    python = wheels / "python/bin/python"
    kickstart = programs / "pegasus-kickstart"
    kickstart.write_text(f"#!{python} -SE\n{(_HERE / 'kickstart.py').read_text('utf-8')}", encoding="utf-8")
    for name in ("lite-common.sh", "lite-local.sh"):
        shutil.copyfile(_HERE / name, shell / f"pegasus-{name}")
    for path in (kickstart, shell / "pegasus-lite-local.sh"):
        path.chmod(0o755)
