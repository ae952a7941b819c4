"""The workflow's own description: abstract workflow and catalogs, where they are readable.

Read with PyYAML directly, not through ``Pegasus.api``: the doctor must also make sense of catalogs
that the API rejects, because a wrong catalog may be the very cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doctor.run.files import Files

_MAX = 16 << 20  # bytes of YAML that are parsed; larger workflows are known by their .lof lists


@dataclass(frozen=True, slots=True)
class Executable:
    """One executable of the transformation catalog: transformation name, site and path or URL."""

    name: str
    site: str
    pfn: str
    stageable: bool
    container: str = ""


def load_yaml(path: Path, files: Files, outside: bool = False) -> Any:
    """A YAML document, or None (with a note unless absent); ``outside`` as for :meth:`Files.open`."""
    data = files.bytes(path, _MAX, quiet=True, outside=outside)
    if data is None or len(data) >= _MAX:
        return None
    import yaml

    try:
        return yaml.load(data, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        files.ledger.note(files.name(path), "not valid YAML")
        return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def executables(document: Any) -> list[Executable]:
    """All executables of a transformation catalog (``transformations.yml`` or inside a workflow)."""
    if not isinstance(document, dict):
        return []
    inner = document.get("transformationCatalog")
    if isinstance(inner, dict):
        return executables(inner)
    return [
        Executable(
            str(entry.get("name", "")),
            str(site.get("name", "")),
            str(site.get("pfn", "")),
            str(site.get("type", "")).lower() == "stageable",
            str(site.get("container", "")),
        )
        for entry in _dicts(document.get("transformations"))
        for site in _dicts(entry.get("sites"))
        if site.get("pfn")
    ]


def containers(document: Any) -> list[tuple[str, str]]:
    """(name, image) of all containers of a transformation catalog."""
    if not isinstance(document, dict):
        return []
    inner = document.get("transformationCatalog")
    if isinstance(inner, dict):
        return containers(inner)
    return [(str(entry.get("name", "")), str(entry.get("image", ""))) for entry in _dicts(document.get("containers"))]


def replicas(document: Any) -> dict[str, list[str]]:
    """Logical file name -> physical file names of a replica catalog."""
    if not isinstance(document, dict):
        return {}
    inner = document.get("replicaCatalog")
    if isinstance(inner, dict):
        return replicas(inner)
    found: dict[str, list[str]] = {}
    for entry in _dicts(document.get("replicas")):
        found.setdefault(str(entry.get("lfn", "")), []).extend(str(pfn.get("pfn", "")) for pfn in _dicts(entry.get("pfns")))
    return found


def storage_directories(document: Any) -> list[tuple[str, str, str]]:
    """(site, type, path) of all directories of a site catalog; types such as ``sharedScratch``, ``localStorage``."""
    if not isinstance(document, dict):
        return []
    inner = document.get("siteCatalog")
    if isinstance(inner, dict):
        return storage_directories(inner)
    return [
        (str(site.get("name", "")), str(place.get("type", "")), str(place.get("path", "")))
        for site in _dicts(document.get("sites"))
        for place in _dicts(site.get("directories"))
        if place.get("path")
    ]


def declared_inputs(document: Any, job_id: str) -> set[str]:
    """Logical names that one job of the abstract workflow declares as inputs."""
    if not isinstance(document, dict):
        return set()
    for job in _dicts(document.get("jobs")):
        if str(job.get("id")) == job_id:
            return {str(use.get("lfn")) for use in _dicts(job.get("uses")) if use.get("type") == "input"}
    return set()
