"""Plan again with an output directory of this run's own: another run overwrote the outputs."""

from __future__ import annotations

import os

from pydantic import Field

from actions._action import JobParams
from actions._replan import replan
from doctor.model import Incident
from doctor.repair import Caps, Plan, Risk, RunView, Skipped

NAME = "namespace-output"
SUMMARY = "Plan again with an output directory of this run's own."
RISK = Risk.COSTLY


class Params(JobParams):
    """``directory``: where the outputs shall go; by default a folder named as the run inside the present place."""

    directory: str = Field(default="", max_length=4096, pattern=r"^(/[^\x00\n]*)?$")


def plan(incident: Incident, params: Params, view: RunView, caps: Caps) -> Plan | Skipped:
    """The same workflow with ``--output-dir`` set to a folder that no other run uses."""
    if ".." in params.directory.split("/"):
        return Skipped(NAME, f"{params.directory!r} contains '..'")
    if not params.directory and not view.output_dirs:
        return Skipped(NAME, "it is not known where the workflow's outputs go")
    parts = view.root_dir.rstrip("/").split("/")[-2:]  # label and run directory
    directory = params.directory or os.path.join(view.output_dirs[0], *parts)
    return replan(
        NAME, incident, params, view,
        f"Plan again with the outputs in {directory}",
        "No other run writes into this run's output directory.",
        {"--output-dir": directory}, {},
    )  # fmt: skip
