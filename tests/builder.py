"""A small run directory as Pegasus, DAGMan and kickstart would write it, for tests that need one exact fact."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doctor.run.files import Ledger
from doctor.run.paths import PathMap
from doctor.run.reader import Run, open_run

RECORDED = "/data/flows/demo/runs/run0001"
EPOCH = 1_795_208_000


def braindump(dag: str = "demo-0.dag", submit_dir: str = RECORDED, label: str = "demo") -> str:
    stem = dag.removesuffix(".dag")
    pairs = {
        "user": "sci", "submit_hostname": "submit.example.org", "root_wf_uuid": "uuid-root", "wf_uuid": "uuid-wf",
        "dax": "/data/flows/demo/workflow.yml", "dax_label": label, "dax_index": "0", "dax_version": "5.0.4",
        "pegasus_wf_name": stem, "timestamp": "20261120T210008+0000", "basedir": "/data/flows/demo/runs",
        "submit_dir": submit_dir, "planner": "/usr/bin/pegasus-plan", "planner_version": "5.1.3", "pegasus_build": "x",
        "planner_arguments": "--sites condorpool", "jsd": "jobstate.log", "rundir": "run0001", "bindir": "/usr/bin",
        "vogroup": "pegasus", "uses_pmc": "false", "properties": "pegasus.1.properties", "condor_log": f"{stem}.log",
        "dag": dag, "type": "dag", "notify": f"{stem}.notify",
    }  # fmt: skip
    return "".join(f'{key}: "{value}"\n' for key, value in pairs.items()) + "grid_dn: null\n"


def record(
    *,
    raw: int = 0,
    status: str = "",
    stderr: str = "",
    stdout: str = "",
    condor: str = "101.0",
    extra_files: str = "",
    complete: bool = True,
) -> str:
    """One kickstart document. ``status`` replaces the line that follows ``raw``."""
    verdict = status or f"      regular_exitcode: {raw >> 8}\n"
    blocks = ""
    for name, text in (("stdout", stdout), ("stderr", stderr)):
        body = "".join(f"        {line}\n" for line in text.split("\n")) if text else ""
        blocks += f"    {name}:\n      temporary_name: /tmp/ks.{name}\n      size: {len(text)}\n"
        blocks += f"      data_truncated: false\n      data: |\n{body}" if text else ""
    head = (
        '- invocation: True\n  version: 3.0\n  duration: 0.086\n  transformation: "step"\n  derivation: "x1"\n'
        f"  mainjob:\n    pid: 7\n    usage:\n      maxrss: 11672\n    status:\n      raw: {raw}\n{verdict}"
        "    executable:\n      file_name: /usr/bin/step\n      mode: 0o100755\n"
        '    argument_vector:\n      - "--mode"\n      - "run"\n    procs:\n'
        f"  jobids:\n    condor: {condor}\n  machine:\n    uname_nodename: node1\n    ram_total: 24684092\n"
    )
    return head + (f"  files:\n{extra_files}{blocks}" if complete else "")


def event(number: int, condor_id: str, heading: str, *body: str, when: str = "2026-11-20 21:23:12") -> str:
    cluster, proc = condor_id.split(".")
    return f"{number:03d} ({cluster}.{int(proc):03d}.000) {when} {heading}\n" + "".join(f"\t{line}\n" for line in body) + "...\n"


@dataclass
class Job:
    """One node of the DAG under construction."""

    name: str
    transformation: str = "step"
    job_class: int = 1
    parents: tuple[str, ...] = ()
    states: list[str] = field(default_factory=list)
    submit: str = ""
    outputs: dict[str, str] = field(default_factory=dict)  # suffix such as ".out.000" -> text


class Builder:
    """Collects jobs and files, then writes them below one folder."""

    def __init__(self, folder: Path, dag: str = "demo-0.dag") -> None:
        self.folder = folder
        self.dag = dag
        self.jobs: list[Job] = []
        self.events = ""
        self.jobstate: list[str] = [f"{EPOCH} INTERNAL *** MONITORD_STARTED ***", f"{EPOCH} INTERNAL *** DAGMAN_STARTED 100.0 ***"]
        self.dagman = ["11/20/26 21:22:40 ** condor_scheduniv_exec.100.0 (CONDOR_DAGMAN) STARTING UP"]
        self.files: dict[str, str | bytes] = {}
        self._seq = 0
        self._clock = EPOCH

    def job(self, name: str, **details: Any) -> Job:
        job = Job(name, **details)
        self.jobs.append(job)
        return job

    def attempt(self, name: str, *states: str, condor: str = "-", site: str = "condorpool") -> None:
        """States such as ``SUBMIT`` or ``JOB_FAILURE=1``, one submit counter for all of them."""
        self._seq += 1
        for state in states:
            self._clock += 1
            word, sign, value = state.partition("=")
            self.jobstate.append(f"{self._clock} {name} {word} {value if sign else condor} {site} - {self._seq}")

    def succeed(self, name: str, condor: str = "101.0") -> None:
        self.attempt(
            name, "SUBMIT", "EXECUTE", "JOB_TERMINATED", "JOB_SUCCESS=0", "POST_SCRIPT_STARTED", "POST_SCRIPT_SUCCESS=0", condor=condor
        )

    def fail(self, name: str, condor: str = "101.0", code: int = 1) -> None:
        self.attempt(
            name,
            "SUBMIT",
            "EXECUTE",
            "JOB_TERMINATED",
            f"JOB_FAILURE={code}",
            "POST_SCRIPT_STARTED",
            "POST_SCRIPT_FAILURE=1",
            condor=condor,
        )

    def finish(self, status: int) -> None:
        self._clock += 1
        self.jobstate.append(f"{self._clock} INTERNAL *** DAGMAN_FINISHED {status} ***")
        self.dagman.append(f"11/20/26 21:23:40 **** condor_scheduniv_exec.100.0 (condor_DAGMAN) pid 5 EXITING WITH STATUS {status}")

    def write(self) -> Path:
        place = self.folder / "00" / "00"
        place.mkdir(parents=True, exist_ok=True)
        stem = self.dag.removesuffix(".dag")
        rows = []
        for job in self.jobs:
            rows += [f"JOB {job.name} 00/00/{job.name}.sub", f"RETRY {job.name} 1"]
            submit = job.submit or f'universe = vanilla\n+pegasus_wf_xformation = "{job.transformation}"\n'
            submit += f'+pegasus_job_class = {job.job_class}\n+pegasus_site = "condorpool"\nqueue\n'
            (place / f"{job.name}.sub").write_text(submit)
            for suffix, text in job.outputs.items():
                (place / f"{job.name}{suffix}").write_text(text)
        rows += [f"PARENT {parent} CHILD {job.name}" for job in self.jobs for parent in job.parents]
        texts: dict[str, str | bytes] = {
            "braindump.yml": braindump(self.dag),
            self.dag: "\n".join(rows) + "\n",
            "jobstate.log": "\n".join(self.jobstate) + "\n",
            f"{stem}.dag.dagman.out": "\n".join(self.dagman) + "\n",
            f"{stem}.log": self.events,
            **self.files,
        }
        for name, text in texts.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        return self.folder

    def open(self, ledger: Ledger | None = None, maps: PathMap | None = None) -> Run:
        return open_run(self.write(), ledger or Ledger(), maps)
