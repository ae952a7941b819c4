"""Workflows for the small programs, and what must be true of them once they are repaired."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.builder import Builder, braindump, record

HERE = Path(__file__).parent
_NO_MEMORY = 'Traceback (most recent call last):\n  File "{0}.py", line 3, in <module>\nMemoryError'


@dataclass(frozen=True)
class Job:
    """``needs``: MB that it must ask for. ``held``: otherwise it is held in the queue; else it fails."""

    name: str
    needs: int
    held: bool = False
    stage: int = 0
    program: str = "step"


@dataclass(frozen=True)
class Kind:
    """A workflow with the repairs that it takes: rescues, edited submit files, and jobs changed in the queue."""

    jobs: tuple[Job, ...]
    rescues: int
    edited: int
    in_queue: int


KINDS = {
    "three jobs, one cause": Kind(tuple(Job(f"step_{n}", 200) for n in range(3)), rescues=1, edited=3, in_queue=0),
    "held in the queue": Kind((Job("fine_0", 50), Job("step_1", 200, held=True, stage=1)), rescues=0, edited=1, in_queue=1),
    "two causes": Kind((Job("step_0", 200), Job("other_1", 200, program="other")), rescues=1, edited=2, in_queue=0),
    "one after the other": Kind((Job("step_0", 200), Job("later_1", 200, stage=1, program="later")), rescues=2, edited=2, in_queue=0),
    "a rescue, then a hold": Kind((Job("step_0", 200), Job("last_1", 200, True, 1, "last")), rescues=1, edited=2, in_queue=1),
}


class Mill:
    """One run of a kind. ``slow_s``: how long pegasus-run takes before it submits."""

    def __init__(self, folder: Path, name: str, kind: Kind, slow_s: float = 0.1) -> None:
        self.kind = kind
        self.folder = folder
        self.run = folder / "runs" / name
        making = folder / "making" / name
        builder = Builder(making)
        for job in kind.jobs:
            submit = f'universe = vanilla\nrequest_memory = 100 MB\n+pegasus_wf_xformation = "{job.program}"\n'
            builder.job(job.name, transformation=job.program, submit=submit)
        identity = braindump(submit_dir=str(self.run)).replace("uuid-root", f"uuid-{name}").replace("uuid-wf", f"uuid-{name}")
        builder.files |= {"braindump.yml": identity, "demo-0.dag.condor.sub": "universe = scheduler\nqueue\n", "jobstate.log": ""}
        work = {
            "queue": str(folder / "queue"), "slow_s": slow_s,
            "ad": {"Owner": "sci", "pegasus_wf_uuid": f"uuid-{name}", "pegasus_root_wf_uuid": f"uuid-{name}"},
            "jobs": {job.name: {**vars(job), "good": record(condor="@CONDOR@"), "bad": _failed(job)} for job in kind.jobs},
        }  # fmt: skip
        builder.files["work.json"] = json.dumps(work)
        builder.write()
        (making / "demo-0.dag.dagman.out").unlink()
        (folder / "queue" / "numbers").mkdir(parents=True, exist_ok=True)
        self.run.parent.mkdir(exist_ok=True)
        shutil.move(making, self.run)

    def start(self) -> None:
        subprocess.run([self.folder / "bin" / "pegasus-run", self.run], check=True)

    def slow_down(self, seconds: float) -> None:
        """From now on pegasus-run takes so long before it submits."""
        work = json.loads(self.text("work.json"))
        (self.run / "work.json").write_text(json.dumps({**work, "slow_s": seconds}))

    # -- seeing -----------------------------------------------------------------------------------------

    def text(self, name: str) -> str:
        try:
            return (self.run / name).read_text()
        except FileNotFoundError:
            return ""

    @property
    def commands(self) -> list[str]:
        return self.text("commands.log").splitlines()

    @property
    def nobody_runs(self) -> bool:
        """Whether the queue is empty."""
        return not list((self.folder / "queue").glob("*.json"))

    @property
    def finished(self) -> bool:
        return self.text("jobstate.log").endswith("DAGMAN_FINISHED 0 ***\n")

    def requests(self) -> dict[str, int]:
        return {job.name: int(re.findall(r"\d+", self.text(f"00/00/{job.name}.sub"))[0]) for job in self.kind.jobs}

    def wrong(self) -> list[str]:
        """What was done twice, or not at all, or was left behind."""
        found = []
        starts = self.text("jobstate.log").count("DAGMAN_STARTED")
        for what, have, wanted in (
            ("pegasus-run", self.commands.count("run"), 1 + self.kind.rescues),
            ("starts of DAGMan", starts, 1 + self.kind.rescues),
            ("changes in the queue", sum(row.startswith("changed ") for row in self.commands), self.kind.in_queue),
            ("releases", sum(row.startswith("released ") for row in self.commands), self.kind.in_queue),
        ):
            if have != wanted:
                found.append(f"{what}: {have} instead of {wanted}")
        for name, asked in self.requests().items():
            wanted = 200 if name.split("_")[0] != "fine" else 100
            if asked != wanted:
                found.append(f"{name} asks for {asked} MB instead of {wanted}")
        found += [row for row in self.commands if row in ("held again", "another DAGMan is at work")]
        found += [f"left behind: {path.name}" for path in self.run.rglob("*.pegasus-doctor")]
        return found


def _failed(job: Job) -> str:
    return record(raw=256, stderr=_NO_MEMORY.format(job.program), condor="@CONDOR@")


def programs(folder: Path) -> Path:
    """A folder for PATH with the small programs."""
    place = folder / "bin"
    place.mkdir(parents=True, exist_ok=True)
    for name, line in (("pegasus-run", f'exec {sys.executable} -SE {HERE}/pegasus_run.py "$@"'), ("condor_submit", "exit 0")):
        (place / name).write_text(f"#!/bin/sh\n{line}\n")
        os.chmod(place / name, 0o755)
    return place
