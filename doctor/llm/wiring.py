"""The one place where the model meets the action layer, the store, the environment and this machine."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.diagnose.matcher import Matcher
from doctor.llm.config import Access, LlmSettings, Off, access, load_settings
from doctor.llm.sections import host_names
from doctor.model import Report
from doctor.run.reader import Run
from doctor.store import Store

if TYPE_CHECKING:
    from doctor.llm.classify import Classifier
    from doctor.llm.consult import Consultant

OpinionNode = Callable[[Report, Run], Report]


def local_names(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names of this machine and of whoever runs the doctor."""
    names = [*host_names(socket.gethostname()), ("HOME", environ.get("HOME", "")), ("USER", environ.get("USER", ""))]
    with suppress(OSError, KeyError, ImportError):  # a user without a name in the password database
        names.append(("USER", getpass.getuser()))
    return [one for one in names if one[1] not in ("", "/")]


def classifier(store: Store, matcher: Matcher, found: Access, *, clock: Callable[[], float] = time.time) -> Classifier:
    """A classifier that really asks the configured provider."""
    import actions
    from doctor.llm.classify import Classifier
    from doctor.llm.client import Client

    return Classifier(found.settings, Client(found), store, matcher, {action.name: action for action in actions.ACTIONS}, clock)


def consultant(store: Store, matcher: Matcher, found: Access, environ: Mapping[str, str] | None = None) -> Consultant:
    """A consultant for reports, asking the configured provider."""
    from doctor.llm.consult import Consultant

    return Consultant(classifier(store, matcher, found), local_names(os.environ if environ is None else environ))


def opinion_node(
    store: Store, matcher: Matcher, environ: Mapping[str, str] | None = None, file: Path | None = None, settings: LlmSettings | None = None
) -> OpinionNode | None:
    """The opinion as a step of the loop: a function from a report and its run to a report.

    None where the configuration does not let the loop ask by itself (``llm.mode`` is not ``always``, or there is no
    key). What the node decides is marked ``llm:<model>``, which the guards never let act without a person.
    """
    environ = os.environ if environ is None else environ
    found = access(settings or load_settings(file, environ), environ, requested=False)
    return None if isinstance(found, Off) else consultant(store, matcher, found, environ)
