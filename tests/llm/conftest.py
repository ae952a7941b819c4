"""A failed run that no rule explains, a store of its own, and a consultant whose provider is the scripted peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import actions
from doctor.diagnose.engine import Options, analyze
from doctor.diagnose.matcher import Matcher
from doctor.llm.classify import Classifier
from doctor.llm.client import Client
from doctor.llm.config import Access, load_settings
from doctor.llm.consult import Consultant
from doctor.model import Report
from doctor.run.reader import Run
from doctor.store import Store
from tests.builder import Builder, record
from tests.llm.peer import Peer, Script, serve

ODD = "zorblax: quux inversion at step 7 left the manifold open"
KEY = "sk-test-0123456789abcdef0123"
ACTIONS = {action.name: action for action in actions.ACTIONS}


def settings(**changes: Any) -> Any:
    base = load_settings(None, {}, Path("/nonexistent"))
    return base.model_copy(update={"longest_wait_s": 5.0, "timeout_s": 20.0, **changes})


def odd_run(folder: Path, *, stderr: str = ODD, stdout: str = "", jobs: int = 1, name: str = "job", transformation: str = "warp") -> Run:
    """A run in which every job failed with words that no rule knows."""
    build = Builder(folder)
    for number in range(jobs):
        which = f"{name}{number}" if jobs > 1 else name
        condor = f"{101 + number}.0"
        build.job(which, transformation=transformation, outputs={".out.000": record(raw=768, stderr=stderr, stdout=stdout, condor=condor)})
        build.fail(which, condor=condor, code=3)
    build.finish(1)
    return build.open()


@dataclass
class Rig:
    """Everything of one test: the peer, the store, and the way to ask."""

    peer: Peer
    store: Store
    matcher: Matcher
    slept: list[float] = field(default_factory=list)
    now: float = 1_795_300_000.0
    changes: dict[str, Any] = field(default_factory=dict)
    ticks: Callable[[], float] = lambda: 0.0

    def classifier(self, **changes: Any) -> Classifier:
        access = Access(settings(**{**self.changes, **changes}), KEY, self.peer.url)
        client = Client(access, sleep=self.slept.append, monotonic=self.ticks)
        return Classifier(access.settings, client, self.store, self.matcher, ACTIONS, lambda: self.now)

    def consultant(self, **changes: Any) -> Consultant:
        return Consultant(self.classifier(**changes), [("USER", "carla"), ("HOST", "front7")])

    def ask(self, run: Run, **changes: Any) -> Report:
        return self.consultant(**changes)(self.report(run), run)

    def report(self, run: Run) -> Report:
        return analyze(run, self.matcher, Options("off"))


@pytest.fixture
def rig(tmp_path: Path, matcher: Matcher) -> Iterator[Callable[[Script], Rig]]:
    """Starts a peer with a script; all peers and stores are closed at the end."""
    opened: list[Any] = []
    stores: list[Store] = []

    def start(script: Script, **changes: Any) -> Rig:
        manager = serve(script)
        peer = manager.__enter__()
        opened.append(manager)
        made = Rig(peer, Store(tmp_path / f"state{len(stores)}", lambda: made.now), matcher, changes=changes)
        stores.append(made.store)
        return made

    # the store asks for the time while it is being made
    def safe(script: Script, **changes: Any) -> Rig:
        manager = serve(script)
        peer = manager.__enter__()
        opened.append(manager)
        box = [1_795_300_000.0]
        store = Store(tmp_path / f"state{len(stores)}", lambda: box[0])
        stores.append(store)
        made = Rig(peer, store, matcher, changes=changes)
        store.clock = lambda: made.now
        return made

    del start
    yield safe
    for store in stores:
        store.close()
    for manager in opened:
        manager.__exit__(None, None, None)
