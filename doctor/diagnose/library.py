"""Loading the rule library: strict from YAML when it changed, from a compiled cache otherwise.

Reading and checking some two hundred YAML files takes most of a second; the result is therefore
kept as one JSON file under ``$XDG_CACHE_HOME/pegasus-doctor``, keyed by name, size and time of every
rule file. The cache holds nothing that the YAML does not; deleting it is always safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor import __version__
from doctor.diagnose.literals import Index, index
from doctor.errors import RuleError
from doctor.model import Kind, Strength

if TYPE_CHECKING:
    import yaml

    from doctor.diagnose.rules import Benign, Rule

BENIGN = "benign"  # the folder of harmless lines; everything else below patterns/ is an area of rules
_FORMAT = 5  # raise when CompiledRule changes, so that old caches are not read


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """What the engine needs of one rule at run time (no samples, groups expanded)."""

    id: str
    title: str
    status: str
    cause: str
    kinds: frozenset[Kind]
    strength: Strength
    rank: int
    any: tuple[str, ...]
    all: tuple[str, ...]
    none: tuple[str, ...]
    code: tuple[tuple[int, int | str], ...]
    exit: tuple[int, ...]
    signal: tuple[int, ...]
    subject: str
    explains: tuple[str, ...]
    advice: str
    remedy: str
    remedy_with: tuple[tuple[str, str], ...]
    reference: str


@dataclass(frozen=True, slots=True)
class CauseInfo:
    """One cause of the closed list: what it means, what a person does, which actions may cure it."""

    definition: str
    advice: str
    remedies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ActionInfo:
    """Risk and one-sentence summary of a repair that rules may propose."""

    risk: str
    summary: str


@dataclass(frozen=True)
class Library:
    """The whole rule library, ready to be matched. Causes are keyed ``category/id``."""

    rules: tuple[CompiledRule, ...]
    benign: tuple[str, ...]
    causes: dict[str, CauseInfo]
    actions: dict[str, ActionInfo]

    @property
    def patterns(self) -> tuple[str, ...]:
        """All text patterns: those of the rules in their order, then the harmless ones."""
        return (*(pattern for rule in self.rules for pattern in rule.any), *self.benign)

    @cached_property
    def literals(self) -> tuple[Index, list[int]]:
        """The table of literals of :attr:`patterns` (kept in the cache, because making it takes time)."""
        return index(self.patterns)

    @cached_property
    def _deciders(self) -> dict[str, CompiledRule]:
        return {f"rule:{rule.id}": rule for rule in self.rules}

    def decider(self, decided_by: str) -> CompiledRule | None:
        """The rule behind ``rule:<id>``; None where something else decided."""
        return self._deciders.get(decided_by)


def patterns_dir() -> Path:
    """Where the rule files are: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).resolve().parent.parent
    for candidate in (here.parent / "patterns", here / "_patterns"):
        if (candidate / "causes.yaml").is_file():
            return candidate
    raise RuleError([f"no rule library found beside {here}; the installation is incomplete"])


def rule_files(root: Path) -> list[Path]:
    """All rule files in a fixed order: ``<area>/<rule-id>.yaml``."""
    return sorted(path for path in root.glob("*/*.yaml") if path.parent.name != BENIGN)


def load(root: Path | None = None, cache: Path | None = None) -> Library:
    """Return the library, from the cache when no rule file changed.

    Raises :class:`~doctor.errors.RuleError` with every problem of every file when one is wrong.
    """
    root = root or patterns_dir()
    files = [root / "causes.yaml", root / "actions.yaml", *sorted(root.glob("*/*.yaml"))]
    target = (cache or _cache_dir()) / f"rules-{_digest(files)}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # absent, damaged or foreign: compile anew
        return _from_json(json.loads(target.read_text("utf-8")))
    library = compile_library(root)
    with suppress(OSError):  # a read-only home only costs the time of compiling
        _write_cache(target, library)
    return library


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "pegasus-doctor"


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256(f"{__version__}:{_FORMAT}".encode())
    for path in files:
        try:
            stat = path.stat()
        except OSError:
            continue
        digest.update(f"{path}:{stat.st_size}:{stat.st_mtime_ns};".encode())
    return digest.hexdigest()[:24]


def _write_cache(target: Path, library: Library) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob("rules-*.json"):
        old.unlink(missing_ok=True)
    plain = {**asdict(library), "literals": library.literals}
    for rule in plain["rules"]:
        rule["kinds"] = sorted(kind.value for kind in rule["kinds"])
    with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False, encoding="utf-8") as handle:
        json.dump(plain, handle)
    os.replace(handle.name, target)


def _from_json(plain: dict[str, Any]) -> Library:
    rules = tuple(
        CompiledRule(
            **{
                **rule,
                "kinds": frozenset(map(Kind, rule["kinds"])),
                "strength": Strength(rule["strength"]),
                **{name: tuple(rule[name]) for name in ("any", "all", "none", "exit", "signal", "explains")},
                "code": tuple((code, sub) for code, sub in rule["code"]),
                "remedy_with": tuple((name, value) for name, value in rule["remedy_with"]),
            }
        )
        for rule in plain["rules"]
    )
    causes = {name: CauseInfo(info["definition"], info["advice"], tuple(info["remedies"])) for name, info in plain["causes"].items()}
    actions = {name: ActionInfo(**info) for name, info in plain["actions"].items()}
    library = Library(rules, tuple(plain["benign"]), causes, actions)
    table, always = plain["literals"]
    library.__dict__["literals"] = (table, always)
    return library


@dataclass(frozen=True, slots=True)
class Source:
    """A checked rule with the file it stands in (for ``rules show`` and ``rules test``)."""

    rule: Rule
    file: Path


def read_sources(root: Path | None = None) -> tuple[list[Source], tuple[Benign, ...], dict[str, CauseInfo], dict[str, ActionInfo]]:
    """Read and check every rule file; raises one :class:`RuleError` with all problems, file and line each."""
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from doctor.diagnose.rules import Benign, Cause, Rule

    root = root or patterns_dir()
    problems: list[str] = []

    def checked(path: Path, adapter: TypeAdapter[Any]) -> Any:
        try:
            text = path.read_text("utf-8")
            node = yaml.compose(text, Loader=yaml.CSafeLoader)
            data = yaml.load(text, Loader=yaml.CSafeLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
            mark = getattr(problem, "problem_mark", None)
            problems.append(f"{path}:{mark.line + 1 if mark else 1}: {problem}".replace("\n", " "))
            return None
        try:
            return adapter.validate_python(data)
        except ValidationError as failure:
            for error in failure.errors():
                place = ".".join(str(part) for part in error["loc"]) or "file"
                problems.append(f"{path}:{_line_of(node, error['loc'])}: {place}: {error['msg']}")
            return None

    tree = checked(root / "causes.yaml", TypeAdapter(dict[str, dict[str, Cause]])) or {}
    actions = checked(root / "actions.yaml", TypeAdapter(dict[str, ActionInfo])) or {}
    harmless = tuple(part for path in sorted(root.glob(f"{BENIGN}/*.yaml")) if (part := checked(path, TypeAdapter(Benign))))
    causes = {
        f"{category}/{name}": CauseInfo(cause.definition, cause.advice, cause.remedies)
        for category, entries in tree.items()
        for name, cause in entries.items()
    }
    for name, info in causes.items():
        problems += [f"{root / 'causes.yaml'}:1: {name}: unknown action {act!r}" for act in info.remedies if act not in actions]
    sources: list[Source] = []
    seen: dict[str, Path] = {}
    adapter = TypeAdapter(Rule)
    for path in rule_files(root):
        rule = checked(path, adapter)
        if rule is None:
            continue
        if rule.id != path.stem:
            problems.append(f"{path}:1: id {rule.id!r} differs from the file's name")
        if rule.id in seen:
            problems.append(f"{path}:1: id {rule.id!r} is already defined in {seen[rule.id]}")
        seen[rule.id] = path
        if rule.cause not in causes:
            problems.append(f"{path}:1: unknown cause {rule.cause!r}")
        problems += [f"{path}:1: explains unknown cause {name!r}" for name in rule.explains if name not in causes]
        if rule.remedy and rule.remedy.action not in actions:
            problems.append(f"{path}:1: unknown action {rule.remedy.action!r}")
        sources.append(Source(rule, path))
    for source in sources:
        for sample in source.rule.samples.match:
            problems += [f"{source.file}:1: sample names unknown rule {other!r}" for other in sample.also if other not in seen]
    if problems:
        raise RuleError(problems)
    return sources, harmless, causes, actions


def _line_of(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """1-based line of the deepest node on the path that pydantic names."""
    import yaml

    line = 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if str(part) not in pairs:
                break
            key, node = pairs[str(part)]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def compile_library(root: Path | None = None) -> Library:
    """Check all rule files and turn them into run-time records."""
    sources, harmless, causes, actions = read_sources(root)
    rules = tuple(
        CompiledRule(
            id=rule.id,
            title=rule.title,
            status=rule.status,
            cause=rule.cause,
            kinds=frozenset(rule.kinds()),
            strength=rule.strength,
            rank=rule.rank,
            any=rule.match.any,
            all=rule.match.all,
            none=rule.match.none,
            code=rule.match.code,
            exit=rule.match.exit,
            signal=rule.match.signal,
            subject=rule.subject,
            explains=rule.explains,
            advice=rule.advice,
            remedy=rule.remedy.action if rule.remedy else "",
            remedy_with=tuple(rule.remedy.with_.items()) if rule.remedy else (),
            reference=rule.reference,
        )
        for rule in (source.rule for source in sources)
    )
    vetoes = tuple(pattern for part in harmless for entry in part.patterns for pattern in entry.any)
    return Library(rules, vetoes, causes, actions)
