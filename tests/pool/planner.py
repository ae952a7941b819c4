"""A small planner for tests: writes submit directories in Pegasus' own formats.

It knows what the tests need and nothing more: no site selection, no clustering, no catalogs but its
own. What it writes is run by the real DAGMan, pegasus-monitord, pegasus-exitcode and pegasus-transfer.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

import yaml

from . import runfiles
from .flow import Flow, Folders, SubFlow
from .jobfiles import Node, Planned, chmod_job, compute_job, directives, transfer_job, transfers
from .pool import JOB_USER, Pool

_HEAD = {"x-pegasus": {"apiLang": "python", "createdBy": JOB_USER, "createdOn": "11-21-26T05:00:00Z"}, "pegasus": "5.0.4"}


def write_sources(flow: Flow, root: Path) -> None:
    """Everything that a scientist would have: programs, inputs, catalogs and the abstract workflow.

    `@ROOT@` in a text stands for the workflow's folder.
    """
    texts: dict[str, str] = {f"bin/{name}": text for name, text in flow.programs.items()}
    texts |= {f"inputs/{name}": text for name, text in flow.inputs.items()}
    texts |= flow.files
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.replace("@ROOT@", str(root)).encode())
    for name in flow.programs:
        (root / "bin" / name).chmod(0o755)
    for name in ("inputs", "scratch", "output"):
        (root / name).mkdir(exist_ok=True)
    for name, document in documents(flow, root).items():
        (root / name).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    properties = f"pegasus.mode = development\npegasus.data.configuration = {flow.data}\ndagman.retry = {flow.retries}\n"
    (root / "pegasus.properties").write_text(properties, encoding="utf-8")


def documents(flow: Flow, root: Path) -> dict[str, dict[str, object]]:
    """The abstract workflow and the three catalogs."""
    jobs: list[dict[str, object]] = []
    for task in flow.tasks:
        uses: list[dict[str, object]] = [{"lfn": lfn, "type": "input"} for lfn in task.inputs]
        uses += [{"lfn": lfn, "type": "output", "stageOut": not flow.consumers(lfn), "registerReplica": False} for lfn in task.outputs]
        jobs.append({"type": "job", "name": task.program, "id": task.id, "arguments": list(task.arguments), "uses": uses})
    for sub in flow.subflows:
        jobs.append({"type": "pegasusWorkflow", "file": f"{sub.flow.name}.yml", "id": sub.id, "arguments": [], "uses": []})
    children = [
        {"id": task.id, "children": [other.id for other in flow.tasks if set(task.outputs) & set(other.inputs)]} for task in flow.tasks
    ]
    replicas = [{"lfn": lfn, "pfns": [{"site": "local", "pfn": source}]} for lfn, source in _sources(flow, root).items()]
    programs = [
        {
            "name": name,
            "sites": [
                {
                    "name": "condorpool" if name in flow.installed else "local",
                    "pfn": str(root / "bin" / name),
                    "type": "installed" if name in flow.installed else "stageable",
                }
            ],
        }
        for name in flow.programs
    ]
    return {
        "workflow.yml": {**_HEAD, "name": flow.name, "jobs": jobs, "jobDependencies": [row for row in children if row["children"]]},
        "replicas.yml": {**_HEAD, "replicas": replicas},
        "transformations.yml": {**_HEAD, "transformations": programs},
        "sites.yml": {
            **_HEAD,
            "sites": [_site("local", root / "scratch", root / "output"), _site("condorpool", root / "pscratch/pool", None)],
        },
    }


def _site(name: str, scratch: Path, storage: Path | None) -> dict[str, object]:
    places = [("sharedScratch", scratch), *([("localStorage", storage)] if storage else [])]
    folders = [
        {"type": kind, "path": str(path), "sharedFileSystem": False, "fileServers": [{"url": f"file://{path}", "operation": "all"}]}
        for kind, path in places
    ]
    return {"name": name, "directories": folders}


def _sources(flow: Flow, root: Path) -> dict[str, str]:
    """Where each raw input of the workflow comes from."""
    raw = dict.fromkeys(lfn for task in flow.tasks for lfn in task.inputs if flow.producer(lfn) is None)
    return {lfn: flow.sources.get(lfn, str(root / "inputs" / lfn)) for lfn in raw}


def plan(flow: Flow, root: Path, home: Path, pool: Pool) -> Path:
    """Plans a workflow whose sources lie in `root` (see `write_sources`); returns the submit directory."""
    run = root / "runs" / JOB_USER / "pegasus" / flow.name / "run0001"
    identity = str(uuid.uuid4())
    _plan(Planned(flow, Folders(root, flow.name, run, flow.data), home, identity, identity, f"{flow.name}-0"), pool, root / "workflow.yml")
    return run


def _plan(plan: Planned, pool: Pool, abstract: Path) -> None:
    flow, run = plan.flow, plan.at.run
    plan.at.jobs.mkdir(parents=True)
    nodes, edges = _nodes(plan)
    for sub in flow.subflows:
        nodes.append(_subworkflow(plan, sub, pool))
    for node in nodes:
        (plan.at.jobs / f"{node.name}.sub").write_text(node.text(plan), encoding="utf-8")
        for suffix, text in node.files.items():
            path = plan.at.jobs / f"{node.name}{suffix}"
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755 if suffix.endswith(".sh") else 0o644)
    properties = f"pegasus.{uuid.uuid4().int % 10**19}.properties"
    catalogs = run / "catalogs"
    catalogs.mkdir()
    for name, document in documents(flow, plan.at.root).items():
        target = run / name if name == "workflow.yml" else catalogs / name
        target.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    common = (plan.home / "share/pegasus/sh/pegasus-lite-common.sh").read_text("utf-8")
    cache = "".join(f'{lfn} {plan.at.staged(lfn)} site="{flow.site}"\n' for task in flow.tasks for lfn in (*task.inputs, *task.outputs))
    texts = {
        f"{plan.dag}.dag": runfiles.dag(plan, nodes, edges),
        f"{plan.dag}.dag.condor.sub": runfiles.dagman(plan, pool),
        "braindump.yml": runfiles.braindump(plan, properties, abstract),
        properties: runfiles.properties(plan),
        f"{plan.dag}.cache": cache,
        f"{plan.dag}.notify": "",
        f"{plan.dag}.static.bp": runfiles.static(plan, nodes, edges),
        "pegasus-lite-common.sh": common,
        f"{plan.dag}.metadata": json.dumps(
            {
                "root_workflow_uuid": plan.root_uuid,
                "workflow_uuid": plan.uuid,
                "wf_metadata": {},
                "graph": {"jobs": {node.name: {} for node in nodes}},
            },
            indent=2,
        ),
    }
    for name, text in texts.items():
        (run / name).write_text(text, encoding="utf-8")


def _nodes(plan: Planned) -> tuple[list[Node], list[tuple[str, str]]]:
    """All jobs but sub-workflows, and the DAG's edges."""
    flow, at = plan.flow, plan.at
    create = f"create_dir_{flow.name}_0_{flow.site}"
    nodes = [
        transfer_job(plan, create, "create-dir", "pegasus::dirmanager", directives("mkdir", [(flow.site, f"file://{at.scratch}", None)]))
    ]
    edges: list[tuple[str, str]] = []
    programs = [name for name in flow.programs if name not in flow.installed and any(task.program == name for task in flow.tasks)]
    raw = _sources(flow, at.root)
    options = f"--threads 2 {flow.transfer_options}".rstrip()

    def stage_in(name: str, lfns: dict[str, str]) -> None:
        entries = [(lfn, "local", source, flow.site, at.staged(lfn)) for lfn, source in lfns.items()]
        nodes.append(transfer_job(plan, name, "stage-in", "pegasus::transfer", transfers("input", entries), list(lfns), options))
        edges.append((create, name))
        edges.extend((name, task.name) for task in flow.tasks if set(lfns) & {*task.inputs, task.program})

    staged = {name: f"file://{at.root}/bin/{name}" for name in programs}
    if flow.data == "sharedfs":
        if staged or raw:
            stage_in("stage_in_local_condorpool_0_0", staged | raw)
    else:
        for name, lfns in (("stage_in_remote_local_0_0", staged), ("stage_in_local_local_0_0", raw)):
            if lfns:
                stage_in(name, lfns)
    checksums = []
    if flow.integrity:
        checksums = [node.name for node in nodes if node.kind == "stage-in"]
        for node in nodes[1:]:
            node.files[".meta"] = _checksums({**staged, **raw}, node.files[".out.lof"])
    for task in flow.tasks:
        nodes.append(compute_job(plan, task, checksums))
        edges.append((create, task.name))
        edges += [(made.name, task.name) for lfn in task.inputs if (made := flow.producer(lfn))]
        edges += [(other, task.name) for other in _names(flow, task.after)]
        if flow.data == "sharedfs" and task.program in programs:
            chmod = chmod_job(plan, task)
            nodes.append(chmod)
            edges += [("stage_in_local_condorpool_0_0", chmod.name), (chmod.name, task.name)]
    edges += [(other, sub.name) for sub in flow.subflows for other in (*_names(flow, sub.after), create)]
    number = 0
    for task in flow.tasks:
        if final := flow.final(task):
            name = f"stage_out_local_{flow.site}_{number}_0"
            entries = [(lfn, flow.site, at.staged(lfn), "local", f"file://{at.output}/{lfn}") for lfn in final]
            nodes.append(transfer_job(plan, name, "stage-out", "pegasus::transfer", transfers("output", entries), options=options))
            edges.append((task.name, name))
            number += 1
    if flow.cleanup:
        _cleanup(plan, nodes, edges)
    return nodes, edges


def _cleanup(plan: Planned, nodes: list[Node], edges: list[tuple[str, str]]) -> None:
    """A clean-up job for each task's inputs once their last consumer has run, and one for the whole scratch folder."""
    flow, at = plan.flow, plan.at
    jobs: list[str] = []
    for level, task in enumerate(flow.tasks, 3):
        files = [lfn for lfn in task.inputs if flow.consumers(lfn)[-1] is task]
        if files:
            name = f"clean_up_{flow.site}_level_{level}_0"
            request = directives("remove", [(flow.site, at.staged(lfn), False) for lfn in files])
            nodes.append(transfer_job(plan, name, "clean-up", "pegasus::cleanup", request, files))
            edges += [(one.name, name) for lfn in files for one in flow.consumers(lfn)]
            jobs.append(name)
    last = f"cleanup_{flow.name}_0_{flow.site}"
    nodes.append(
        transfer_job(plan, last, "clean-up", "pegasus::cleanup", directives("remove", [(flow.site, f"file://{at.scratch}", True)]))
    )
    edges += [(name, last) for name in jobs]
    edges += [(node.name, last) for node in nodes if node.kind in ("stage-out", "compute", "sub-workflow")]


def _names(flow: Flow, ids: Iterable[str]) -> list[str]:
    known = {one.id: one.name for one in (*flow.tasks, *flow.subflows)}
    return [known[one] for one in ids]


def _checksums(sources: dict[str, str], lof: str) -> str:
    entries = []
    for lfn in [row.partition("=")[0] for row in lof.splitlines()]:
        data = Path(sources[lfn].removeprefix("file://")).read_bytes()
        attributes = {"checksum.type": "sha256", "checksum.value": hashlib.sha256(data).hexdigest(), "size": str(len(data))}
        entries.append({"_type": "file", "_id": lfn, "_attributes": attributes})
    return json.dumps(entries, indent=1)


def _subworkflow(plan: Planned, sub: SubFlow, pool: Pool) -> Node:
    """Plans the sub-workflow beforehand; its PRE script finds the plan there, as on a second run."""
    inner = f"{sub.flow.name}_{sub.id}"
    place, link = plan.at.jobs / f"{inner}.000", plan.at.jobs / inner
    root = plan.at.root / sub.flow.name
    write_sources(sub.flow, root)
    below = Folders(root, sub.flow.name, place, sub.flow.data)
    _plan(Planned(sub.flow, below, plan.home, str(uuid.uuid4()), plan.root_uuid, sub.flow.name), pool, root / "workflow.yml")
    os.symlink(place.name, link)
    dag = f"{sub.flow.name}.dag"
    start = (
        f"-p 0  -f -l . -Notification never -Debug 3 -Lockfile {dag}.lock -Dag {dag} -AllowVersionMismatch  -AutoRescue 1 -DoRescueFrom 0"
    )
    submit = {
        "universe": "scheduler",
        "executable": str(pool.installation.bin / "condor_dagman"),
        "arguments": f'" {start} "',
        "initialdir": str(link),
        "transfer_executable": "false",
        "remove_kill_sig": "SIGUSR1",
        "+OtherJobRemoveRequirements": '"DAGManJobId =?= $(cluster)"',
        "getenv": "CONDOR_CONFIG,_CONDOR_*,PATH,PYTHONPATH,PEGASUS_*,TZ,HOME,USER,LANG",
        "on_exit_remove": "(ExitSignal =?= 11 || (ExitCode =!= UNDEFINED && ExitCode >=0 && ExitCode <= 2))",
    }
    node = Node(
        sub.name, "sub-workflow", submit, f"_CONDOR_DAGMAN_LOG={link}/{dag}.dagman.out _CONDOR_MAX_DAGMAN_LOG=0", "condor::dagman", sub.id
    )
    said = "[INFO]  No planning attempted. Existing DAG will be submitted"
    node.files[".pre.sh"] = (
        f'#!/bin/bash\necho "$(date +"%Y.%m.%d %H:%M:%S.000 %Z"): {said}" > {plan.at.run}/{sub.name}.pre.log.000\nexit 0\n'
    )
    return node
