"""Edits of submit files and PegasusLite scripts that keep every byte they are not about."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from actions._paths import Refused, read_file
from doctor.repair import Edit

_NAME = re.compile(r"\$\((\w+)\)")
_MACRO = re.compile(r"^\$\((pegasus_\w+)\)\s*([A-Za-z]*)$")
_NUMBER = re.compile(r'^"?(\d+(?:\.\d+)?)\s*([A-Za-z]*)"?$')
_UNITS_KB = {"": None, "B": 1 / 1024, "K": 1.0, "KB": 1.0, "M": 1024.0, "MB": 1024.0, "G": 1024.0**2, "GB": 1024.0**2,
             "T": 1024.0**3, "TB": 1024.0**3}  # fmt: skip
_MAX = 4 << 20


class Lines:
    """A text file as lines with their endings; bytes that are no UTF-8 survive."""

    def __init__(self, path: str, data: bytes | None = None) -> None:
        data = read_file(path, _MAX) if data is None else data
        if data is None:
            raise Refused(f"{path} cannot be read")
        self.path = path
        self.original = data
        self.lines = data.decode("utf-8", "surrogateescape").splitlines(keepends=True)
        if any(char in self.text for char in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"):  # would be cut like line ends
            self.lines = [line + "\n" for line in self.text.split("\n")[:-1]] + [last for last in [self.text.split("\n")[-1]] if last]

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def edit(self) -> Edit | None:
        """The edit that makes the file as it is here, or None when nothing changed."""
        after = self.text.encode("utf-8", "surrogateescape")
        return None if after == self.original else Edit(self.path, self.original, after)


class Submit(Lines):
    """A submit file: the last assignment of a command counts, and what follows ``queue`` does not."""

    def _end(self) -> int:
        for number, line in enumerate(self.lines):
            if line.split("#", 1)[0].split()[:1] and line.split()[0].lower() == "queue":
                return number
        return len(self.lines)

    def _find(self, key: str) -> int | None:
        found = None
        for number, line in enumerate(self.lines[: self._end()]):
            name, sign, _ = line.partition("=")
            if sign and name.strip().lower() == key.lower():
                found = number
        if found is not None and self.lines[found].rstrip("\r\n").endswith("\\"):
            raise Refused(f"{self.path}:{found + 1}: {key} goes on over several lines")
        return found

    def get(self, key: str) -> str | None:
        """The value as written, macros not expanded."""
        number = self._find(key)
        return None if number is None else self.lines[number].partition("=")[2].strip()

    def expanded(self, key: str) -> str:
        """The value with macros of the same file expanded."""
        text = self.get(key) or ""
        for _ in range(5):
            text = _NAME.sub(lambda found: self.get(found[1]) or found[0], text)
        return text

    def set(self, key: str, value: str) -> None:
        """Change the command where it stands, or add it before ``queue``."""
        number = self._find(key)
        if number is None:
            at = self._end()
            if at > 0 and not self.lines[at - 1].endswith("\n"):
                self.lines[at - 1] += "\n"
            self.lines.insert(at, f"{key} = {value}\n")
            return
        name, _, old = self.lines[number].partition("=")
        body = old.rstrip("\r\n")
        lead = body[: len(body) - len(body.lstrip())]
        self.lines[number] = f"{name}={lead}{value}{old[len(body) :]}"

    @property
    def universe(self) -> str:
        return (self.get("universe") or "vanilla").lower()


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource that a job requests. ``bare_kb``: what a bare number means, in KB; 0 for plain counts."""

    request: str
    macro: str
    bare_kb: float
    macro_kb: float
    attribute: str
    default: int  # what the pool gives when nothing is requested, in the macro's unit


MEMORY = Resource("request_memory", "pegasus_memory_mb", 1024.0, 1024.0, "RequestMemory", 128)
DISK = Resource("request_disk", "pegasus_diskspace_mb", 1.0, 1024.0, "RequestDisk", 128)
CPUS = Resource("request_cpus", "pegasus_cores", 0.0, 0.0, "RequestCpus", 1)
GPUS = Resource("request_gpus", "pegasus_gpus", 0.0, 0.0, "RequestGPUs", 0)


def requested(submit: Submit, what: Resource) -> int | None:
    """The request in MB (or as count); None where there is none. Raises :class:`Refused` for an expression."""
    value = submit.get(what.request)
    if value is None or value == "":
        return None
    macro = _MACRO.match(value)
    number, unit = (submit.get(macro[1]), macro[2]) if macro else (value, "")
    plain = _NUMBER.match((number or "").strip())
    if plain is None:
        raise Refused(f"{submit.path}: {what.request} = {value} is an expression; it is left to a person")
    amount, unit = float(plain[1]), (plain[2] or unit).upper()
    if what.bare_kb == 0:
        return int(amount)
    if unit not in _UNITS_KB:
        raise Refused(f"{submit.path}: {what.request} = {value}: unknown unit")
    factor = _UNITS_KB[unit]
    return math.ceil(amount * (what.bare_kb if factor is None else factor) / what.macro_kb)


def request(submit: Submit, what: Resource, amount: int) -> None:
    """Write a request (MB, or a count): in the macro where the request line uses one, else in both or the line."""
    unit = " MB" if what.bare_kb else ""
    value = submit.get(what.request)
    macro = _MACRO.match(value or "")
    if value is None or value == "":
        submit.set(what.macro, str(amount))
        submit.set(what.request, f"$({what.macro}){unit}")
    elif macro:
        suffix = macro[2].upper()
        factor = _UNITS_KB.get(suffix)
        bare = what.bare_kb if factor is None else factor
        submit.set(macro[1], str(amount if not what.bare_kb else math.ceil(amount * what.macro_kb / bare)))
    else:
        submit.set(what.request, f"{amount}{unit}")


def queue_value(what: Resource, amount: int) -> str:
    """The value of the job's attribute: MB for memory, KB for disk, a count else."""
    return str(int(amount * what.macro_kb / what.bare_kb) if what.bare_kb else amount)


def grown(current: int, used: int, cap: int, growth: float) -> int:
    """The next request: grown by the policy's factor or a quarter above the measured use, never beyond the cap."""
    return min(max(math.ceil(current * growth), math.ceil(used * 1.25), current + 1), cap)
