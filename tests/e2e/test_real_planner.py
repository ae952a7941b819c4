"""The same workflows and the same checks with the real planner of this host, where one is on PATH."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.e2e import test_heal
from tests.e2e.scenarios import ESCALATED, HOSTILE, REAL, REAL_PREFIX, RECOVERED
from tests.pool import test_pool
from tests.pool.fleet import Fleet, Outcome
from tests.pool.real import MISSING

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "-")
NAMES = [one.name for one in REAL]


def _among(names: object) -> list[str]:
    return [name for name in NAMES if name.removeprefix(REAL_PREFIX) in names]  # type: ignore[operator]


@dataclass(frozen=True)
class _Planned:
    """The fleet as the other tests see it: what they ask for was planned by the real planner."""

    fleet: Fleet

    def outcome(self, name: str) -> Outcome:
        return self.fleet.outcome(REAL_PREFIX + name)


@pytest.fixture
def planned(fleet: Fleet) -> _Planned:
    return _Planned(fleet)


HEALED = _among([one.name for one in RECOVERED])


@pytest.mark.parametrize("scenario", _among(test_pool.HEALTHY))
def test_a_planned_workflow_ends_well_and_nothing_is_wrong_with_it(planned: Fleet, scenario: str) -> None:
    test_pool.test_a_planned_workflow_ends_well_and_nothing_is_wrong_with_it(planned, scenario.removeprefix(REAL_PREFIX))


@pytest.mark.parametrize("scenario", HEALED)
def test_it_recovers_without_help(planned: Fleet, scenario: str) -> None:
    test_heal.test_it_recovers_without_help(planned, scenario.removeprefix(REAL_PREFIX))


@pytest.mark.parametrize("scenario", [name for name in HEALED if name != "real-transient-network"])
def test_the_edit_is_shown_and_nothing_else_is_edited(planned: Fleet, scenario: str) -> None:
    test_heal.test_the_edit_is_shown_and_nothing_else_is_edited(planned, scenario.removeprefix(REAL_PREFIX))


@pytest.mark.parametrize("scenario", _among([one.name for one in ESCALATED]))
def test_it_hands_over_to_a_person(planned: Fleet, scenario: str) -> None:
    test_heal.test_it_hands_over_to_a_person(planned, scenario.removeprefix(REAL_PREFIX))


@pytest.mark.parametrize("scenario", ["real-healthy-run", "real-running-run"])
def test_nothing_is_done_where_nothing_is_wrong(planned: Fleet, scenario: str) -> None:
    test_heal.test_nothing_is_done_where_nothing_is_wrong(planned, scenario.removeprefix(REAL_PREFIX))


def test_memory_grows_at_most_to_the_cap(planned: Fleet) -> None:
    test_heal.test_memory_grows_at_most_to_the_cap(planned)


def test_a_repair_that_did_not_help_is_never_tried_again(planned: Fleet) -> None:
    test_heal.test_a_repair_that_did_not_help_is_never_tried_again(planned)


def test_nothing_is_done_to_a_recovered_run(planned: Fleet) -> None:
    test_heal.test_nothing_is_done_to_a_recovered_run(planned)


@pytest.mark.parametrize("scenario", _among([one.name for one in HOSTILE]))
def test_nothing_outside_is_touched(planned: Fleet, scenario: str) -> None:
    test_heal.test_nothing_outside_is_touched(planned, scenario.removeprefix(REAL_PREFIX))


def test_a_hold_of_a_person_stays(planned: Fleet) -> None:
    test_heal.test_a_hold_of_a_person_stays(planned)


def test_a_dry_run_changes_and_starts_nothing(planned: Fleet) -> None:
    test_heal.test_a_dry_run_changes_and_starts_nothing(planned)


@pytest.mark.parametrize(
    "scenario", _among(["memory-after-the-end", "execute-bit", "crlf", "helper-module", "moved-input", "output-subdirectory"])
)
def test_undo_restores_every_byte(planned: Fleet, scenario: str) -> None:
    test_heal.test_undo_restores_every_byte(planned, scenario.removeprefix(REAL_PREFIX))
