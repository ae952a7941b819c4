"""The rule library: strict loading, every problem at once, and a cache that may always be lost."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from doctor.diagnose import library as module
from doctor.diagnose import ruletest
from doctor.diagnose.library import Library, compile_library, load, patterns_dir
from doctor.errors import RuleError

RULE: dict[str, Any] = {
    "id": "disk-full",
    "title": "The disk is full",
    "status": "stable",
    "cause": "disk/full",
    "evidence": ["program"],
    "match": {"any": ["No space left on (?P<what>device)"]},
    "subject": "what",
    "remedy": {"action": "free-disk", "with": {"on": "what"}},
    "reference": "https://example.org/errno",
    "samples": {
        "match": [{"text": "OSError: No space left on device", "from": "Python 3.11", "captures": {"what": "device"}}],
        "no_match": [{"text": "plenty of space left", "why": "no error"}],
    },
}
CAUSES = {"disk": {"full": {"definition": "A disk is full.", "advice": "Free some.", "remedies": ["free-disk"]}}}
ACTIONS = {"free-disk": {"risk": "reversible", "summary": "Frees disk."}}


def write(folder: Path, rules: list[dict[str, Any]], benign: dict[str, Any] | None = None) -> Path:
    (folder / "disk").mkdir(parents=True, exist_ok=True)
    (folder / "causes.yaml").write_text(yaml.safe_dump(CAUSES, sort_keys=False))
    (folder / "actions.yaml").write_text(yaml.safe_dump(ACTIONS))
    for rule in rules:
        (folder / "disk" / f"{rule['id']}.yaml").write_text(yaml.safe_dump(rule, sort_keys=False))
    if benign:
        (folder / "benign").mkdir(exist_ok=True)
        (folder / "benign" / "plain.yaml").write_text(yaml.safe_dump(benign))
    return folder


def changed(**changes: Any) -> dict[str, Any]:
    rule = copy.deepcopy(RULE)
    for path, value in changes.items():
        target: Any = rule
        *parts, last = path.split("__")
        for part in parts:
            target = target[int(part) if part.isdigit() else part]
        if value is None:
            del target[last]
        else:
            target[last] = value
    return rule


def problems_of(folder: Path) -> tuple[str, ...]:
    with pytest.raises(RuleError) as caught:
        compile_library(folder)
    return caught.value.problems


def test_a_right_library_is_compiled(tmp_path: Path) -> None:
    library = compile_library(write(tmp_path, [RULE]))
    (rule,) = library.rules
    assert (rule.id, rule.cause, rule.remedy, rule.remedy_with) == ("disk-full", "disk/full", "free-disk", (("on", "what"),))
    assert {kind.value for kind in rule.kinds} == {"stderr", "stdout"}
    assert list(ruletest.problems(tmp_path)) == []


WRONG = {
    "unknown key": (changed(colour="red"), "colour"),
    "unknown key in match": (changed(match__regex="x"), "match.regex"),
    "unknown cause": (changed(cause="disk/on-fire"), "unknown cause 'disk/on-fire'"),
    "unknown explained cause": (changed(explains=["disk/on-fire"]), "disk/on-fire"),
    "unknown action": (changed(remedy__action="burn"), "unknown action 'burn'"),
    "undefined capture as subject": (changed(subject="where"), "'where'"),
    "undefined capture in a remedy": (changed(remedy__with={"on": "where"}), "'where'"),
    "undefined capture in a sample": (changed(samples__match__0__captures={"where": "x"}), "'where'"),
    "no positive sample": (changed(samples__match=[]), "samples.match"),
    "no negative sample": (changed(samples__no_match=[]), "samples.no_match"),
    "no samples": (changed(samples=None), "samples"),
    "unknown status": (changed(status="golden"), "status"),
    "unknown kind of evidence": (changed(evidence=["tea-leaves"]), "tea-leaves"),
    "no pattern": (changed(match={}), "match"),
    "a pattern that RE2 refuses": (changed(match__any=["(?<=x)(?P<what>y)"]), "(?<=x)"),
    "a pattern that matches nothing at all": (changed(match__any=["(?P<what>x)?"]), "matches the empty line"),
    "no reference": (changed(reference=None), "reference"),
    "a sample for a rule that does not exist": (changed(samples__match__0__also=["no-such-rule"]), "no-such-rule"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rules_are_refused_with_file_and_line(tmp_path: Path, name: str) -> None:
    rule, word = WRONG[name]
    found = problems_of(write(tmp_path, [rule]))
    assert any(word in problem for problem in found), found
    path = tmp_path / "disk" / "disk-full.yaml"
    assert all(problem.startswith(f"{path}:") and problem[len(str(path)) + 1].isdigit() for problem in found), found


def test_the_line_is_that_of_the_wrong_key(tmp_path: Path) -> None:
    folder = write(tmp_path, [changed(status="golden")])
    path = folder / "disk" / "disk-full.yaml"
    number = next(number for number, row in enumerate(path.read_text().splitlines(), 1) if row.startswith("status"))
    assert problems_of(folder)[0].startswith(f"{path}:{number}:")


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path, [changed(id=f"rule-{index}", **{key: "nonsense"}) for index, key in enumerate(("status", "cause", "rank"))])
    (folder / "disk" / "broken.yaml").write_text("id: [unclosed")
    (folder / "disk" / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    found = problems_of(folder)
    assert {Path(problem.split(":")[0]).name for problem in found} == {
        "rule-0.yaml",
        "rule-1.yaml",
        "rule-2.yaml",
        "broken.yaml",
        "binary.yaml",
    }


def test_duplicate_ids_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, [RULE])
    (folder / "other").mkdir()
    shutil.copy(folder / "disk" / "disk-full.yaml", folder / "other" / "disk-full.yaml")
    assert any("already defined" in problem for problem in problems_of(folder))


def test_an_id_other_than_the_file_name_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, [RULE])
    (folder / "disk" / "disk-full.yaml").rename(folder / "disk" / "other-name.yaml")
    assert any("differs from the file's name" in problem for problem in problems_of(folder))


def test_a_cause_with_an_unknown_action_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, [RULE])
    (folder / "actions.yaml").write_text("other: {risk: observe, summary: Looks.}\n")
    assert sum("unknown action 'free-disk'" in problem for problem in problems_of(folder)) == 2


def test_without_causes_everything_is_said_to_be_unknown(tmp_path: Path) -> None:
    folder = write(tmp_path, [RULE])
    (folder / "causes.yaml").unlink()
    assert any("causes.yaml" in problem for problem in problems_of(folder))


# ---- proving rules on their samples


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (changed(samples__match__0__text="all is well", samples__match__0__captures={}), "does not fire"),
        (changed(samples__match__0__captures={"what": "floor"}), "captures"),
        (changed(samples__no_match__0__text="No space left on device"), "fires on its negative"),
    ],
)
def test_samples_that_contradict_the_rule_are_told(tmp_path: Path, rule: dict[str, Any], word: str) -> None:
    assert any(word in problem for problem in ruletest.problems(write(tmp_path, [rule])))


def test_a_rule_of_another_cause_on_the_same_sample_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path, [RULE, changed(id="space", cause="disk/other", match__any=["space left on (?P<what>device)"])])
    (folder / "causes.yaml").write_text(yaml.safe_dump({"disk": {**CAUSES["disk"], "other": {"definition": "Another thing."}}}))
    found = list(ruletest.problems(folder))
    assert any("space (disk/other) fires too" in problem for problem in found)


def test_a_benign_sample_that_fires_is_told_and_a_veto_silences(tmp_path: Path) -> None:
    sample = {"text": "warning: No space left on device, using another", "why": "it goes on"}
    folder = write(tmp_path, [RULE], {"samples": [sample]})
    assert any(problem.startswith("benign:") for problem in ruletest.problems(folder))
    veto = {"id": "goes-on", "any": ["^warning:"], "why": "the program goes on", "samples": [sample["text"]]}
    assert list(ruletest.problems(write(tmp_path, [RULE], {"patterns": [veto], "samples": [sample]}))) == []


def test_the_whole_library_behaves() -> None:
    assert list(ruletest.problems()) == []


def test_the_whole_library_is_broad_and_names_its_references() -> None:
    library = compile_library()
    assert len(library.rules) >= 150
    assert all(rule.reference for rule in library.rules)
    assert {rule.cause for rule in library.rules} <= set(library.causes)


# ---- the cache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "patterns", [RULE])


def test_the_cache_holds_the_same_library(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(folder, tmp_path / "cache")
    monkeypatch.setattr(module, "compile_library", lambda root=None: pytest.fail("compiled although nothing changed"))
    assert load(folder, tmp_path / "cache") == first == Library(first.rules, first.benign, first.causes, first.actions)


def test_the_real_library_survives_the_cache(tmp_path: Path) -> None:
    assert load(patterns_dir(), tmp_path) == load(patterns_dir(), tmp_path) == compile_library()


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"null", b'{"rules": 3}', b"\xff\xfe", b'{"rules": [{}], "causes": {}, "actions": {}, "benign": []}']
)
def test_a_damaged_cache_is_made_anew(folder: Path, tmp_path: Path, damage: bytes) -> None:
    first = load(folder, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(damage)
    assert load(folder, tmp_path / "cache") == first
    assert json.loads(entry.read_bytes())["rules"]


def test_a_cut_cache_is_made_anew(folder: Path, tmp_path: Path) -> None:
    first = load(folder, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    data = entry.read_bytes()
    for cut in range(0, len(data), max(1, len(data) // 25)):
        entry.write_bytes(data[:cut])
        assert load(folder, tmp_path / "cache") == first


def test_a_home_that_cannot_be_written_is_no_hindrance(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert len(load(folder, tmp_path / "file" / "cache").rules) == 1
    monkeypatch.setattr(module.tempfile, "NamedTemporaryFile", lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "denied")))
    assert len(load(folder, tmp_path / "cache").rules) == 1


def test_a_changed_rule_is_seen(folder: Path, tmp_path: Path) -> None:
    load(folder, tmp_path / "cache")
    write(folder, [changed(title="The disk is full, more than full")])
    assert load(folder, tmp_path / "cache").rules[0].title.endswith("more than full")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_wrong_rules_are_not_hidden_by_the_cache(folder: Path, tmp_path: Path) -> None:
    load(folder, tmp_path / "cache")
    write(folder, [changed(status="golden")])
    with pytest.raises(RuleError):
        load(folder, tmp_path / "cache")
