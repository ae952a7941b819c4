"""The service under a real systemd: install, readiness, kill -9, watchdog, reload, stop, uninstall."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from tests.watch.flows import Flow, until
from tests.watch.machine import Machine, NoMachine, score

UNIT = "pegasus-doctor@alice.service"
DROP_IN = "[Service]\nWatchdogSec=4\n"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    try:
        with Machine() as booted:
            yield booted
    except NoMachine as reason:
        pytest.skip(f"no systemd: {reason}")


@pytest.fixture(scope="module")
def flow(machine: Machine) -> Flow:
    """A run of alice's, below her home, written from outside through a bind mount."""
    folder = machine.share / "flows" / "run0001"
    made = Flow(folder, 40)
    made.write(f"{int(time.time())} INTERNAL *** DAGMAN_STARTED 100.0 ***")
    uid = int(machine("id", "-u", "alice")[1])
    for base, folders, files in os.walk(machine.share / "flows"):
        for name in (base, *(os.path.join(base, one) for one in (*folders, *files))):
            os.chown(name, uid, uid)
    config = (
        'discovery.folders = ["/mnt/flows"]\ndiscovery.every_s = 1\npolling.settle_s = 1\nlimits.healers = 0\nlimits.free_space_mb = 1\n'
    )
    machine("mkdir", "-p", "/home/alice/.config/pegasus-doctor", "/etc/pegasus-doctor")
    machine("sh", "-c", f"printf '%s' '{config}' > /home/alice/.config/pegasus-doctor/config.toml; chown -R alice /home/alice/.config")
    machine("sh", "-c", "echo json://127.0.0.1:9/x > /etc/pegasus-doctor/notify.alice; chmod 600 /etc/pegasus-doctor/notify.alice")
    return made


def incidents(machine: Machine) -> dict[str, int]:
    code, text = machine("su", "alice", "-c", "pegasus-doctor incidents --json", check=False)
    return (
        {one["id"]: len(one["jobs"]) if isinstance(one["jobs"], list) else one["jobs"] for one in json.loads(text)["incidents"]}
        if code == 0
        else {}
    )


def journal(machine: Machine) -> str:
    return (
        machine("su", "alice", "-c", "pegasus-doctor status --json; df -m /home/alice", check=False)[1]
        + machine("journalctl", "-u", UNIT)[1][-4000:]
    )


def jobs(machine: Machine) -> int:
    return sum(incidents(machine).values())


def test_the_whole_life_of_the_service(machine: Machine, flow: Flow) -> None:
    for number in range(5):
        flow.job(number, fails=True)
    said = machine("pegasus-doctor", "service", "install", "--system", "alice")[1]
    assert "started" in said, said
    assert machine.show(UNIT, "ActiveState") == "active" and "watching" in machine.show(UNIT, "StatusText")
    assert machine.show(UNIT, "User") == "alice"
    assert until(lambda: jobs(machine) == 5, 30), (incidents(machine), journal(machine))

    pid = machine.show(UNIT, "MainPID")
    machine("sh", "-c", f"kill -9 {pid}")
    for number in range(5, 9):
        flow.job(number, fails=True)
    assert until(lambda: machine.show(UNIT, "ActiveState") == "active" and machine.show(UNIT, "MainPID") not in ("0", pid), 30)
    assert until(lambda: jobs(machine) == 9, 30), incidents(machine)

    machine("mkdir", "-p", f"/etc/systemd/system/{UNIT}.d")
    machine("sh", "-c", f"printf '{DROP_IN}' > /etc/systemd/system/{UNIT}.d/quick.conf")
    machine("systemctl", "daemon-reload")
    machine("systemctl", "restart", UNIT)
    pid, restarts = machine.show(UNIT, "MainPID"), int(machine.show(UNIT, "NRestarts"))
    time.sleep(6)
    assert machine.show(UNIT, "MainPID") == pid, "a healthy daemon keeps the watchdog quiet"
    machine("sh", "-c", f"kill -STOP {pid}")
    assert until(lambda: int(machine.show(UNIT, "NRestarts")) > restarts and machine.show(UNIT, "ActiveState") == "active", 60)
    flow.job(9, fails=True)
    assert until(lambda: jobs(machine) == 10, 30), incidents(machine)

    machine("systemctl", "reload", UNIT)
    assert until(lambda: "read again" in machine("journalctl", "-u", UNIT, "-o", "cat")[1], 10)
    assert machine.show(UNIT, "ActiveState") == "active"
    fields = machine("journalctl", "-u", UNIT, "-o", "json", "DOCTOR_EVENT=opened")[1].splitlines()
    assert fields and json.loads(fields[-1])["DOCTOR_CAUSE"] == "dependency/python-package-missing"

    begun = time.monotonic()
    machine("systemctl", "stop", UNIT)
    assert time.monotonic() - begun < 5
    assert machine.show(UNIT, "Result") == "success"
    machine("pegasus-doctor", "service", "uninstall", "--system", "alice")
    assert machine("systemctl", "status", UNIT, check=False)[0] in (3, 4)
    assert machine("test", "-e", "/etc/systemd/system/pegasus-doctor@.service", check=False)[0] == 1


def test_units_are_clean_and_hardened(machine: Machine) -> None:
    machine("pegasus-doctor", "service", "install", "--system", "alice", "--no-start")
    code, text = machine("systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{UNIT}", check=False)
    if not text:
        code, text = machine("systemd-analyze", "verify", "--man=no", UNIT, check=False)
    assert code == 0 and "pegasus-doctor" not in text, text
    exposure = score(machine("systemd-analyze", "security", "--no-pager", UNIT, check=False)[1])
    print("exposure", exposure)
    assert exposure < 5.0
    machine("pegasus-doctor", "service", "uninstall", "--system", "alice")
