"""A small world for the loop: a built run, a queue and a pegasus-run that write what the real ones would.

How a rescue ends is read from the run itself: a job whose submit file satisfies its ``needs`` text
succeeds, any other fails as before. So it behaves the same in a new process after a kill.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import actions
from doctor.diagnose.library import load
from doctor.diagnose.matcher import Matcher
from doctor.loop.policy import load_policy
from doctor.loop.seams import Event, Host, Seams
from doctor.loop.wiring import view_of
from doctor.repair import Finished
from doctor.run.paths import PathMap
from doctor.store import Store
from tests.builder import EPOCH, RECORDED, Builder, braindump, record

MEMORY_ERROR = 'Traceback (most recent call last):\n  File "step.py", line 3, in <module>\nMemoryError'
NETWORK = "curl: (7) Failed to connect to data.example.org port 443: Connection refused"
SUBMIT = "universe = vanilla\nrequest_memory = 100 MB\n"
POLICY = 'mode = "{mode}"\n[rescue]\nstart_within_s = {start}\nback_off_s = 0\n[verify]\npoll_s = 0.01\n{more}'


class FakeQueue:
    """DAGMan is in the queue while the file ``active`` says so; jobs as given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.released: list[str] = []

    def present(self, constraint: str) -> list[dict[str, Any]]:
        state = json.loads((self.folder / "queue.json").read_text())
        rows: list[dict[str, Any]] = state.get("jobs", [])
        if "JobUniverse == 7" in constraint:
            rows = [row for row in rows if row.get("JobUniverse") == 7]
        if "ClusterId ==" in constraint:
            rows = [row for row in rows if f"ClusterId == {row['ClusterId']} " in constraint + " "]
        return rows

    def get(self, job_id: str, attribute: str) -> str | None:
        found = [row for row in self.present("") if f"{row['ClusterId']}.{row['ProcId']}" == job_id]
        value = found[0].get(attribute) if found else None
        return None if value is None else str(value)

    def edit(self, job_id: str, attribute: str, value: str) -> None:
        self._change(job_id, attribute, value)

    def release(self, job_id: str, reason: str) -> None:
        self._change(job_id, "JobStatus", 1)

    def hold(self, job_id: str, reason: str) -> None:
        self._change(job_id, "JobStatus", 5)

    def _change(self, job_id: str, attribute: str, value: Any) -> None:
        state = json.loads((self.folder / "queue.json").read_text())
        for row in state["jobs"]:
            if f"{row['ClusterId']}.{row['ProcId']}" == job_id:
                row[attribute] = value
        (self.folder / "queue.json").write_text(json.dumps(state))


class FakeRun:
    """``pegasus-run``: appends what DAGMan and monitord would log for the rescue."""

    def __init__(self, world: World) -> None:
        self.world = world

    def run(self, argv: tuple[str, ...], timeout: float, cwd: str | None = None) -> Finished:
        with (self.world.folder / "commands.log").open("a") as log:
            log.write(" ".join(argv) + "\n")
        if (self.world.run / "monitord.pid").exists():
            return Finished(1, "", "Error: It looks like the workflow is already running!")
        if not self.world.broken_start:
            self.world.rescue()
        return Finished(0, "submitted", "")


class World:
    """One run below ``folder`` with jobs that fail until their submit files are as they should be."""

    def __init__(self, folder: Path, *, broken_start: bool = False, start_within: int = 30) -> None:
        self.folder = folder
        self.run = folder / "flow" / "run0001"
        self.broken_start = broken_start
        self.start_within = start_within

    # -- making ---------------------------------------------------------------------------------------

    def build(self, jobs: dict[str, tuple[str, str]], code: int = 1) -> World:
        """``jobs``: name -> (standard error, text that its submit file must hold for it to succeed)."""
        builder = Builder(self.run)
        for number, (name, (stderr, _)) in enumerate(jobs.items()):
            condor = f"{101 + number}.0"
            out = record(raw=code << 8, stderr=stderr, condor=condor)
            builder.job(
                name,
                transformation=f"step{number}",
                submit=SUBMIT + f'+pegasus_wf_xformation = "step{number}"\n',
                outputs={".out.000": out},
            )
            builder.fail(name, condor, code)
        builder.finish(1)
        count, names = len(jobs), ",".join(jobs)
        builder.files["demo-0.dag.rescue001"] = (
            "# Rescue DAG file, created after running\n#   the demo-0.dag DAG file\n#\n"
            f"# Total number of Nodes: {count}\n# Nodes premarked DONE: 0\n# Nodes that failed: {count}\n#   {names},<ENDLIST>\n\n"
        )
        builder.files["demo-0.dag.condor.sub"] = "universe = scheduler\nqueue\n"
        builder.files["braindump.yml"] = braindump().replace("uuid-root", "uuid-wf")
        builder.write()
        (self.folder / "needs.json").write_text(json.dumps({name: [needs, stderr, code] for name, (stderr, needs) in jobs.items()}))
        (self.folder / "queue.json").write_text(json.dumps({"jobs": []}))
        return self

    # -- what pegasus-run leads to ----------------------------------------------------------------------

    def rescue(self) -> None:
        needs = json.loads((self.folder / "needs.json").read_text())
        old = (self.run / "jobstate.log").read_text().splitlines()
        last = old[-1].split()
        clock, seq = int(last[0]), max(int(row.split()[-1]) for row in old if row.split()[-1].isdigit())
        rows = [f"{clock + 1} INTERNAL *** DAGMAN_STARTED 200.0 ***"]
        failed = 0
        succeeded = {row.split()[1] for row in old if "POST_SCRIPT_SUCCESS" in row}
        for name, (text, stderr, code) in needs.items():
            if name in succeeded:
                continue
            seq += 1
            good = bool(text) and text in (self.run / "00" / "00" / f"{name}.sub").read_text()
            failed += not good
            verdict = ["JOB_SUCCESS 0", "POST_SCRIPT_SUCCESS 0"] if good else [f"JOB_FAILURE {code}", "POST_SCRIPT_FAILURE 1"]
            for state in ("SUBMIT 201.0", "EXECUTE 201.0", *verdict):
                clock += 1
                rows.append(f"{clock} {name} {state} condorpool - {seq}")
            number = len(list((self.run / "00" / "00").glob(f"{name}.out.*")))
            out = record(raw=0, condor="201.0") if good else record(raw=code << 8, stderr=stderr, condor="201.0")
            (self.run / "00" / "00" / f"{name}.out.{number:03d}").write_text(out)
        status = 1 if failed else 0
        rows.append(f"{clock + 1} INTERNAL *** DAGMAN_FINISHED {status} ***")
        with (self.run / "jobstate.log").open("a") as log:
            log.write("\n".join(rows) + "\n")
        with (self.run / "demo-0.dag.dagman.out").open("a") as log:
            log.write("11/20/26 22:00:00 ** condor_scheduniv_exec.200.0 (CONDOR_DAGMAN) STARTING UP\n")
            log.write(f"11/20/26 22:01:00 **** condor_scheduniv_exec.200.0 (condor_DAGMAN) pid 6 EXITING WITH STATUS {status}\n")

    # -- seeing -----------------------------------------------------------------------------------------

    def seams(
        self, mode: str = "act", more: str = "", *, yes: bool = False, tell: Callable[[Event], None] | None = None,
        policy: Path | None = None, process: Callable[[int], str | None] = lambda pid: None, matcher: Matcher | None = None, **changes: Any,
    ) -> Seams:  # fmt: skip
        file = policy or self.folder / "policy.toml"
        if policy is None:
            file.write_text(POLICY.format(mode=mode, more=more, start=self.start_within))
        values: dict[str, Any] = {
            "store": changes["store"] if "store" in changes else Store(self.folder / "state", changes.get("clock", time.time)),
            "policy": load_policy(file),
            "actions": {action.name: action for action in actions.ACTIONS},
            "matcher": matcher or Matcher(load()),
            "queue": FakeQueue(self.folder),
            "processes": FakeRun(self),
            "host": Host(lambda name: f"/usr/bin/{name}", process, "submit.example.org"),
            "view": view_of,
            "diff": actions.diff,
            "clock": time.time,
            "sleep": lambda seconds: time.sleep(min(seconds, 0.02)),
            "tell": tell or (lambda event: None),
            "maps": PathMap.parse((f"/data/flows/demo={self.folder / 'flow'}",)),
            "yes": yes,
        }
        return Seams(**{**values, **changes})

    @property
    def commands(self) -> list[str]:
        path = self.folder / "commands.log"
        return path.read_text().splitlines() if path.exists() else []

    def text(self, name: str) -> str:
        return (self.run / "00" / "00" / f"{name}.sub").read_text()


__all__ = ["EPOCH", "MEMORY_ERROR", "NETWORK", "RECORDED", "FakeQueue", "FakeRun", "World"]
