"""The same small workflows, planned by the real pegasus-plan where one is on PATH."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import yaml

from .flow import Flow
from .live import give
from .planner import documents, write_sources
from .pool import JOB_USER, Pool

PLANNER = shutil.which("pegasus-plan")
MISSING = "" if PLANNER else "no pegasus-plan on PATH: the real planner cannot be tried"


def real(flow: Flow, root: Path, pool: Pool) -> tuple[Path, Path]:
    """Plans a workflow whose sources lie in `root` (see `planner.write_sources`); returns the submit directory and Pegasus' home."""
    if PLANNER is None:
        raise FileNotFoundError(MISSING)
    home = Path(PLANNER).resolve().parents[1]
    for name, document in _documents(flow, root, home).items():
        (root / name).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    (root / "pegasus.properties").write_text(
        "".join(f"{key} = {value}\n" for key, value in _properties(flow, root).items()), encoding="utf-8"
    )
    give(root)
    tools = f"PATH={Path(PLANNER).parent}:{pool.installation.bin}:/usr/bin:/bin"
    words = ["--conf", "pegasus.properties", "--sites", "condorpool", "--output-sites", "local", "--dir", str(root / "runs")]
    words += ["--cleanup", "inplace" if flow.cleanup else "none"]
    words += ["--staging-site", f"condorpool={flow.site}"] if flow.data != "condorio" else []
    pool.condor("env", tools, PLANNER, *words, "workflow.yml", cwd=root, seconds=300)
    return root / "runs" / JOB_USER / "pegasus" / flow.name / "run0001", home


def _properties(flow: Flow, root: Path) -> dict[str, object]:
    return {
        "pegasus.mode": "development",
        "pegasus.catalog.replica": "YAML",  # said here, sub-workflows know it too
        "pegasus.catalog.replica.file": root / "replicas.yml",
        "pegasus.data.configuration": flow.data,
        "pegasus.integrity.checking": "full" if flow.integrity else "none",
        "pegasus.transfer.arguments": flow.transfer_options,
        "pegasus.transfer.lite.arguments": flow.transfer_options,
        "dagman.retry": flow.retries,
        "condor.periodic_remove": f"(JobStatus == 5) && ((CurrentTime - EnteredCurrentStatus) > {flow.hold_seconds})",
    }


def _documents(flow: Flow, root: Path, home: Path) -> dict[str, Any]:
    """The test-only planner's documents, with all that it takes from the description itself."""
    made: dict[str, Any] = documents(flow, root)
    workflow = made["workflow.yml"]
    jobs = {job["id"]: job for job in workflow["jobs"]}
    for task in flow.tasks:
        job = jobs[task.id]
        requests = {"memory": task.memory_mb, "diskspace": task.disk_mb, "cores": task.cpus}
        job["profiles"] = {"pegasus": {key: str(value) for key, value in requests.items() if value is not None}}
        job["profiles"] |= {"condor": dict(task.submit)} if task.submit else {}
    for sub in flow.subflows:  # planned while the workflow runs, with the catalogs of its parent
        write_sources(sub.flow, root / sub.flow.name)
        lfn = f"{sub.flow.name}.yml"
        jobs[sub.id]["arguments"] = ["--output-sites", "local"]
        jobs[sub.id]["uses"] = [{"lfn": lfn, "type": "input"}]
        made["replicas.yml"]["replicas"].append(
            {"lfn": lfn, "pfns": [{"site": "local", "pfn": str(root / sub.flow.name / "workflow.yml")}]}
        )
        workflow["jobDependencies"] += [{"id": one, "children": [sub.id]} for one in sub.after]
    if flow.integrity:
        for replica in made["replicas.yml"]["replicas"]:
            replica["checksum"] = {"sha256": hashlib.sha256(Path(replica["pfns"][0]["pfn"]).read_bytes()).hexdigest()}
    (pool_site,) = (site for site in made["sites.yml"]["sites"] if site["name"] == "condorpool")
    pool_site["profiles"] = {
        "condor": {"universe": "vanilla"},
        "env": {"PEGASUS_HOME": str(home)},
        "pegasus": {"style": "condor", "auxillary.local": "True"},
    }
    return made
