"""Who may switch the model on and off, and how mistakes in the configuration are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.errors import DoctorError
from doctor.llm.config import Access, Off, access, load_settings
from doctor.llm.wiring import opinion_node

KEY = {"ANTHROPIC_API_KEY": "sk-test-0123456789"}
NOWHERE = Path("/nonexistent/config.toml")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_without_a_key_nothing_is_asked() -> None:
    found = access(load_settings(None, {}, NOWHERE), {}, requested=True)
    assert isinstance(found, Off) and "ANTHROPIC_API_KEY" in found.reason


def test_with_a_key_only_on_request() -> None:
    settings = load_settings(None, {}, NOWHERE)
    assert isinstance(access(settings, KEY, requested=True), Access)
    found = access(settings, KEY, requested=False)
    assert isinstance(found, Off) and "on request" in found.reason


def test_the_loop_may_ask_where_the_user_says_so(tmp_path: Path) -> None:
    own = write(tmp_path / "c.toml", '[llm]\nmode = "always"\n')
    assert isinstance(access(load_settings(own, {}, NOWHERE), KEY, requested=False), Access)


@pytest.mark.parametrize("text", ['llm = "off"\n', '[llm]\nmode = "off"\n'])
def test_a_site_forbids_it_for_everybody(tmp_path: Path, text: str) -> None:
    own = write(tmp_path / "own.toml", '[llm]\nmode = "always"\n')
    site = write(tmp_path / "site.toml", text)
    found = access(load_settings(own, {}, site), KEY, requested=True)
    assert isinstance(found, Off) and "forbids" in found.reason


def test_a_site_sets_limits_that_hold(tmp_path: Path) -> None:
    own = write(tmp_path / "own.toml", "[llm.budget]\nday_dollars = 99.0\nrun_dollars = 9.0\n")
    site = write(tmp_path / "site.toml", "[llm.budget]\nday_dollars = 0.5\n")
    budget = load_settings(own, {}, site).budget
    assert (budget.day_dollars, budget.run_dollars) == (0.5, 9.0)


def test_the_users_own_file_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "pegasus-doctor"
    folder.mkdir()
    write(folder / "config.toml", '[llm]\nmodel = "claude-opus-4-8"\n[polling]\nqueue_s = 60\n')
    assert load_settings(None, {"XDG_CONFIG_HOME": str(tmp_path)}, NOWHERE).model == "claude-opus-4-8"


def test_the_address_of_the_environment_goes_first(tmp_path: Path) -> None:
    own = write(tmp_path / "c.toml", '[llm]\nbase_url = "http://gateway.example.org"\n')
    settings = load_settings(own, {}, NOWHERE)
    first = access(settings, KEY, requested=True)
    second = access(settings, {**KEY, "ANTHROPIC_BASE_URL": "http://127.0.0.1:8080"}, requested=True)
    assert isinstance(first, Access) and first.base_url == "http://gateway.example.org"
    assert isinstance(second, Access) and second.base_url == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[llm]\nmodell = "x"\n', (":2", "modell", "unknown key")), ("[llm]\nconfidence = 7\n", (":2", "confidence")),
        ('[llm]\nmode = "sometimes"\n', (":2", "mode")), ('[llm]\nprices = { "m" = [1.0] }\n', ("prices.m", "four numbers")),
        ("[llm]\n[llm.budget]\nrun_tokens = -1\n", (":3", "run_tokens")), ("[llm\n", ("TOML",)), ("llm = 5\n", ("mode",)),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_file_and_line(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file = write(tmp_path / "c.toml", text)
    with pytest.raises(DoctorError) as caught:
        load_settings(file, {}, NOWHERE)
    for word in (str(file), *words):
        assert word in str(caught.value)


def test_there_is_no_opinion_node_without_permission(tmp_path: Path) -> None:
    settings = load_settings(None, {}, NOWHERE)
    nothing: object = None
    assert opinion_node(nothing, nothing, KEY, settings=settings) is None  # type: ignore[arg-type]
