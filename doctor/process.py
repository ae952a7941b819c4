"""The only place that starts processes: argument lists, time limits, no shell."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from doctor.errors import DoctorError
from doctor.repair import Finished


def run(argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Finished:
    """Run a command to its end and return its output; invalid UTF-8 is replaced.

    Raises :class:`DoctorError` when it cannot be started or exceeds ``timeout`` seconds.
    """
    try:
        done = subprocess.run(  # noqa: S603 - argument lists only
            list(argv), capture_output=True, timeout=timeout, env=dict(env) if env is not None else None,
            cwd=cwd, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except OSError as problem:
        raise DoctorError(f"{argv[0]}: cannot be started: {problem.strerror}") from problem
    except subprocess.TimeoutExpired as problem:
        raise DoctorError(f"{argv[0]}: no answer within {timeout:g} s; stopped") from problem
    return Finished(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
