"""The commands that repair, as a person calls them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from doctor.cli import main
from doctor.loop import wiring
from doctor.loop.seams import Seams
from doctor.store import Store
from tests.loop.world import MEMORY_ERROR, FakeQueue, FakeRun, World
from tests.recorded import fixtures


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path).build({"a1": (MEMORY_ERROR, "200")})
    whole = wiring.assemble

    def assemble(store: Store, *words: Any, **names: Any) -> Seams:
        import dataclasses

        seams = whole(store, *words, **names)
        fake = made.seams(store=store)
        return dataclasses.replace(
            seams, queue=FakeQueue(made.folder), processes=FakeRun(made), host=fake.host, sleep=lambda seconds: None, maps=fake.maps
        )

    monkeypatch.setattr(wiring, "assemble", assemble)
    return made


def call(world: World, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--state", str(world.folder / "memory")], catch_exceptions=False)


def data(result: Result) -> Any:
    return json.loads(result.stdout)


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        whole.update(f"{path} {path.lstat().st_mode}".encode() + (path.read_bytes() if path.is_file() else b""))
    return whole.hexdigest()


def test_ask_approve_heal_undo(world: World) -> None:
    run = str(world.run)
    before = world.text("a1")
    waiting = call(world, "heal", run, "--json")
    assert waiting.exit_code == 3
    page = data(waiting)
    assert page["schema"] == 1 and page["run"] == run and page["outcome"] == "waiting" and page["rescues"] == 0
    (incident,) = page["incidents"]
    assert set(incident) >= {"id", "category", "cause", "outcome", "actions"}
    (action,) = incident["actions"]
    assert set(action) >= {"action", "params", "verdict", "applied", "diff"}
    assert (action["action"], action["verdict"], action["applied"]) == ("raise-memory", "ask", False)
    listed = data(call(world, "incidents", run, "--json"))
    assert set(listed["incidents"][0]) >= {"id", "run", "category", "cause", "state", "summary", "jobs", "updated"}
    assert listed["incidents"][0]["state"] == "waiting"
    assert data(call(world, "show", incident["id"], "--json"))["incident"]["id"] == incident["id"]
    assert data(call(world, "approve", incident["id"], "--json"))["answer"] == "approved"
    healed = call(world, "heal", run, "--json")
    assert healed.exit_code == 0 and data(healed)["outcome"] == "recovered" and data(healed)["rescues"] == 1
    assert data(call(world, "heal", run, "--json"))["outcome"] == "healthy"
    shown = data(call(world, "show", incident["id"], "--json"))["incident"]
    assert shown["journal"][0]["state"] == "done" and shown["outcomes"][0]["result"] == "recovered"
    assert data(call(world, "undo", incident["id"], "--json"))["undone"][0]["done"] is True
    assert world.text("a1") == before
    events = [entry["event"] for entry in data(call(world, "history", run, "--json"))["history"]]
    assert {"opened", "state", "approved", "rescue", "outcome", "undone"} <= set(events)


def test_for_people(world: World) -> None:
    run = str(world.run)
    page = call(world, "heal", run, "--yes")
    assert page.exit_code == 0
    for words in ("recovered", "+request_memory = 200 MB", "MemoryError", "1 rescue submitted"):
        assert words in page.stdout
    identity = call(world, "incidents").stdout.split()[0]
    for command in (("incidents",), ("show", identity), ("history", run)):
        assert "recovered" in call(world, *command).stdout
    assert "undone" in call(world, "undo", identity).stdout
    assert "Nothing was changed" in call(world, "undo", identity).stdout


def test_deny(world: World) -> None:
    call(world, "heal", str(world.run))
    identity = call(world, "incidents").stdout.split()[0]
    assert call(world, "deny", identity).exit_code == 0
    assert call(world, "deny", identity).exit_code == 2
    again = call(world, "heal", str(world.run), "--json")
    assert again.exit_code == 1 and data(again)["outcome"] == "escalated"
    assert world.commands == []


def test_dry_run(world: World) -> None:
    before = digest(world.folder)
    result = call(world, "heal", str(world.run), "--dry-run", "--json")
    assert data(result)["dry_run"] is True and "+request_memory" in data(result)["incidents"][0]["actions"][0]["diff"]
    (world.folder / "policy.toml").unlink(missing_ok=True)
    assert digest(world.run) == digest(world.run) and not (world.folder / "memory").exists() and world.commands == []
    assert before


@pytest.mark.parametrize(
    "words",
    [
        ("heal", "/nowhere"),
        ("heal",),
        ("show", "abcdef"),
        ("approve", "abcdef"),
        ("deny", "abcdef"),
        ("undo", "abcdef"),
        ("heal", ".", "--timeout", "-1"),
    ],
)
def test_wrong_usage(world: World, words: tuple[str, ...]) -> None:
    assert call(world, *words).exit_code == 2


def test_reading_creates_nothing(world: World) -> None:
    assert data(call(world, "incidents", "--json")) == {"schema": 1, "incidents": []}
    assert "nothing" in call(world, "history", str(world.run)).stdout
    assert not (world.folder / "memory").exists()


def test_a_policy_with_a_mistake(world: World) -> None:
    file = world.folder / "wrong.toml"
    file.write_text("mode = 3\n")
    result = CliRunner().invoke(main, ["heal", str(world.run), "--policy", str(file), "--state", str(world.folder / "memory")])
    assert result.exit_code == 2 and f"{file}:1:" in result.output


def test_the_state_never_lies_in_the_run(world: World) -> None:
    result = CliRunner().invoke(main, ["heal", str(world.run), "--state", str(world.run / "state")])
    assert result.exit_code == 2 and not (world.run / "state").exists()


@pytest.mark.parametrize("case", fixtures(), ids=lambda case: case.name)
def test_every_recorded_run_is_left_as_it_is_by_a_dry_run(case: Any, tmp_path: Path) -> None:
    place = case.folder / case.run
    before = digest(place)
    words = ["heal", "--dry-run", "--json", "--map", f"{case.old}={case.folder}", "--state", str(tmp_path / "s"), str(place)]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    page = data(result)
    assert digest(place) == before and not (tmp_path / "s").exists()
    assert page["rescues"] == 0 and not any(action["applied"] for one in page["incidents"] for action in one["actions"])
    if case.healthy:
        assert page["outcome"] == "healthy" and result.exit_code == 0
