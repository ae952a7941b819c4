"""The answer space, closed: a tool whose input names one cause of the list (or abstains), lines and jobs of the pack.

The schema is the same for every incident, so that providers can cache it; what it cannot say (that a
line or a job exists in *this* pack, that an action's parameters are valid) is checked in :func:`read`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from doctor.diagnose.library import Library
from doctor.llm.lines import visible
from doctor.llm.pack import Pack

ABSTAIN = "abstain"
ANSWER, READ_LINES, LIST_FOLDER, SHOW_PRODUCER = "answer", "read_lines", "list_folder", "show_producer"
MENU = frozenset({READ_LINES, LIST_FOLDER, SHOW_PRODUCER})
_LINE = r"^E[1-9][0-9]{0,3}$"
_JOB = r"^J[1-9][0-9]{0,2}$"
_COMMAND = re.compile(
    r"`[^`]*\s[^`]*`|\$\(|\$\{|\b(?:sudo|doas)\s+\S|\brm\s+-|\|\s*(?:ba|z|da)?sh\b|\b(?:curl|wget)\s+\S|\bchmod\s+[0-7+ugoa]|\bchown\s+\S+[:\s]|"
    r"\b(?:pip3?|conda|mamba|apt|apt-get|yum|dnf|npm)\s+(?:install|remove|uninstall)\b|\bcondor_[a-z]+\s+[-\d<]|"
    r"\bpegasus-[a-z]+\s+[-/.<]|\b(?:ba)?sh\s+-c\b|\bpython[0-9.]*\s+-[cm]\b|&&|;\s*(?:rm|curl|wget|sh|bash)\b|\beval\s*[($]",
    re.IGNORECASE,
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>)\]]+", re.IGNORECASE)


class ActionSpec(Protocol):
    """What is asked of a registered action: its name, what it does, and its validated parameters."""

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def params(self) -> type[BaseModel]: ...


class Refused(Exception):
    """The answer lies outside the closed space; the message says to the model what is wrong with it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Strict):
    """One step of the causal chain, with the line that shows it ('' for a conclusion)."""

    line: Annotated[str, StringConstraints(pattern=r"^(?:E[1-9][0-9]{0,3})?$")] = ""
    says: str = Field(min_length=1, max_length=600)


class ChosenAction(_Strict):
    name: str = Field(max_length=60)
    params: dict[str, str | int | float | bool] = Field(default_factory=dict, max_length=12)


class Answer(_Strict):
    """An answer as the model gives it, of the right shape and not yet believed."""

    cause: str = Field(max_length=100)
    culprit: Annotated[str, StringConstraints(pattern=rf"{_JOB}|^$")] = ""
    evidence: list[Annotated[str, StringConstraints(pattern=_LINE)]] = Field(default_factory=list, max_length=8)
    chain: list[Step] = Field(default_factory=list, max_length=6)
    explanation: str = Field(default="", max_length=2000)
    advice: str = Field(default="", max_length=1000)
    confidence: float = Field(ge=0, le=1)
    action: ChosenAction | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer whose every name exists. ``action`` are name and validated parameters; texts have their placeholders back."""

    cause: str  # or ABSTAIN
    culprit: str
    evidence: tuple[str, ...]
    chain: tuple[tuple[str, str], ...]
    explanation: str
    advice: str
    confidence: float
    action: tuple[str, dict[str, Any]] | None = None
    notes: tuple[str, ...] = field(default=())


def tools(library: Library, actions: Iterable[ActionSpec]) -> list[dict[str, Any]]:
    """All tools of a request: the answer and the fixed menu. The same list for every request."""
    names = sorted(action.name for action in actions)
    line = {"type": "string", "pattern": _LINE}
    answer = {
        "type": "object",
        "additionalProperties": False,
        "required": ["cause", "culprit", "evidence", "chain", "explanation", "advice", "confidence"],
        "properties": {
            "cause": {"type": "string", "enum": [*sorted(library.causes), ABSTAIN], "description": f"one cause of the list, or {ABSTAIN}"},
            "culprit": {"type": "string", "description": "number of the job to blame, such as J1; empty when it is none of them"},
            "evidence": {"type": "array", "maxItems": 8, "items": line, "description": "numbers of the lines that prove it, best first"},
            "chain": {
                "type": "array", "maxItems": 6, "description": "from the line over the cause to the symptom",
                "items": {
                    "type": "object", "additionalProperties": False, "required": ["says"],
                    "properties": {"line": {"type": "string"}, "says": {"type": "string", "maxLength": 600}},
                },
            },
            "explanation": {"type": "string", "maxLength": 2000, "description": "for a scientist: what happened and why, in plain words"},
            "advice": {"type": "string", "maxLength": 1000, "description": "what a person should look at or change; no commands"},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            "action": {
                "type": "object", "additionalProperties": False, "required": ["name", "params"],
                "description": "optional: the registered repair that would cure it",
                "properties": {"name": {"type": "string", "enum": names}, "params": {"type": "object"}},
            },
        },
    }  # fmt: skip
    text = {"type": "string"}
    return [
        {"name": ANSWER, "description": "Give the verdict, or abstain.", "input_schema": answer},
        {
            "name": READ_LINES,
            "description": "Ask for at most 60 further lines of one file of this run that the evidence names.",
            "input_schema": {
                "type": "object", "additionalProperties": False, "required": ["file", "first", "last"],
                "properties": {"file": text, "first": {"type": "integer", "minimum": 1}, "last": {"type": "integer", "minimum": 1}},
            },
        },
        {
            "name": LIST_FOLDER,
            "description": "Ask for the names and sizes of a job's own files in the submit directory.",
            "input_schema": {"type": "object", "additionalProperties": False, "required": ["job"], "properties": {"job": text}},
        },
        {
            "name": SHOW_PRODUCER,
            "description": "Ask which job was to write a file that a job reads, and how that job ended.",
            "input_schema": {
                "type": "object", "additionalProperties": False, "required": ["job", "file"], "properties": {"job": text, "file": text},
            },
        },
    ]  # fmt: skip


def read(data: Any, pack: Pack, library: Library, actions: Mapping[str, ActionSpec]) -> Checked:
    """The answer with everything in it looked up. Raises :class:`Refused` for whatever is outside the lists."""
    try:
        answer = Answer.model_validate(data)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise Refused(f"{'.'.join(str(part) for part in first['loc']) or 'the answer'}: {first['msg']}") from None
    if answer.cause != ABSTAIN and answer.cause not in library.causes:
        raise Refused("cause: not one of the list")
    lines = tuple(dict.fromkeys([*answer.evidence, *(step.line for step in answer.chain if step.line)]))
    missing = [number for number in lines if number not in pack.lines]
    if missing:
        raise Refused(f"evidence: there is no line {missing[0]}")
    if answer.culprit and answer.culprit not in pack.jobs:
        raise Refused(f"culprit: there is no job {answer.culprit}")
    texts = [answer.explanation, answer.advice, *(step.says for step in answer.chain)]
    for text in texts:
        _no_command(text, pack)
    back = [visible(pack.redactor.restore(visible(text))) for text in texts]
    if answer.cause == ABSTAIN:
        return Checked(ABSTAIN, "", (), (), back[0], back[1], 0.0)
    if not answer.evidence:
        raise Refused("evidence: a cause needs at least one line that proves it")
    if not answer.explanation.strip():
        raise Refused("explanation: is empty")
    chain = tuple((step.line, says) for step, says in zip(answer.chain, back[2:], strict=True))
    action = _action(answer.action, pack, actions) if answer.action else None
    return Checked(answer.cause, answer.culprit, tuple(dict.fromkeys(answer.evidence)), chain, back[0], back[1], answer.confidence, action)


def _no_command(text: str, pack: Pack) -> None:
    if _COMMAND.search(text):
        raise Refused("explanation, advice and chain are for people to read: no commands, no shell syntax")
    shown = "\n".join((*pack.rows, *pack.tail))
    for url in _URL.findall(text):
        if url.rstrip(".,;:") not in shown:
            raise Refused("explanation, advice and chain name no address that is not in the evidence")


def _action(chosen: ChosenAction, pack: Pack, actions: Mapping[str, ActionSpec]) -> tuple[str, dict[str, Any]]:
    spec = actions.get(chosen.name)
    if spec is None:
        raise Refused("action: not a registered one")
    params: dict[str, Any] = {}
    shown = "\n".join(pack.rows)
    for name, value in chosen.params.items():
        if name == "job":
            continue  # the culprit, which is chosen by its number
        if isinstance(value, str):
            if value and value not in shown:
                raise Refused(f"action.params.{name}: its text stands nowhere in the evidence")
            value = pack.redactor.restore(value)  # noqa: PLW2901
        params[name] = value
    try:
        made = spec.params.model_validate(params)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise Refused(f"action.params.{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    return chosen.name, {name: value for name, value in made.model_dump(mode="json").items() if name in params}
