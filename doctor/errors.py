"""The one error root of the program.

Everything that is the user's or a file's fault is a :class:`DoctorError`; the CLI prints it in one
line and exits with 2. Any other exception is a bug and exits with 3.
"""

from __future__ import annotations


class DoctorError(Exception):
    """Something the user can act on, with the file and line that are to blame where there are any."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line

    def __str__(self) -> str:
        if self.file is None:
            return self.message
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message}"


class NotARunError(DoctorError):
    """The directory given is not a Pegasus submit directory."""


class RuleError(DoctorError):
    """One or more rule files are wrong; ``problems`` has every problem, not only the first."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
