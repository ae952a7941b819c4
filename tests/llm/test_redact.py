"""Nothing secret gets out, and everything comes back exactly: single shapes, whole requests, any text at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.llm.lines import shorten, visible, without_keys
from doctor.llm.redact import Redactor
from doctor.model import Line
from tests.llm.conftest import KEY, ODD, Rig, odd_run
from tests.llm.peer import Script, answer, call, in_turn, says
from tests.llm.secrets import PEM, SECRETS

NAMES = (("USER", "carla"), ("HOST", "front7"), ("HOST", "front7.example.org"))


def test_there_are_enough_shapes() -> None:
    assert len(SECRETS) >= 40
    assert len({name for name, _, _ in SECRETS}) == len(SECRETS)


@pytest.mark.parametrize(("line", "parts"), [(line, parts) for _, line, parts in SECRETS], ids=[name for name, _, _ in SECRETS])
def test_no_part_of_a_secret_is_left_and_the_line_comes_back(line: str, parts: tuple[str, ...]) -> None:
    assert all(part in line for part in parts)
    redactor = Redactor(NAMES)
    safe = redactor.line(line)
    assert not [part for part in parts if part in safe], safe
    assert redactor.restore(safe) == line


@pytest.mark.parametrize(("line", "parts"), [(line, parts) for _, line, parts in SECRETS], ids=[name for name, _, _ in SECRETS])
@pytest.mark.parametrize("frame", ["2026-11-21 05:12:29,162 ERROR: {}", "   '{}'", "[stderr] ({})", "x={} failed", "{}, and then it died"])
def test_secrets_are_found_amid_other_text(line: str, parts: tuple[str, ...], frame: str) -> None:
    redactor = Redactor(NAMES)
    text = frame.replace("{}", line)
    safe = redactor.line(text)
    assert not [part for part in parts if part in safe], safe
    assert redactor.restore(safe) == text


def test_a_key_over_several_lines() -> None:
    redactor = Redactor()
    safe = redactor.lines(PEM)
    assert safe[0] == PEM[0] and safe[-1] == PEM[-1]
    assert not [part for part in ("b3BlbnNzaC1", "shortline", "Qw==") if part in "\n".join(safe)]
    assert [redactor.restore(text) for text in safe] == list(PEM)


@pytest.mark.parametrize("cut", range(1, len(PEM)))
def test_a_key_whose_beginning_or_end_was_cut_off(cut: int) -> None:
    for part in (PEM[cut:], PEM[:cut]):
        shown = " ".join(line.text for line in without_keys([Line(text, number) for number, text in enumerate(part, 1)]))
        if any("-----" in text for text in part):
            assert "b3BlbnNzaC1" not in shown and "shortline" not in shown and "Qw==" not in shown


@pytest.mark.parametrize(
    "line",
    [
        "ModuleNotFoundError: No module named 'wavelib.core.io'", "numpy.core.multiarray failed to import",
        'File "/var/lib/condor/execute/dir_34071/s.cal", line 12, in load_all', "token expired at 12:00:00",
        "2026-11-20 21:23:12 INFO: pegasus-transfer 2 transfers loaded", "ns::step_v1.2 wrote f.c1.out", "KeyError: 'temperature'",
        "memory usage exceeded request_memory", "IndexError: list index out of range", "exit code 137", "torch.nn.modules.conv failed",
        "slot1_2: SYSTEM_PERIODIC_HOLD", "error: the following arguments are required: --threshold", "Segmentation fault (core dumped)",
    ],
)  # fmt: skip
def test_what_a_diagnosis_needs_is_left(line: str) -> None:
    assert Redactor(NAMES).line(line) == line


def test_the_same_name_is_the_same_placeholder_and_another_is_another() -> None:
    redactor = Redactor()
    first = redactor.line("lost a1.example.org, then b2.example.org, then a1.example.org")
    assert first == "lost <HOST_1>, then <HOST_2>, then <HOST_1>"
    assert redactor.line("a1.example.org is back") == "<HOST_1> is back"


def test_text_that_looks_like_a_placeholder_is_not_mistaken_for_one() -> None:
    redactor = Redactor()
    redactor.line("on a1.example.org")
    text = "the log itself says <HOST_1> and <TOKEN_7>"
    safe = redactor.line(text)
    assert "<HOST_1>" not in safe
    assert redactor.restore(safe) == text


@given(st.lists(st.one_of(st.text(max_size=60), st.sampled_from([line for _, line, _ in SECRETS]), st.just("<HOST_1>")), max_size=6))
def test_any_text_comes_back(parts: list[str]) -> None:
    redactor = Redactor(NAMES)
    texts = [" ".join(parts), *parts]
    safe = redactor.lines(texts)
    assert [redactor.restore(text) for text in safe] == texts


@given(st.text(alphabet="-_.:=/@<>'\"\\ aA0+", max_size=4096))
def test_hostile_lines_stay_cheap_and_come_back(text: str) -> None:
    redactor = Redactor(NAMES)
    assert redactor.restore(redactor.line(text)) == text


def test_shortening_never_splits_a_placeholder() -> None:
    redactor = Redactor()
    for pad in range(280, 330):
        shown = shorten(redactor.line("x" * pad + " a1.example.org tail"), 300)
        assert "<HOST" not in shown or "<HOST_1>" in shown


def test_invisible_characters_are_gone() -> None:
    assert visible("a\u200bb\u202ec\U000e0041d\x1b[31me\nf") == "abcde f"


def test_nothing_of_the_corpus_reaches_the_wire(rig: Callable[..., Rig], tmp_path: Path) -> None:
    """All shapes at once in a job's output, files and names; the request, the menu's answers and the repeat are searched."""
    script: Script = in_turn(
        says(call("read_lines", {"file": "00/00/job.out.000", "first": 1, "last": 200})),
        says(call("list_folder", {"job": "J1"})),
        says(answer("user-code/model-configuration", "E999")),
        says(answer("abstain")),
    )
    text = "\n".join(line for _, line, _ in SECRETS)
    made = rig(script)
    run = odd_run(tmp_path / "run", stderr=f"{ODD}\n{text}\n" + "\n".join(PEM) + f"\n{ODD}", stdout=text)
    report = made.report(run)
    one = report.incidents[0]
    uncertain = type(one)(one.id, type(one.diagnosis)(**{**_fields(one.diagnosis), "confidence": 0.1}), one.jobs)
    asked = type(report)(**{**_fields(report), "incidents": (uncertain,)})
    made.consultant()(asked, run)
    assert len(made.peer.requests) == 4
    wire = "\n".join(json.dumps(body, ensure_ascii=False) for body in made.peer.requests)
    leaks = [(name, part) for name, line, parts in SECRETS for part in parts if part in wire]
    assert not leaks
    assert "b3BlbnNzaC1" not in wire and "shortline" not in wire
    assert KEY not in wire
    for head in made.peer.heads:
        assert [key for key, value in head.items() if KEY in value] in (["x-api-key"], ["authorization"])
        assert not [value for value in head.values() if "carla" in value or "front7" in value]


def _fields(record: object) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}  # type: ignore[attr-defined]
