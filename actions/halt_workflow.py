"""Stop submitting further jobs, by DAGMan's own means: a ``.halt`` file beside each DAG that runs.

pegasus-halt does the same, but is a shell script that fails under dash. A halt is not passed on to
sub-DAGs, so each one gets its file. Jobs that run already go on to their end.
"""

from __future__ import annotations

import os

from actions._action import JobParams, count, make
from doctor.model import Incident
from doctor.repair import Caps, Check, Edit, Evidence, Plan, Risk, RunView, Skipped, Verification

NAME = "halt-workflow"
SUMMARY = "Stop submitting further jobs until the common cause is repaired."
RISK = Risk.REVERSIBLE
_MAX_DIRECTORIES = 200_000


class Params(JobParams):
    """Only the job."""


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """A halt file for the workflow and for each sub-workflow whose DAGMan runs."""
    if view.active is False:
        return Skipped(NAME, "DAGMan is not running; there is nothing to halt")
    wanted = [f"{dag}.halt" for dag in running_dags(view)]
    missing = [path for path in wanted if not os.path.lexists(path)]
    if not missing:
        return Skipped(NAME, "the workflow is halted already" if wanted else "no DAG file was found")
    return make(
        NAME, RISK, incident, params,
        f"Halt {count(len(missing), 'DAG')}",
        "DAGMan submits no further jobs; those in the queue end, then it writes a rescue DAG and ends.",
        "The halt files are removed; they have to go before a rescue, or the sub-workflows stay halted.",
        tuple(Edit(path, None, b"", mode=0o644) for path in missing), rescue=False,
    )  # fmt: skip


def running_dags(view: RunView) -> list[str]:
    """DAG files of the tree: the root's, and those below that hold DAGMan's lock."""
    found = {view.dag_file} if view.dag_file else set()
    for number, (base, folders, files) in enumerate(os.walk(view.root_dir)):  # links are not followed
        folders.sort()
        if number > _MAX_DIRECTORIES:
            break
        found |= {os.path.join(base, name[: -len(".lock")]) for name in files if name.endswith(".dag.lock")}
        if base == view.root_dir and not view.dag_file:
            found |= {os.path.join(base, name) for name in files if name.endswith(".dag")}
    return sorted(found, key=lambda path: (path.count("/"), path))


def verify(plan: Plan, evidence: Evidence) -> Check:
    """A halt stops the loss; it cures nothing."""
    return Check(Verification.NOT_YET, f"halted (the run is {evidence.run_state}); the cause is still to be repaired")
