"""``python -m benchmarks heal``: from the failure event in a workflow's log to the rescue submitted, on a real pool.

The pool and the workflows are those of the tests (``tests/pool``). ``heal`` is started the moment that the
failure appears in jobstate.log. Between DAGMan's end and the rescue lies Pegasus' own wrapper around DAGMan,
which looks for that end every 15 s only; the doctor has to wait until it has left the queue.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

POLICY = 'mode = "act"\n'  # everything else as shipped
WHOLE_S, OWN_S = 10.0, 1.0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one repair: the whole, the wait for DAGMan's job to leave the queue, pegasus-run, and the rest."""

    whole: float
    waiting: float
    pegasus_run: float

    @property
    def own(self) -> float:
        return max(0.0, self.whole - self.waiting - self.pegasus_run)


@click.command("heal", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--times", default=3, show_default=True, help="Workflows that are broken and healed, one after the other.")
@click.option("--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to this file too.")
def heal(times: int, target: Path | None) -> None:
    """Measure how long a broken workflow waits for its rescue. Needs HTCondor or root on Debian or Ubuntu."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.pool.live import Doctor, user_folder
    from tests.pool.packages import PoolUnavailable
    from tests.pool.pool import Pool

    console = Console(highlight=False)
    try:
        base = user_folder("bench-")
        with Pool(base / "pool") as pool:
            doctor = Doctor(pool, base / "doctor")
            found = [_one(number, base, pool, doctor) for number in range(times + 1)][1:]  # the first compiles and warms up
        shutil.rmtree(base, ignore_errors=True)
    except PoolUnavailable as reason:
        click.echo(f"benchmarks heal: skipped, no pool: {reason}", err=True)
        return
    _show(found, console)
    if target is not None:
        rows = [{"whole": one.whole, "waiting": one.waiting, "pegasus_run": one.pegasus_run, "own": one.own} for one in found]
        target.write_text(json.dumps({"heal": rows}, indent=1) + "\n", "utf-8")


def _one(number: int, base: Path, pool: object, doctor: object) -> Times:
    """One workflow whose input has moved: broken, healed, timed."""
    from tests.pool.flows import COPY, one_step
    from tests.pool.live import Doctor, settle
    from tests.pool.pool import Pool

    assert isinstance(pool, Pool) and isinstance(doctor, Doctor)

    def moved(root: Path) -> None:
        (root / "archive").mkdir()
        shutil.move(root / "inputs/in.txt", root / "archive/in.txt")

    live = settle(one_step(f"bench{number}", COPY), base, pool, moved)
    policy, state = doctor.base / "policy.toml", doctor.base / "home" / live.flow.name
    policy.write_text(POLICY, "utf-8")
    live.submit()
    own = live.run / f"{live.dag}.dagman.log"
    failed = _when(live.run / "jobstate.log", lambda text: " POST_SCRIPT_FAILURE " in text)
    words = ["-m", "doctor", "heal", str(live.run), "--policy", str(policy), "--state", str(state), "--json", "--timeout", "240"]
    with subprocess.Popen(doctor.command(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=doctor.base) as healing:
        left = _when(own, lambda text: "\n005 (" in text)
        submitted = _when(own, lambda text: text.count("000 (") > 1)
        said = healing.communicate(timeout=300)[0]
    if healing.returncode:
        raise SystemExit(f"heal ended with {healing.returncode}: {said[-2000:]}")
    _, history = doctor.json("history", str(live.run), "--state", str(state), "--json")
    begun = next(float(entry["time"]) for entry in history["history"] if "intended" in entry["text"])
    return Times(submitted - failed, max(0.0, left - failed), max(0.0, submitted - begun))


def _when(path: Path, there: Callable[[str], bool], seconds: float = 240.0) -> float:
    """The time at which a log was seen to tell something."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        try:
            if there(path.read_text("utf-8", "replace")):
                return time.time()
        except FileNotFoundError:
            pass
        time.sleep(0.02)
    raise SystemExit(f"benchmarks heal: {path.name} did not tell in {seconds:.0f} s what was waited for")


def _show(found: list[Times], console: Console) -> None:
    table = Table(title="from the failure in jobstate.log to the rescue submitted (seconds)")
    for heading in ("", "whole", "waiting for DAGMan's job", "pegasus-run", "doctor"):
        table.add_column(heading, justify="right" if heading else "left")
    for number, one in enumerate(found, 1):
        table.add_row(f"workflow {number}", *(f"{value:.2f}" for value in (one.whole, one.waiting, one.pegasus_run, one.own)))
    console.print(table)
    for what, values, limit in (("whole", [one.whole for one in found], WHOLE_S), ("doctor", [one.own for one in found], OWN_S)):
        median = statistics.median(values)
        console.print(f"{'met   ' if median <= limit else 'missed'}  {what}: median {median:.2f} s, at most {limit:.0f} s wanted")
