"""The guarded action layer: one file per repair, listed here. See ``docs`` and ``patterns/actions.yaml``."""

from __future__ import annotations

from actions import (
    add_input_file,
    bypass_image_staging,
    clear_stale_lock,
    create_output_directory,
    enable_cleanup,
    exclude_host,
    halt_workflow,
    lower_request,
    make_executable,
    namespace_output,
    normalise_line_endings,
    raise_disk,
    raise_memory,
    raise_walltime,
    release_held,
    retry,
    update_replica,
)
from actions._action import Action, JobParams
from actions._diff import diff
from doctor.errors import DoctorError

__all__ = ["ACTIONS", "Action", "JobParams", "diff", "get"]

ACTIONS: tuple[Action, ...] = (
    Action.of(release_held),
    Action.of(raise_memory),
    Action.of(raise_disk),
    Action.of(raise_walltime),
    Action.of(make_executable),
    Action.of(normalise_line_endings),
    Action.of(add_input_file),
    Action.of(update_replica),
    Action.of(create_output_directory),
    Action.of(enable_cleanup),
    Action.of(bypass_image_staging),
    Action.of(namespace_output),
    Action.of(exclude_host),
    Action.of(lower_request),
    Action.of(retry),
    Action.of(halt_workflow),
    Action.of(clear_stale_lock),
)


def get(name: str) -> Action:
    """The action of that name. Raises :class:`DoctorError` when there is none."""
    for action in ACTIONS:
        if action.name == name:
            return action
    raise DoctorError(f"no action is called {name!r}; there are {', '.join(action.name for action in ACTIONS)}")
