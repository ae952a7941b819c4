"""Workflows that break in one way each, and the moment at which `pegasus-doctor heal` is called."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.e2e.crashing import DRIVER
from tests.pool.fleet import Outcome, Scenario, unmount
from tests.pool.flow import Task
from tests.pool.flows import COPY, FLOWS, one_step
from tests.pool.live import Doctor, Live, give, state_of
from tests.pool.real import MISSING, real

CAP_MB = 1024
ACT = f"""\
mode = "act"
[caps]
memory_mb = {CAP_MB}
[rescue]
back_off_s = 1
[verify]
poll_s = 2
"""
TIGHT = ACT.replace(f"memory_mb = {CAP_MB}", "memory_mb = 150")
LONG_HOLD = 900  # seconds: a held job stays until somebody does something about it

_PYTHON = "#!/usr/bin/env python3\nimport os, sys, time\n"
_DONE = "\nopen(sys.argv[2], 'w').write(open(sys.argv[1]).read())\n"
_GREEDY = (
    _PYTHON
    + """\
block = bytearray(200 << 20)
for at in range(0, len(block), 4096):
    block[at] = 1
slot = next(int(line.split("=")[1]) for line in open(os.environ["_CONDOR_MACHINE_AD"]) if line.startswith("Memory ="))
time.sleep(120 if slot < 200 else 1)  # where the slot is too small there is time to be caught
"""
    + _DONE
)
_SLEEPY = "#!/bin/sh\nsleep 300\ncat $1 > $2\n"


def _task(**more: object) -> Task:
    return Task("one", "step", ("in.txt",), ("out.txt",), ("in.txt", "out.txt"), **more)  # type: ignore[arg-type]


def held(live: Live) -> None:
    live.wait_state("step_one", "JOB_HELD")


# -- what is recovered --------------------------------------------------------------------------------------


def _undo(outcome: Outcome, doctor: Doctor) -> None:
    """Takes everything back, and keeps what the folder is like afterwards."""
    found = [doctor.json("undo", incident["id"], "--state", str(outcome.state), "--json") for incident in outcome.document["incidents"]]
    outcome.notes["undo"] = found
    outcome.notes["undone"] = state_of(outcome.live.root.parent)


def _rehearse(outcome: Outcome, doctor: Doctor) -> None:
    """A dry run before the real one."""
    outcome.live.wait_gone()
    place = outcome.live.root.parent
    before = state_of(place)
    outcome.notes["dry"] = outcome.heal(doctor, "--dry-run")
    outcome.notes["changed"] = sorted(key for key in before.keys() | state_of(place).keys() if before.get(key) != state_of(place).get(key))
    outcome.notes["state made"] = outcome.state.exists()
    outcome.notes["starts"] = outcome.live.jobstate().count("DAGMAN_STARTED")


def _again(outcome: Outcome, doctor: Doctor) -> None:
    """A second heal, which has nothing to do."""
    before = state_of(outcome.live.root.parent)
    outcome.notes["again"] = outcome.heal(doctor, timeout=60)
    after = state_of(outcome.live.root.parent)
    outcome.notes["changed again"] = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _then(*steps):  # type: ignore[no-untyped-def]
    def both(outcome: Outcome, doctor: Doctor) -> None:
        for step in steps:
            step(outcome, doctor)

    return both


def _not_executable(root: Path) -> None:
    (root / "bin/step").chmod(0o644)


def _moved(root: Path) -> None:
    (root / "archive").mkdir()
    shutil.move(root / "inputs/in.txt", root / "archive/in.txt")


_HELPED = _PYTHON + "import wavelets_local\n" + _DONE
_CRLF = COPY.replace("\n", "\r\n")
_NETWORK = (
    _PYTHON
    + """\
mark = "@ROOT@/inputs/tries"
if not os.path.exists(mark):
    open(mark, "w").write("1")
    raise ConnectionResetError(104, "Connection reset by peer")
"""
    + _DONE
)
_SUBDIRECTORY = _PYTHON + "open('results/summary.txt', 'w').write('ok')\n" + _DONE

RECOVERED = (
    Scenario("memory-in-queue", one_step("memq", _GREEDY, task=_task(memory_mb=64), hold_seconds=LONG_HOLD), ready=held, policy=ACT),
    Scenario("memory-after-the-end", one_step("memd", _GREEDY, task=_task(memory_mb=64), hold_seconds=3), policy=ACT, then=_undo),
    Scenario(
        "allowed-duration",
        one_step("long", "#!/bin/sh\nsleep 14\ncat $1 > $2\n", task=_task(submit={"allowed_job_duration": "10"}), hold_seconds=LONG_HOLD),
        ready=held,
        policy=ACT,
    ),
    Scenario("execute-bit", one_step("xbit", COPY, installed=frozenset({"step"})), before=_not_executable, policy=ACT, then=_undo),
    Scenario("crlf", one_step("crlf", _CRLF), policy=ACT, first=_rehearse, then=_undo),
    Scenario(
        "helper-module", one_step("helper", _HELPED, files={"bin/wavelets_local.py": "LEVELS = 3\n"}), policy=ACT, then=_then(_again, _undo)
    ),
    Scenario("transient-network", one_step("net", _NETWORK), policy=ACT, slow=True),
    Scenario("moved-input", one_step("moved", COPY), before=_moved, policy=ACT, then=_undo),
    Scenario("output-subdirectory", one_step("subdir", _SUBDIRECTORY), policy=ACT, then=_undo),
)

# -- what is handed to a person -----------------------------------------------------------------------------


def _message(text: str, code: int = 1) -> str:
    return f"#!/bin/sh\necho '{text}' >&2\nexit {code}\n"


def held_by_person(live: Live) -> None:
    live.wait_state("step_one", "EXECUTE")
    live.pool.condor("condor_hold", live.queue_id("step_one"))
    held(live)


def removed(live: Live) -> None:
    live.wait_state("step_one", "EXECUTE")
    live.pool.condor(str(live.home / "bin/pegasus-remove"), str(live.run))
    live.wait_end()


def _small_disk(root: Path) -> None:
    """Output storage of 64 KB; without the right to mount, its absence shows in the test as a skip."""
    words = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "tmpfs", str(root / "output")]
    if os.geteuid() == 0:
        subprocess.run(words, capture_output=True, check=False)


def _unmount(outcome: Outcome, doctor: Doctor) -> None:
    outcome.notes["mounted"] = os.path.ismount(outcome.live.root / "output")
    unmount(outcome.live.root / "output")


def _corrupt(run: Path) -> None:
    root = run.parents[4]
    (root / "inputs/in.txt").write_text("hallo\n")


def _still_held(outcome: Outcome, doctor: Doctor) -> None:
    outcome.notes["held"] = outcome.live.queue_id("step_one")
    outcome.live.remove()


ESCALATED = (
    Scenario("application-error", one_step("app", _message("solver: error: residual diverged at step 12", 4)), policy=ACT),
    Scenario("missing-package", one_step("package", "#!/usr/bin/env python3\nimport netCDF5\n"), policy=ACT),
    Scenario("segfault", one_step("segv", "#!/bin/sh\nkill -SEGV $$\n"), policy=ACT),
    Scenario(
        "person-hold", one_step("person", _SLEEPY, hold_seconds=LONG_HOLD), ready=held_by_person, policy=ACT, timeout=20, then=_still_held
    ),
    Scenario("removed-workflow", one_step("removed", _SLEEPY), ready=removed, policy=ACT),
    Scenario("memory-beyond-cap", one_step("memcap", _GREEDY, task=_task(memory_mb=64), hold_seconds=3), policy=TIGHT),
    Scenario("memory-error", one_step("memerr", _PYTHON + "raise MemoryError\n"), policy=ACT, then=_again, slow=True),
    Scenario(
        "output-storage-full", one_step("full", "#!/bin/sh\nhead -c 300000 /dev/zero > $2\n"), before=_small_disk, policy=ACT, then=_unmount
    ),
    Scenario(
        "licence-server",
        one_step("licence", _message("FlexNet Licensing error:-15,570. Cannot connect to license server system.")),
        policy=ACT,
    ),
    Scenario("corrupted-input", one_step("corrupt", COPY, "nonsharedfs", integrity=True), after=_corrupt, policy=ACT),
)

# -- where nothing may be done ------------------------------------------------------------------------------


def running(live: Live) -> None:
    live.wait_state("step_one", "EXECUTE")


def _remove(outcome: Outcome, doctor: Doctor) -> None:
    outcome.notes["ends"] = outcome.live.ends()
    outcome.live.remove()


def _foreign_link(root: Path) -> None:
    """The program is a link to a file of somebody else's, outside of everything that the doctor may change."""
    outside = root.parent / "elsewhere"
    outside.mkdir()
    (outside / "step").write_text(COPY)
    (outside / "step").chmod(0o644)
    (root / "bin/step").unlink()
    os.symlink(outside / "step", root / "bin/step")
    give(outside)


def _outside(root: Path) -> None:
    (root.parent / "elsewhere").mkdir()
    give(root.parent / "elsewhere")


_ELSEWHERE = "{'@ROOT@'.rpartition('/')[0]}/elsewhere"
_WRITES_OUTSIDE = _PYTHON + f"open(f{_ELSEWHERE + '/deep/result.txt'!r}, 'w').write('x')\n"
_CLIMBS = _PYTHON + "open('../../../../../../etc/cron.d/results/x.txt', 'w').write('x')\n"
_SAYS = (
    _PYTHON
    + """\
print("ModuleNotFoundError: No module named '../../../../tmp/evil'", file=sys.stderr)
print("bash: $(touch @ROOT@/pwned): No such file or directory", file=sys.stderr)
print("cannot open `touch @ROOT@/pwned`; rm -rf @ROOT@ : Permission denied", file=sys.stderr)
sys.exit(1)
"""
)


def _secret_helper(root: Path) -> None:
    """The helper beside the program is a link to a file that is none of the workflow's business."""
    _outside(root)
    (root.parent / "elsewhere/wavelets_local.py").write_text("SECRET = 42\n")
    os.symlink(root.parent / "elsewhere/wavelets_local.py", root / "bin/wavelets_local.py")


HOSTILE = (
    Scenario("hostile-link", one_step("hlink", COPY, installed=frozenset({"step"})), before=_foreign_link, policy=ACT),
    Scenario("hostile-path", one_step("hpath", _WRITES_OUTSIDE), before=_outside, policy=ACT),
    Scenario("hostile-climb", one_step("hclimb", _CLIMBS), before=_outside, policy=ACT),
    Scenario("hostile-words", one_step("hwords", _SAYS), before=_outside, policy=ACT),
    Scenario("hostile-helper", one_step("hhelp", _HELPED), before=_secret_helper, policy=ACT),
)

UNTOUCHED = (
    Scenario("healthy-run", one_step("fine", COPY), policy=ACT),
    Scenario("running-run", one_step("busy", _SLEEPY), ready=running, policy=ACT, timeout=5, then=_remove),
)

# -- kill -9 ------------------------------------------------------------------------------------------------

ASK = ACT.replace('"act"', '"ask"')
ASKED_POINTS = ("open", "diagnosed", "planned", "waiting")
POINTS = ("acting", "intended", "done", "rescuing", "verifying")


def _killed(outcome: Outcome, doctor: Doctor) -> None:
    """One heal after another is killed, each at the next point, until the last may do its work."""
    outcome.live.wait_gone()
    codes = {}
    for point in (*ASKED_POINTS, *POINTS):
        words = [
            "-c",
            DRIVER,
            point,
            "heal",
            str(outcome.live.run),
            "--policy",
            str(outcome.policy),
            "--state",
            str(outcome.state),
            "--json",
        ]
        words += ["--yes"] if point in POINTS else []
        done = subprocess.run(doctor.command(words), capture_output=True, text=True, timeout=200, cwd=doctor.base, check=False)
        codes[point] = (done.returncode, done.stdout[-300:] + done.stderr[-600:])
    outcome.notes["killed"] = codes
    outcome.code, outcome.document = outcome.heal(doctor, "--yes")
    outcome.notes["history"] = doctor("history", str(outcome.live.run), "--state", str(outcome.state)).stdout


CRASHES = (Scenario("killed-at-every-state", one_step("killed", _CRLF), policy=ASK, first=_killed, slow=True),)

# -- the same with the real planner -------------------------------------------------------------------------

REAL_PREFIX = "real-"
WITH_REAL = (
    *("healthy-condorio", "healthy-sharedfs", "healthy-nonsharedfs", "healthy-sub-workflow", "healthy-run", "running-run"),
    *("memory-in-queue", "memory-after-the-end", "allowed-duration", "execute-bit", "crlf", "helper-module", "moved-input"),
    *("output-subdirectory", "application-error", "missing-package", "segfault", "person-hold", "memory-beyond-cap"),
    *("licence-server", "corrupted-input", "removed-workflow", "memory-error", "output-storage-full", "transient-network"),
    *(one.name for one in HOSTILE),
)
REAL = tuple(
    replace(one, name=REAL_PREFIX + one.name, planner=real, missing=MISSING)
    for one in (*FLOWS, *RECOVERED, *ESCALATED, *HOSTILE, *UNTOUCHED)
    if one.name in WITH_REAL
)

SCENARIOS: tuple[Scenario, ...] = (*RECOVERED, *ESCALATED, *HOSTILE, *UNTOUCHED, *CRASHES, *REAL)
