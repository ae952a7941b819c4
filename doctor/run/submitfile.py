"""HTCondor submit files as Pegasus writes them: requests, macros, transfer lists, expressions."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from doctor.run.files import Files

_MACRO = re.compile(r"\$\(([A-Za-z_][\w.]*)\)")


@dataclass(frozen=True, slots=True)
class SubmitFile:
    """Commands of one submit file. Keys are lower case; ``+Name`` attributes keep the plus sign."""

    file: str = ""
    values: dict[str, str] = field(default_factory=dict)
    line_of: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values)

    def get(self, key: str) -> str:
        """The value with ``$(macros)`` of the same file expanded; empty when absent."""
        text = self.values.get(key.lower(), "")
        for _ in range(5):
            expanded = _MACRO.sub(lambda match: self.values.get(match[1].lower(), match[0]), text)
            if expanded == text or len(expanded) > 1 << 16:
                break
            text = expanded
        return text

    def attribute(self, name: str) -> str:
        """The value of ``+name`` without its quotes."""
        return self.get(f"+{name}").strip().strip('"')

    def files_of(self, key: str) -> tuple[str, ...]:
        """A comma-separated list such as ``transfer_input_files``."""
        return tuple(part.strip() for part in self.get(key).split(",") if part.strip())

    @property
    def transformation(self) -> str:
        return self.attribute("pegasus_wf_xformation")

    @property
    def site(self) -> str:
        return self.attribute("pegasus_site")

    @property
    def job_class(self) -> int:
        """Pegasus' job class (1 compute, 2 stage-in, 3 stage-out, 4 inter-site, 10 sub-workflow, ...); 0 unknown."""
        text = self.attribute("pegasus_job_class")
        return int(text) if text.isdigit() and len(text) < 4 else 0

    def environment(self) -> dict[str, str]:
        """The ``environment`` command in HTCondor's new quoting, as far as it parses."""
        text = self.get("environment").strip().strip('"')
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.split()
        return dict(word.split("=", 1) for word in words if "=" in word)


def read_submit_file(path: Path, files: Files) -> SubmitFile:
    """Parse a submit file; an absent one gives an empty record and a note in the ledger."""
    text = files.text(path, head=256 << 10, tail=256 << 10)
    values: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for line in text.lines:
        key, sign, value = line.text.partition("=")
        key = key.strip().lower()
        if not sign or not key or key.startswith("#") or " " in key:
            continue
        values[key] = value.strip()
        numbers[key] = line.number or 0
    return SubmitFile(text.file, values, numbers)
