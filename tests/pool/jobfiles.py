"""The files of single jobs in the planner's formats: submit files, wrappers and lists of transfers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .flow import Flow, Folders, Task

VERSION = "5.1.3"
STAMP = "2026-11-21T05:00:00+00:00"
CLASSES = {"compute": 1, "stage-in": 2, "stage-out": 3, "create-dir": 6, "clean-up": 8, "chmod": 9, "sub-workflow": 10}
PRIORITIES = {"compute": 30, "stage-in": 700, "stage-out": 900, "create-dir": 800, "clean-up": 1000, "chmod": 800, "sub-workflow": 30}
_LINE = "#" * 70
_SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Planned:
    """What all files of one planned workflow have in common."""

    flow: Flow
    at: Folders
    home: Path  # where Pegasus' programs are
    uuid: str
    root_uuid: str
    dag: str  # name of the DAG without .dag

    @property
    def log(self) -> Path:
        return self.at.run / f"{self.dag}.log"


@dataclass
class Node:
    """One node of the DAG: its submit file, and how the DAG names it."""

    name: str
    kind: str
    submit: dict[str, str]
    environment: str = ""
    transformation: str = ""
    identity: str = "null"
    site: str = "local"
    category: str = ""
    lite: bool = False
    files: dict[str, str] = field(default_factory=dict)  # suffix -> content of files beside the submit file
    macros: Mapping[str, int] = field(default_factory=dict)

    def text(self, plan: Planned) -> str:
        """The submit file."""
        place = f"{plan.at.run}//00/00/{self.name}"
        common = {
            "error": f"{place}.err",
            "log": str(plan.log),
            "notification": "NEVER",
            "output": f"{place}.out",
            "periodic_release": "False",
            "periodic_remove": f"(JobStatus == 5) && ((CurrentTime - EnteredCurrentStatus) > {plan.flow.hold_seconds})",
            "priority": str(PRIORITIES[self.kind]),
            "submit_event_user_notes": f"pool:{self.site}",
            "wf_submit_dir": str(plan.at.run),
        }
        variables = {
            "CONDOR_JOBID": "$(cluster).$(process)",
            "PEGASUS_WF_UUID": plan.uuid,
            "PEGASUS_WF_LABEL": plan.flow.name,
            "PEGASUS_DAG_JOB_ID": self.name,
            "PEGASUS_SITE": self.site,
        }
        path = f"{plan.home}/bin:{_SYSTEM_PATH}"
        words = " ".join(f"{key}={value}" for key, value in variables.items())
        extra = f" {self.environment}" if self.environment else ""
        macros = {"pegasus_job_runtime": 0, "pegasus_cores": 1, "pegasus_gpus": 0, **self.macros}
        attributes = {
            "pegasus_generator": "Pegasus",
            "pegasus_root_wf_uuid": plan.root_uuid,
            "pegasus_wf_uuid": plan.uuid,
            "pegasus_version": VERSION,
            "pegasus_wf_name": f"{plan.flow.name}-0",
            "pegasus_wf_time": "20261121T050000+0000",
            "pegasus_wf_xformation": self.transformation,
            "pegasus_wf_dax_job_id": self.identity,
            "pegasus_wf_dag_job_id": self.name,
            "pegasus_job_class": CLASSES[self.kind],
            "pegasus_site": self.site,
            "pegasus_cluster_size": 1,
        }
        rows = [
            _LINE,
            "# PEGASUS WMS GENERATED SUBMIT FILE",
            f"# DAG : {plan.flow.name}, Index = 0, Count = null",
            f"# SUBMIT FILE NAME : {self.name}.sub",
            _LINE,
            "stream_error  = false",
            "stream_output = false",
            f'environment = "LANG=C.UTF-8 PEGASUS_HOME={plan.home} PATH={path} {words}{extra}"',
            *(f"{key} = {value}" for key, value in sorted((common | self.submit).items())),
            *(f"{key} = {value}" for key, value in macros.items()),
            *(f"+{key} = {json.dumps(value)}" for key, value in attributes.items()),
            "queue",
            _LINE,
            "# END OF SUBMIT FILE",
            _LINE,
        ]
        return "\n".join(rows) + "\n"


def kickstart(plan: Planned, transformation: str, identity: str, site: str, more: str, command: str) -> str:
    """Kickstart's arguments."""
    return f" -n {transformation} -N {identity}{more} -R {site}  -L {plan.flow.name} -T {STAMP} {command}"


# -- transfer jobs ---------------------------------------------------------------------------------------


def transfers(linkage: str, entries: Sequence[tuple[str, str, str, str, str]], inside: bool = False) -> str:
    """A list of transfers (lfn, source site, source, destination site, destination) as pegasus-transfer reads it."""
    rows = []
    more = ', "checkpoint": "false"' if inside else ', "priority": 10' if linkage == "input" else ""
    for number, (lfn, source_site, source, site, target) in enumerate(entries, 1):
        rows.append(
            f' {{ "type": "transfer",\n   "linkage": "{linkage}",\n   "lfn": {json.dumps(lfn)},\n   "id": {number},\n   "src_urls": [\n'
            f'     {{ "site_label": "{source_site}", "url": {json.dumps(source)}{more} }}\n   ],\n   "dest_urls": [\n'
            f'     {{ "site_label": "{site}", "url": {json.dumps(target)} }}\n   ] }}\n'
        )
    return "[\n" + " ,\n".join(rows) + "]\n"


def directives(kind: str, targets: Sequence[tuple[str, str, bool | None]]) -> str:
    """A list of `mkdir` or `remove` directives (site, URL, recursive)."""
    rows = []
    for number, (site, url, recursive) in enumerate(targets, 1):
        more = "" if recursive is None else f', "recursive": "{recursive}"'
        rows.append(
            f'  {{\n    "id": {number},\n    "type": "{kind}",\n    "target": '
            f'{{ "site_label": "{site}", "url": {json.dumps(url)}{more} }} }}\n'
        )
    return "[\n" + " ,\n".join(rows) + "]\n"


def transfer_job(
    plan: Planned, name: str, kind: str, transformation: str, request: str, lof: Sequence[str] = (), options: str = ""
) -> Node:
    """A job on the submit host that feeds a list to pegasus-transfer; with `lof` kickstart also looks at files."""
    suffix = ".out.lof" if kind == "stage-in" else ".in.lof"
    program = f"{plan.home}/bin/pegasus-transfer {options}".rstrip() + " "
    more = " -i -"
    files = {".in": request}
    environment = f"_PEGASUS_WF_SUBMIT_DIR={plan.at.run}"
    submit = {"universe": "local", "transfer_executable": "false", "input": f"{plan.at.run}//00/00/{name}.in"}
    if not lof:
        arguments = kickstart(plan, transformation, "null", "local", more, program)
        submit |= {"executable": f"{plan.home}/bin/pegasus-kickstart", "arguments": f'"{arguments}"'}
    else:
        files[suffix] = "".join(f"{lfn}={lfn}\n" for lfn in lof)
        more += f" -{'s' if kind == 'stage-in' else 'S'} @$_CONDOR_SCRATCH_DIR/{name}{suffix} "
        environment = f"GRIDSTART_CLEANUP='/bin/rm -rf {name}{suffix} ' {environment}"
        environment += f" _PEGASUS_TRANSFER_INPUT_FILES=$(wf_submit_dir)/00/00/{name}{suffix},"
        environment += f" PEGASUS_BIN_DIR={plan.home}/bin _PEGASUS_CONNECT_STDIN=true"
        arguments = kickstart(plan, transformation, "null", "local", more, program)
        submit |= {
            "executable": f"{plan.home}/share/pegasus/sh/pegasus-lite-local.sh",
            "arguments": f'"{plan.home}/bin/pegasus-kickstart {arguments}"',
        }
    category = {"stage-in": "stagein", "stage-out": "stageout", "clean-up": "cleanup"}.get(kind, "")
    return Node(name, kind, submit, environment, transformation, category=category, files=files)


def chmod_job(plan: Planned, task: Task) -> Node:
    """The job that makes a staged program executable on a shared file system."""
    command = f"/bin/chmod  +x  {plan.at.staged(task.program).removeprefix('file://')}"
    arguments = kickstart(plan, "system::chmod", "null", "local", "", command)
    submit = {
        "universe": "local",
        "transfer_executable": "false",
        "executable": f"{plan.home}/bin/pegasus-kickstart",
        "arguments": f'"{arguments}"',
    }
    return Node(f"chmod_{task.name}_0", "chmod", submit, f"_PEGASUS_WF_SUBMIT_DIR={plan.at.run}", "system::chmod")


# -- compute jobs ----------------------------------------------------------------------------------------


def compute_job(plan: Planned, task: Task, checksums: Sequence[str] = ()) -> Node:
    """One task. `checksums` are the names of metadata files whose checksums its inputs are compared with."""
    flow = plan.flow
    staged = [] if task.program in flow.installed else [task.program]
    inputs = [*task.inputs, *staged]
    node = Node(task.name, "compute", {}, transformation=task.program, identity=task.id, site="condorpool", lite=flow.data != "sharedfs")
    node.files = {".in.lof": "".join(f"{lfn}={lfn}\n" for lfn in inputs), ".out.lof": "".join(f"{lfn}={lfn}\n" for lfn in task.outputs)}
    node.environment = f"GRIDSTART_CLEANUP='/bin/rm -rf {task.name}.in.lof {task.name}.out.lof '"
    ships = [f"$(wf_submit_dir)/00/00/{task.name}{suffix}" for suffix in (".in.lof", ".out.lof")]
    node.submit = {
        "universe": "vanilla",
        "should_transfer_files": "YES",
        "when_to_transfer_output": "ON_EXIT",
        "transfer_executable": "true",
    }
    more = f"{' ' + task.kickstart if task.kickstart else ''}"
    lists = f"  -S @$_CONDOR_SCRATCH_DIR/{task.name}.in.lof  -s @$_CONDOR_SCRATCH_DIR/{task.name}.out.lof "
    program = f"{plan.at.root}/bin/{task.program}" if not staged else f"./{task.program}"
    if flow.data == "sharedfs":
        program = program if not staged else plan.at.staged(task.program).removeprefix("file://")
        command = f"{program} {' '.join(task.arguments)}".rstrip()
        arguments = kickstart(plan, task.program, task.id, "condorpool", f"{more}{lists}", command)
        node.environment += f" PEGASUS_SCRATCH_DIR={plan.at.scratch}"
        node.submit |= {
            "executable": f"{plan.home}/bin/pegasus-kickstart",
            "arguments": f'"{arguments}"',
            "transfer_executable": "false",
            "remote_initialdir": str(plan.at.scratch),
            "transfer_input_files": ",".join(ships),
        }
    else:
        ships += [f"$(wf_submit_dir)/00/00/{name}.meta" for name in checksums] + ["$(wf_submit_dir)/pegasus-lite-common.sh"]
        command = f"{program} {' '.join(task.arguments)}".rstrip()
        line = f"pegasus-kickstart {kickstart(plan, task.program, task.id, 'condorpool', f'{more}{lists}', command)}"
        node.files[".sh"] = wrapper(plan, task, line, inputs, staged, bool(checksums))
        node.submit |= {"executable": f"{plan.at.run}/00/00/{task.name}.sh", "transfer_input_files": ",".join(ships)}
        if flow.data == "condorio":
            node.submit |= {"initialdir": str(plan.at.scratch), "transfer_input_files": ",".join([*inputs, *ships])}
            node.submit |= {"transfer_output_files": ",".join(task.outputs)} if task.outputs else {}
            node.submit["+WantIOProxy"] = "True"
    macros = {}
    for request, macro, unit, value in (
        ("request_cpus", "pegasus_cores", "", task.cpus),
        ("request_disk", "pegasus_diskspace_mb", " MB", task.disk_mb),
        ("request_memory", "pegasus_memory_mb", " MB", task.memory_mb),
    ):
        if value is not None:
            node.submit[request] = f"$({macro}){unit}"
            macros[macro] = value
    node.macros = macros
    node.submit |= task.submit
    return node


def _banner(title: str) -> str:
    return f'printf "\\n{title.center(82, "#")}\\n"  1>&2\n'


def _block(linkage: str, entries: Sequence[tuple[str, str, str, str, str]], options: str) -> str:
    command = f"pegasus-transfer --threads 1 {options}".rstrip()
    return f"{command}  1>&2 << 'eof'\n{transfers(linkage, entries, inside=True)}eof\n\n"


def wrapper(plan: Planned, task: Task, line: str, inputs: Sequence[str], staged: Sequence[str], checked: bool) -> str:
    """The script around a task: stages of PegasusLite, with the functions of lite-common.sh."""
    condorio = plan.flow.data == "condorio"
    numbers = zip(("major", "minor", "patch"), VERSION.split(".", 2), strict=True)
    text = "#!/bin/bash\nset -e\n" + "".join(f'pegasus_lite_version_{part}="{number}"\n' for part, number in numbers) + "\n"
    text += ". ./pegasus-lite-common.sh\n\npegasus_lite_init\ntrap pegasus_lite_signal_int INT\ntrap pegasus_lite_signal_term TERM\n"
    text += "trap pegasus_lite_unexpected_exit EXIT\n\n" + _banner("[Pegasus Lite] Setting up workdir ")
    text += "export pegasus_lite_work_dir=$PWD\n" if condorio else ""
    text += "pegasus_lite_setup_work_dir\n\n" + _banner("[Pegasus Lite] Figuring out the worker package to use ")
    text += "pegasus_lite_worker_package\n\npegasus_lite_section_start stage_in\n"
    if not condorio:
        entries = [(lfn, "local", plan.at.staged(lfn), "condorpool", f"file://$PWD/{lfn}") for lfn in inputs]
        text += _banner(" Staging in input data and executables ") + "# stage in data and executables\n"
        text += _block("input", entries, plan.flow.transfer_options)
    if staged:
        text += (
            _banner(" Setting the xbit for executables staged ")
            + f"# set the xbit for any executables staged\n/bin/chmod +x {' '.join(staged)}\n\n"
        )
    if checked:
        text += _banner(" Checking file integrity for input files ") + "# do file integrity checks\n"
        text += f"pegasus-integrity --print-timings --verify=stdin 1>&2 << 'eof'\n{';;;'.join(inputs)}\neof\n\n"
    text += "pegasus_lite_section_end stage_in\nset +e\njob_ec=0\npegasus_lite_section_start task_execute\n"
    text += _banner("[Pegasus Lite] Executing the user task ") + f"{line}\njob_ec=$?\n"
    text += "pegasus_lite_section_end task_execute\nset -e\npegasus_lite_section_start stage_out\n"
    if not condorio and task.outputs:
        entries = [(lfn, "condorpool", f"file://$PWD/{lfn}", "local", plan.at.staged(lfn)) for lfn in task.outputs]
        text += _banner(" Staging out output files ") + "# stage out\n" + _block("output", entries, plan.flow.transfer_options)
    return text + "pegasus_lite_section_end stage_out\n\nset -e\n\n\ntrap - EXIT\npegasus_lite_final_exit\n\n"
