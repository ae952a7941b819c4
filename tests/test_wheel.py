"""The wheel as a user gets it: built, installed into an environment of its own, used far from the source."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.watch.flows import CONFIG, ROOT, Flow, until

FIXTURE = ROOT / "fixtures" / "failed_runs" / "undeclared-helper-condorio"


class Installed:
    """A virtual environment with the wheel; what it needs is borrowed from the environment of the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        wheels = folder / "wheels"
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT))
        (self.wheel,) = wheels.glob("pegasus_doctor-*.whl")
        self.venv = folder / "an environment"  # with a space in its name: that has to reach systemd unharmed
        run(sys.executable, "-m", "venv", "--without-pip", str(self.venv))
        self.python = self.venv / "bin" / "python"
        run(sys.executable, "-m", "pip", "--python", str(self.python), "install", "-q", "--no-deps", "--no-index", str(self.wheel))
        (site,) = self.venv.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_"))}
        self.env |= {"HOME": str(self.home), "CONDOR_CONFIG": "/dev/null"}
        self.program = str(self.venv / "bin" / "pegasus-doctor")

    def __call__(self, *words: str, expect: int = 0, **environ: str) -> str:
        done = subprocess.run(
            [self.program, *words], capture_output=True, text=True, cwd=self.folder, env={**self.env, **environ}, check=False
        )
        assert done.returncode == expect, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    yield Installed(tmp_path_factory.mktemp("wheel"))


def test_what_is_in_it(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
    assert {"doctor/_service/pegasus-doctor.service", "doctor/_service/pegasus-doctor@.service", "doctor/_service/policy.toml"} <= names
    assert "doctor/_patterns/causes.yaml" in names
    for folder, inside in (("patterns", "doctor/_patterns"), ("service", "doctor/_service")):
        here = {f"{inside}/{path.relative_to(ROOT / folder)}" for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert here <= names, here - names
    assert not [name for name in names if name.startswith(("tests/", "fixtures/", "benchmarks/"))]
    where = subprocess.run(
        [installed.python, "-c", "import doctor; print(doctor.__file__)"],
        capture_output=True,
        text=True,
        env=installed.env,
        cwd="/",
        check=True,
    )
    assert where.stdout.startswith(str(installed.venv)), "it is the installed one that is tested"


def test_it_finds_its_data_and_diagnoses(installed: Installed) -> None:
    assert "[polling]" in installed("config", "show")
    assert "well formed" in installed("config", "check")
    installed("rules", "check")
    copied = installed.folder / "somewhere" / "else"
    shutil.copytree(FIXTURE, copied)
    shown = installed("analyze", "--map", f"/data/flows/b03={copied}", str(copied / "runs/sci/pegasus/wave/run0001"), expect=1)
    assert "dependency/undeclared-helper-file" in shown


def test_it_watches(installed: Installed) -> None:
    flow = Flow(installed.folder / "flow" / "run0001", 3)
    config, state = installed.folder / "config.toml", installed.folder / "state"
    config.write_text(CONFIG.format(healers=0))
    words = [installed.program, "watch", "--only", "--config", str(config), "--state", str(state), str(flow.folder)]
    log = installed.folder / "watch.log"
    daemon = subprocess.Popen(words, cwd=installed.folder, env=installed.env, stderr=log.open("ab"))
    try:
        flow.job(0, fails=True)
        assert until(lambda: "opened" in log.read_text(), 30), log.read_text()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
    finally:
        daemon.kill()
        daemon.wait()
    assert "python-package-missing" in installed("status", "--state", str(state), expect=1)


def test_the_unit_starts_this_very_installation(installed: Installed) -> None:
    """The service manager's part is played by a script here; the real one is in tests/watch/test_systemd.py."""
    said = installed.folder / "systemctl.log"
    tools = installed.folder / "bin"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> "{said}"\n')
    (tools / "systemctl").chmod(0o755)
    path = f'{tools}:/opt/odd%place/"bin:{os.environ["PATH"]}'
    told = installed("service", "install", "--user", PATH=path)
    unit = installed.home / ".config/systemd/user/pegasus-doctor.service"
    assert f"wrote {unit}" in told and "it watches" in told
    lines = unit.read_text().splitlines()
    assert f'ExecStart="{installed.program}" watch' in lines
    assert any(line.startswith('Environment="PATH=') and '/opt/odd%%place/\\"bin' in line for line in lines)
    assert not any("@" in line for line in lines), "nothing is left of the template's places"
    calls = said.read_text().splitlines()
    assert calls == ["--user daemon-reload", "--user enable pegasus-doctor.service", "--user reset-failed pegasus-doctor.service",
                     "--user restart pegasus-doctor.service"]  # fmt: skip
    if shutil.which("systemd-analyze"):
        checked = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
        assert "pegasus-doctor" not in checked.stderr, checked.stderr
    told = installed("service", "uninstall", "--user", PATH=path)
    assert f"removed {unit}" in told and not unit.exists()
