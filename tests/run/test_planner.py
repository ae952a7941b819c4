"""What the planner complained of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from doctor.model import Line
from doctor.run.files import to_lines
from doctor.run.planner import telling_lines

LOG = """\
2026.11.20 20:38:20.000 UTC: [INFO]  Planner invoked
2026.11.20 20:38:21.000 UTC: [WARNING]  Property is deprecated
continued warning
2026.11.20 20:38:26.896 UTC: [FATAL ERROR]  java.lang.RuntimeException: Unable to find site
\tat edu.isi.pegasus.planner.client.CPlanner.main(CPlanner.java:135)
Caused by: java.io.IOException: no such file
\t... 3 more

2026.11.20 20:38:27.000 UTC: [INFO]  event.pegasus.planner  - FINISHED
"""


def texts(text: str) -> list[tuple[str, int | None]]:
    return [(line.text, line.number) for line in telling_lines(list(to_lines(text.encode())))]


def test_errors_with_their_causes_and_without_stack_frames() -> None:
    assert texts(LOG) == [
        ("2026.11.20 20:38:26.896 UTC: [FATAL ERROR]  java.lang.RuntimeException: Unable to find site", 4),
        ("Caused by: java.io.IOException: no such file", 6),
    ]


def test_warnings_count_only_when_there_is_nothing_worse() -> None:
    calm = "\n".join(row for row in LOG.split("\n") if "FATAL" not in row and "Caused" not in row and not row.startswith("\t"))
    assert [number for _, number in texts(calm)] == [2, 3]


def test_text_without_levels_is_kept() -> None:
    assert texts("Error: Could not find or load main class\n") == [("Error: Could not find or load main class", 1)]


@given(st.lists(st.sampled_from(LOG.split("\n")), max_size=20))
def test_no_stack_frames_and_nothing_made_up(rows: list[str]) -> None:
    lines = [Line(row, number) for number, row in enumerate(rows, 1)]
    kept = telling_lines(lines)
    assert all(line in lines and not line.text.strip().startswith(("at ", "...")) for line in kept)
    if any("FATAL" in row for row in rows):
        assert not any("[WARNING]" in line.text for line in kept)
