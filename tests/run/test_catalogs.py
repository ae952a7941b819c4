"""Catalogs and the abstract workflow, right or wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from doctor.run import catalogs
from doctor.run.catalogs import Executable, load_yaml
from doctor.run.files import Files, Ledger

TRANSFORMATIONS = """
x-pegasus: {apiLang: python}
transformations:
  - name: step
    sites:
      - {name: local, pfn: /data/bin/step.py, type: stageable, container: box}
      - {name: condorpool, pfn: /usr/bin/step, type: installed}
      - {name: broken}
containers:
  - {name: box, type: singularity, image: "docker://box:1"}
"""


def test_executables_and_containers_plain_and_within_a_workflow() -> None:
    document = yaml.safe_load(TRANSFORMATIONS)
    expected = [Executable("step", "local", "/data/bin/step.py", True, "box"), Executable("step", "condorpool", "/usr/bin/step", False)]
    for shape in (document, {"transformationCatalog": document}):
        assert catalogs.executables(shape) == expected
        assert catalogs.containers(shape) == [("box", "docker://box:1")]


def test_replicas_storage_and_declared_inputs() -> None:
    workflow = yaml.safe_load("""
replicaCatalog:
  replicas:
    - {lfn: f.a, pfns: [{site: local, pfn: /in/f.a}, {site: other, pfn: "http://x/f.a"}]}
siteCatalog:
  sites:
    - name: local
      directories: [{type: sharedScratch, path: /scratch}, {type: localStorage, path: /out}]
jobs:
  - {id: ID1, uses: [{lfn: f.a, type: input}, {lfn: f.b, type: output}]}
""")
    assert catalogs.replicas(workflow) == {"f.a": ["/in/f.a", "http://x/f.a"]}
    assert catalogs.storage_directories(workflow) == [("local", "sharedScratch", "/scratch"), ("local", "localStorage", "/out")]
    assert catalogs.declared_inputs(workflow, "ID1") == {"f.a"}
    assert catalogs.declared_inputs(workflow, "ID9") == set()


def test_wrong_yaml_is_noted_and_absent_yaml_is_not(tmp_path: Path, files: Files, ledger: Ledger) -> None:
    (tmp_path / "sites.yml").write_text("sites: [unclosed")
    assert load_yaml(tmp_path / "sites.yml", files) is None
    assert ledger.entries == {"sites.yml": "not valid YAML"}
    assert load_yaml(tmp_path / "none.yml", files) is None
    assert len(ledger.entries) == 1


def test_yaml_never_runs_code(tmp_path: Path, files: Files) -> None:
    (tmp_path / "x.yml").write_text(f"!!python/object/apply:os.mkdir ['{tmp_path}/made']")
    assert load_yaml(tmp_path / "x.yml", files) is None
    assert not (tmp_path / "made").exists()


keys = st.sampled_from(
    ["transformations", "transformationCatalog", "replicas", "replicaCatalog", "sites", "siteCatalog", "name", "pfn", "pfns", "lfn",
     "directories", "path", "type", "containers", "image", "jobs", "id", "uses"]
)  # fmt: skip
shapes = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=16,
)


@given(shapes)
def test_documents_of_any_shape_are_survived(value: Any) -> None:
    assert all(isinstance(entry.pfn, str) for entry in catalogs.executables(value))
    assert all(isinstance(image, str) for _, image in catalogs.containers(value))
    assert all(isinstance(pfn, str) for pfns in catalogs.replicas(value).values() for pfn in pfns)
    assert all(isinstance(path, str) for _, _, path in catalogs.storage_directories(value))
    catalogs.declared_inputs(value, "1")


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "y.yml").write_bytes(data)
    load_yaml(tmp_path / "y.yml", Files(tmp_path, Ledger()))
