"""The service under a real systemd: install, readiness, kill -9, watchdog, reload, what it can do, stop, uninstall."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

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
    give(machine, machine.share / "flows")
    config = (
        'discovery.folders = ["/mnt/flows"]\ndiscovery.every_s = 1\npolling.settle_s = 1\nlimits.healers = 0\nlimits.free_space_mb = 1\n'
    )
    machine("mkdir", "-p", "/home/alice/.config/pegasus-doctor", "/etc/pegasus-doctor")
    machine("sh", "-c", f"printf '%s' '{config}' > /home/alice/.config/pegasus-doctor/config.toml; chown -R alice /home/alice/.config")
    machine("sh", "-c", "echo json://127.0.0.1:9/x > /etc/pegasus-doctor/notify.alice; chmod 600 /etc/pegasus-doctor/notify.alice")
    return made


def give(machine: Machine, folder: Path) -> None:
    """A tree for alice, from outside."""
    uid = int(machine("id", "-u", "alice")[1])
    for base, folders, files in os.walk(folder):
        for name in (base, *(os.path.join(base, one) for one in (*folders, *files))):
            os.chown(name, uid, uid)


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


def test_the_sandbox_lets_it_do_its_work_and_no_more(machine: Machine) -> None:
    """Repairs of the user's own files anywhere, HTCondor's and the planner's needs; without a file of credentials, too."""
    for command in (
        "groupadd -f proj && usermod -aG proj alice",
        "mkdir -p /scratch/alice /home/alice/flow /tmp/alice",
        "for d in /home/alice/flow /scratch/alice /tmp/alice; do echo 'request_memory = 100' > $d/job.sub; done",
        "chown alice:proj /home/alice/flow/job.sub /scratch/alice/job.sub /tmp/alice/job.sub",
        "chmod 640 /home/alice/flow/job.sub && chown alice /home/alice/flow /scratch/alice /tmp/alice",
        "rm -f /etc/pegasus-doctor/notify.alice",
    ):
        machine("sh", "-c", command)
    shutil.copy(Path(__file__).with_name("sandbox.py"), machine.share)
    probes = machine.share / "probes"
    probes.mkdir()
    give(machine, probes)
    pre = f"ExecStartPre=/usr/bin/env PYTHONPATH=/opt/doctor {machine.python} /mnt/sandbox.py /mnt/probes/found.json"
    machine("mkdir", "-p", f"/etc/systemd/system/{UNIT}.d")
    machine("sh", "-c", f"printf '[Service]\\n{pre}\\n' > /etc/systemd/system/{UNIT}.d/probe.conf")
    # Shared memory of a batch job: there is no session of the user, and logind does not tidy up behind one either.
    logind = "[Login]\\nRemoveIPC=no\\n"
    machine("sh", "-c", f"mkdir -p /etc/systemd/logind.conf.d; printf '{logind}' > /etc/systemd/logind.conf.d/ipc.conf")
    machine("systemctl", "restart", "systemd-logind")
    machine("systemctl", "stop", "user@1000.service")
    machine("sh", "-c", "echo mine > /dev/shm/segment; chown alice /dev/shm/segment")
    try:
        machine("pegasus-doctor", "service", "install", "--system", "alice")
        found = json.loads((probes / "found.json").read_text())
        for place, mode in (("home", "640"), ("scratch", "644"), ("tmp", "644")):
            assert found[place] == ["alice", "proj", mode, "request_memory = 200", "alice", "644"], (place, found[place])
        assert found["memory"] is True and "lo" in found["addresses"] and found["families"] == [None] * 3, found
        assert found["child"] == ["0022", "644", "alice", ""], found
        assert found["user"] == ["alice", "/home/alice"] and found["priority"] == [10, 3]
        assert found["system"] == ["OSError"] * 3 or "written" not in found["system"], found["system"]
        assert "Error" in found["packets"], "no raw packets"
        assert found["credential"] == "#", "nothing to send to where there is no file"

        machine("sh", "-c", "mkdir -p /etc/pegasus-doctor; echo json://127.0.0.1:9/x > /etc/pegasus-doctor/notify.alice")
        machine("chmod", "600", "/etc/pegasus-doctor/notify.alice")
        machine("sh", "-c", "sed -i s/200/100/ /home/alice/flow/job.sub; rm -f /home/alice/flow/new.sub")
        machine("systemctl", "restart", UNIT)
        assert json.loads((probes / "found.json").read_text())["credential"] == "json://127.0.0.1:9/x"
        mode = machine("stat", "-c", "%a", "/home/alice/.local/state/pegasus-doctor", "/home/alice/.local/state/pegasus-doctor/doctor.db")[
            1
        ]
        assert mode.split() == ["700", "600"], "the state is private whatever the umask"
    finally:
        machine("pegasus-doctor", "service", "uninstall", "--system", "alice")
        machine("rm", "-r", f"/etc/systemd/system/{UNIT}.d")
    assert machine("cat", "/dev/shm/segment")[1].strip() == "mine", "what else the user runs keeps its shared memory"


def test_a_service_of_ones_own_session(machine: Machine, flow: Flow) -> None:
    machine("loginctl", "enable-linger", "alice")
    own = ("su", "alice", "-c")
    manager = "XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user"
    assert until(lambda: machine(*own, f"{manager} is-system-running", check=False)[1].strip() in ("running", "degraded"), 30)

    def show(name: str) -> str:
        return machine(*own, f"{manager} show -P {name} pegasus-doctor.service")[1].strip()

    before = jobs(machine)
    said = machine(*own, "pegasus-doctor service install --user")[1]
    assert "started pegasus-doctor.service: it watches" in said and "linger" not in said, said
    pid = show("MainPID")
    assert show("ActiveState") == "active" and show("Type") == "notify" and "watching" in show("StatusText")
    code, text = machine(*own, "pegasus-doctor service status")
    assert code == 0 and "active (running), enabled" in text and f"pid {pid}" in text
    flow.job(20, fails=True)
    assert until(lambda: jobs(machine) == before + 1, 30), incidents(machine)
    machine("sh", "-c", f"kill -9 {pid}")
    flow.job(21, fails=True)
    assert until(lambda: show("ActiveState") == "active" and show("MainPID") not in ("0", pid), 30)
    assert until(lambda: jobs(machine) == before + 2, 30), incidents(machine)
    machine(*own, f"{manager} reload pegasus-doctor.service")
    assert until(lambda: "read again" in machine(*own, "pegasus-doctor status --json", check=False)[1], 20)
    verify = machine(*own, "systemd-analyze --user verify --man=no /home/alice/.config/systemd/user/pegasus-doctor.service", check=False)
    assert verify[0] == 0 and "pegasus-doctor" not in verify[1], verify
    begun = time.monotonic()
    said = machine(*own, "pegasus-doctor service uninstall --user")[1]
    assert time.monotonic() - begun < 10 and "stopped and disabled" in said and "removed" in said
    assert machine(*own, "pegasus-doctor service status", check=False)[0] == 4
    assert machine(*own, "pegasus-doctor status", check=False)[0] == 1
    assert "not installed" in machine(*own, "pegasus-doctor service uninstall")[1]
