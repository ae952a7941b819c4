"""The only place that starts processes: argument lists, time limits, no shell."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from doctor.errors import DoctorError
from doctor.repair import Finished

_KEPT: ContextVar[tuple[int, ...]] = ContextVar("kept", default=())


@contextmanager
def kept_by_commands(handle: int) -> Iterator[None]:
    """Commands that are started meanwhile keep this descriptor open, too.

    For a lock: when the doctor is killed, a command that it had started goes on, and until it has ended the
    lock is not free.
    """
    before = _KEPT.set((*_KEPT.get(), handle))
    try:
        yield
    finally:
        _KEPT.reset(before)


def run(argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Finished:
    """Run a command to its end and return its output; invalid UTF-8 is replaced.

    Raises :class:`DoctorError` when it cannot be started or exceeds ``timeout`` seconds.
    """
    try:
        done = subprocess.run(  # noqa: S603 - argument lists only
            list(argv), capture_output=True, timeout=timeout, env=dict(env) if env is not None else None,
            cwd=cwd, stdin=subprocess.DEVNULL, check=False, pass_fds=_KEPT.get(),
        )  # fmt: skip
    except OSError as problem:
        raise DoctorError(f"{argv[0]}: cannot be started: {problem.strerror}") from problem
    except subprocess.TimeoutExpired as problem:
        raise DoctorError(f"{argv[0]}: no answer within {timeout:g} s; stopped") from problem
    return Finished(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
