"""Identity of a run: ``braindump.yml``, read through Pegasus' own module."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from doctor.run.files import Files

_KEYS = (
    "submit_dir", "dax_label", "wf_uuid", "root_wf_uuid", "dag", "condor_log", "properties", "planner_arguments",
    "planner_version", "submit_hostname", "user", "basedir", "jsd", "bindir", "dax", "type",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """The braindump fields that the doctor uses; empty strings where the file lacks them.

    Key meanings: ``Pegasus.braindump`` (package ``pegasus-wms.common``).
    """

    submit_dir: str = ""
    dax_label: str = ""
    wf_uuid: str = ""
    root_wf_uuid: str = ""
    dag: str = ""
    condor_log: str = ""
    properties: str = ""
    planner_arguments: str = ""
    planner_version: str = ""
    submit_hostname: str = ""
    user: str = ""
    basedir: str = ""
    jsd: str = ""
    bindir: str = ""
    dax: str = ""
    type: str = ""
    complete: bool = False


def read_identity(directory: Path, files: Files) -> Identity:
    """Identity of the run in ``directory``; what the file does not tell is taken from the DAG's name."""
    path = directory / "braindump.yml"
    data = files.bytes(path, 1 << 20)
    values: dict[str, str] = {}
    complete = False
    if data is not None:
        values, complete = _parse(data)
        if not complete:
            files.ledger.note(files.name(path), "damaged or incomplete; read as far as possible")
    if not values.get("dag"):
        dags = [name for name in files.listing(directory) if name.endswith(".dag")]
        if dags:
            values["dag"] = dags[0]
    dag = values.get("dag", "")
    stem = dag.removesuffix(".dag")
    values.setdefault("dax_label", stem.rpartition("-")[0] or stem)
    values.setdefault("condor_log", f"{stem}.log")
    values.setdefault("jsd", "jobstate.log")
    return Identity(**values, complete=complete)


def _parse(data: bytes) -> tuple[dict[str, str], bool]:
    text = data.decode("utf-8", "replace")
    try:
        from Pegasus import braindump

        whole = braindump.load(io.StringIO(text))
    except Exception:  # noqa: BLE001 - a damaged file raises whatever YAML or the dataclass makes of it
        return _by_line(text), False
    values = {key: str(getattr(whole, key)) for key in _KEYS if getattr(whole, key, None) is not None}
    values = _file_names(values)
    return values, all(values.get(key) for key in ("submit_dir", "wf_uuid", "dag"))


def _file_names(values: dict[str, str]) -> dict[str, str]:
    """The same values with plain file names where those are due: never a way out of the directory."""
    kept = dict(values)
    for key in ("dag", "condor_log", "properties", "jsd"):
        if key in kept:
            name = Path(kept.pop(key)).name
            if name.isprintable() and len(name.encode()) <= 200:
                kept[key] = name
    return kept


def _by_line(text: str) -> dict[str, str]:
    """``key: value`` lines of a file that is no longer YAML."""
    values = {}
    for line in text.splitlines():
        key, sign, value = line.partition(":")
        value = value.strip().strip("\"'")
        if sign and key in _KEYS and value.isprintable():
            values[key] = value
    return _file_names(values)
