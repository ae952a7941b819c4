"""One situation for every action, on a real run directory: name -> maker of (world, incident, parameters)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from doctor.model import Incident

from .world import Made, World, incident, recorded

Situation = tuple[World, Incident, dict[str, Any]]


def staged(world: World, name: str, source: str) -> Path:
    """The copy of a program that a stage-in job of a condorio run made in scratch."""
    place = world.root / "scratch" / world.submit.relative_to(world.root / "runs")
    place.mkdir(parents=True, exist_ok=True)
    copy = place / name
    copy.write_bytes((world.root / "bin" / source).read_bytes())
    copy.chmod(0o755)
    return copy


def release_held(folder: Path) -> Situation:
    world = recorded("memory-hold-condorio", folder)
    world.hold("assay_merge", 13, 2)
    return world, incident("assay_merge", "network/network-transient"), {}


def raise_memory(folder: Path) -> Situation:
    world = recorded("memory-hold-condorio", folder)
    world.hold("assay_merge", 21, 102, RequestMemory="200")
    return world, incident("assay_merge", "resources/memory-exceeded-hold"), {"at_least_mb": "616", "requested_mb": "200"}


def raise_disk(folder: Path) -> Situation:
    world = recorded("memory-hold-condorio", folder)
    return world, incident("assay_merge", "resources/disk-exceeded-hold"), {"job": "assay_merge"}


def raise_walltime(folder: Path) -> Situation:
    return recorded("walltime-hold-sharedfs", folder), incident("stepper_warm", "resources/walltime-exceeded-hold"), {}


def make_executable(folder: Path) -> Situation:
    world = recorded("crlf-script-condorio", folder)
    (world.root / "bin" / "kernel.py").chmod(0o640)
    return world, incident("kernel_north", "permissions/executable-not-executable"), {"file": str(world.root / "bin" / "kernel.py")}


def normalise_line_endings(folder: Path) -> Situation:
    world = recorded("crlf-script-condorio", folder)
    staged(world, "kernel", "kernel.py")
    return world, incident("kernel_north", "user-code/crlf-line-endings"), {"job": "kernel_north"}


def add_input_file(folder: Path) -> Situation:
    world = recorded("undeclared-helper-condorio", folder)
    staged(world, "filter_x", "filter_x.py")
    helper = str(world.root / "bin" / "wavelib.py")
    return world, incident("filter_x_norm", "dependency/undeclared-helper-file"), {"lfn": "wavelib.py", "pfn": helper}


def update_replica(folder: Path) -> Situation:
    world = recorded("moved-input-sharedfs", folder)
    return world, incident("stage_in_local_condorpool_0_0", "staging/input-moved"), {
        "lfn": "probe.dat", "pfn": str(world.root / "data" / "probe.dat"),
    }  # fmt: skip


def create_output_directory(folder: Path) -> Situation:
    world = recorded("walltime-hold-sharedfs", folder)
    (world.root / "pscratch" / "pool" / world.submit.relative_to(world.root / "runs")).mkdir(parents=True)
    return world, incident("stepper_warm", "user-code/output-subdirectory-missing"), {"path": "results/plots"}


def _planner(world: World) -> World:
    """A planner on the host, which notes its arguments."""
    tools = world.root / "bin-pegasus"
    tools.mkdir()
    (tools / "pegasus-plan").write_text("#!/bin/sh\n")
    (tools / "pegasus-plan").chmod(0o755)
    braindump = world.submit / "braindump.yml"
    braindump.write_text(braindump.read_text().replace("/usr/local/pegasus/bin", str(tools)))
    return world


def enable_cleanup(folder: Path) -> Situation:
    world = _planner(recorded("scratch-full-no-cleanup-sharedfs", folder))
    return world, incident("bulk_stage2", "disk/cleanup-disabled"), {}


def bypass_image_staging(folder: Path) -> Situation:
    world = _planner(recorded("scratch-full-no-cleanup-sharedfs", folder))
    return world, incident("bulk_stage2", "disk/image-copies"), {}


def namespace_output(folder: Path) -> Situation:
    world = _planner(recorded("moved-input-sharedfs", folder))
    return world, incident("", "collision/output-overwritten"), {}


def exclude_host(folder: Path) -> Situation:
    return recorded("walltime-hold-sharedfs", folder), incident("stepper_warm", "infrastructure/bad-node", host="node7.example.org"), {}


def lower_request(folder: Path) -> Situation:
    world = recorded("unmatchable-request-condorio", folder)
    (job,) = [job.name for job in world.view().jobs.values() if job.site == "condorpool" and not job.held][:1]
    return world, incident(job, "resources/unmatchable-request"), {"memory_mb": 1024, "cpus": 16}


def retry(folder: Path) -> Situation:
    return recorded("moved-input-sharedfs", folder), incident("stage_in_local_condorpool_0_0", "network/network-transient"), {"attempt": 2}


def halt_workflow(folder: Path) -> Situation:
    world = recorded("memory-hold-condorio", folder)
    (world.submit / "voxel-0.dag.lock").write_text("PID = 5\n")
    return world, incident("", "infrastructure/bad-node"), {}


def dead_process() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def clear_stale_lock(folder: Path) -> Situation:
    world = recorded("moved-input-sharedfs", folder)
    braindump = world.submit / "braindump.yml"
    braindump.write_text(braindump.read_text().replace('submit_hostname: "localhost"', f'submit_hostname: "{os.uname().nodename}"'))
    (world.submit / "monitord.pid").write_text(f"pid {dead_process()}\ntimestamp 2026-11-21T05:23:14+0000\n")
    (world.submit / "monitord.pid").chmod(0o600)
    return world, incident("", "infrastructure/monitord-failed"), {}


CASES: dict[str, Made] = {
    "release-held": release_held,
    "raise-memory": raise_memory,
    "raise-disk": raise_disk,
    "raise-walltime": raise_walltime,
    "make-executable": make_executable,
    "normalise-line-endings": normalise_line_endings,
    "add-input-file": add_input_file,
    "update-replica": update_replica,
    "create-output-directory": create_output_directory,
    "enable-cleanup": enable_cleanup,
    "bypass-image-staging": bypass_image_staging,
    "namespace-output": namespace_output,
    "exclude-host": exclude_host,
    "lower-request": lower_request,
    "retry": retry,
    "halt-workflow": halt_workflow,
    "clear-stale-lock": clear_stale_lock,
}
