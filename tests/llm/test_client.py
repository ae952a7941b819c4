"""The provider's side of the street: streams and single pieces, errors, limits, slow and cut connections, through the real client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doctor.model import Opinion, Report
from tests.llm.conftest import KEY, ODD, Rig, odd_run
from tests.llm.peer import Body, Breaks, Fails, Says, Scripted, answer, call, in_turn, says

GOOD = says(answer("user-code/model-configuration", "E1", culprit="J1"))
Start = Callable[..., Rig]
both = pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])


def opinion(report: Report) -> Opinion:
    assert len(report.opinions) == 1
    return report.opinions[0]


def no_opinion(rig: Rig, folder: Path, *words: str, **changes: Any) -> Opinion:
    """Asks, and checks that the analysis is exactly what it was without asking."""
    run = odd_run(folder)
    before = rig.report(run)
    after = rig.ask(run, **changes)
    assert after.incidents == before.incidents
    found = opinion(after)
    assert found.outcome == "none"
    for word in words:
        assert word in found.reason, found.reason
    return found


@both
def test_an_answer_arrives(rig: Start, tmp_path: Path, stream: bool) -> None:
    made = rig(in_turn(GOOD))
    found = made.ask(odd_run(tmp_path / "run"), stream=stream).incidents[0].diagnosis
    assert (found.cause, found.decided_by) == ("user-code/model-configuration", "llm:claude-haiku-5-5")
    assert [one.text for one in found.evidence] == [ODD]
    assert bool(made.peer.requests[0].get("stream")) is stream
    head = made.peer.heads[0]
    assert KEY in (head.get("x-api-key") or head["authorization"]) and head["anthropic-version"]


@both
def test_usage_and_caching_are_counted(rig: Start, tmp_path: Path, stream: bool) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 200, "cache_creation_input_tokens": 4000, "cache_read_input_tokens": 3000}
    made = rig(in_turn(says(answer("user-code/model-configuration", "E1"), **usage)))
    found = opinion(made.ask(odd_run(tmp_path / "run"), stream=stream, prices={"claude-haiku-5-5": [1.0, 10.0, 2.0, 0.5]}))
    assert (found.calls, found.sent, found.received, found.cache_read) == (1, 8000, 200, 3000)
    assert found.dollars == pytest.approx((1000 * 1 + 200 * 10 + 4000 * 2 + 3000 * 0.5) / 1e6)
    spent = made.store.llm_spent()
    assert (spent["calls"], spent["sent"], spent["cache_written"]) == (1, 8000, 4000)


def test_the_request_caches_what_stays_and_forces_a_tool(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    made.ask(odd_run(tmp_path / "run"))
    body = made.peer.requests[0]
    assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert body["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert {tool["name"] for tool in body["tools"]} == {"answer", "read_lines", "list_folder", "show_producer"}
    assert body["max_tokens"] == 6000


def test_system_and_tools_are_the_same_for_different_incidents(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    made.ask(odd_run(tmp_path / "one"))
    made.ask(odd_run(tmp_path / "two", stderr="frobnicate: the gronk is blue", transformation="other"))
    first, second = made.peer.requests
    assert (first["system"], first["tools"]) == (second["system"], second["tools"])
    assert first["messages"] != second["messages"]


@both
@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, "invalid_request_error", "refused the request"), (401, "authentication_error", "key was not accepted"),
        (402, "billing_error", "no credit"), (403, "permission_error", "may not use"), (404, "not_found_error", "does not know this model"),
        (413, "request_too_large", "too large"),
    ],
)  # fmt: skip
def test_errors_that_stay_are_not_tried_again(rig: Start, tmp_path: Path, stream: bool, status: int, kind: str, words: str) -> None:
    made = rig(in_turn(Fails(status, kind)))
    no_opinion(made, tmp_path / "run", words, str(status), stream=stream)
    assert len(made.peer.requests) == 1
    assert made.slept == []


@both
@pytest.mark.parametrize(("status", "kind"), [(429, "rate_limit_error"), (500, "api_error"), (503, "api_error"), (529, "overloaded_error")])
def test_errors_that_pass_are_tried_again(rig: Start, tmp_path: Path, stream: bool, status: int, kind: str) -> None:
    made = rig(in_turn(Fails(status, kind), Fails(status, kind), GOOD))
    assert opinion(made.ask(odd_run(tmp_path / "run"), stream=stream)).outcome == "answered"
    assert len(made.peer.requests) == 3
    assert made.slept == [1.0, 2.0]


@both
def test_retry_after_is_honoured(rig: Start, tmp_path: Path, stream: bool) -> None:
    made = rig(in_turn(Fails(429, "rate_limit_error", headers=(("retry-after", "3"),)), GOOD))
    assert opinion(made.ask(odd_run(tmp_path / "run"), stream=stream)).outcome == "answered"
    assert made.slept == [3.0]


def test_retry_after_as_a_date(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(Fails(529, "overloaded_error", headers=(("retry-after", "Fri, 01 Jan 2100 00:00:00 GMT"),)), GOOD))
    no_opinion(made, tmp_path / "run", "overloaded", "asks to wait")
    assert made.slept == []


def test_a_wait_beyond_the_limit_is_not_waited_for(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(Fails(429, "rate_limit_error", headers=(("retry-after", "900"),)), GOOD))
    no_opinion(made, tmp_path / "run", "limits the rate", "asks to wait 900 s")
    assert (len(made.peer.requests), made.slept) == (1, [])


def test_attempts_are_bounded(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(Fails(529, "overloaded_error")))
    no_opinion(made, tmp_path / "run", "overloaded", attempts=3)
    assert (len(made.peer.requests), made.slept) == (3, [1.0, 2.0])


@both
@pytest.mark.parametrize("how", ["cut", "garbage", "nothing"])
def test_broken_replies_end_in_no_opinion(rig: Start, tmp_path: Path, stream: bool, how: str) -> None:
    if how == "cut" and not stream:
        pytest.skip("a whole reply that is cut is garbage")
    made = rig(in_turn(Breaks(how)))
    no_opinion(made, tmp_path / "run", stream=stream, attempts=2)
    assert 1 <= len(made.peer.requests) <= 2


def test_a_cut_stream_is_tried_again_and_paid_for(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(Breaks("cut"), GOOD))
    found = opinion(made.ask(odd_run(tmp_path / "run")))
    assert found.outcome == "answered"
    assert found.calls == 2 and found.sent == 1800
    assert made.store.llm_spent()["calls"] == 2


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "rate_limit_error"])
def test_an_error_in_the_middle_of_a_stream(rig: Start, tmp_path: Path, kind: str) -> None:
    made = rig(in_turn(Breaks("error", kind=kind), GOOD))
    assert opinion(made.ask(odd_run(tmp_path / "run"))).outcome == "answered"
    assert len(made.peer.requests) == 2


def test_a_lasting_error_in_the_middle_of_a_stream(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(Breaks("error", kind="invalid_request_error")))
    no_opinion(made, tmp_path / "run", "broke off", "invalid_request_error")


@both
def test_a_server_that_hangs(rig: Start, tmp_path: Path, stream: bool) -> None:
    made = rig(in_turn(Breaks("hang")))
    no_opinion(made, tmp_path / "run", "in time", stream=stream, timeout_s=0.3, attempts=1)


def test_a_stream_that_is_too_slow(rig: Start, tmp_path: Path) -> None:
    """Every piece comes in time, the whole does not: the clock is ours, so nothing here waits."""
    made = rig(in_turn(GOOD))
    ticks = iter(range(0, 100_000, 100))
    made.ticks = lambda: float(next(ticks))
    no_opinion(made, tmp_path / "run", "longer than 180 s")


def test_a_dead_server(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    made.peer.url = "http://127.0.0.1:9"
    no_opinion(made, tmp_path / "run", "cannot be reached", attempts=2)


def test_an_address_that_is_none(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    made.peer.url = "not an address"
    no_opinion(made, tmp_path / "run", attempts=1)


def test_an_answer_that_is_no_json(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(Fails(502, "", raw=b"<html>bad gateway</html>"), Fails(200, "", raw=b"<html>hello</html>")))
    no_opinion(made, tmp_path / "run", stream=False)


@both
def test_truncated_answers(rig: Start, tmp_path: Path, stream: bool) -> None:
    cut: Body = {**call("answer", {}), "input": '{"cause": "user-code/mod'} if stream else call("answer", {"cause": "user-code/mod"})
    made = rig(in_turn(Says((cut,), stop="max_tokens")))
    no_opinion(made, tmp_path / "run", stream=stream)
    assert len(made.peer.requests) == 1


@both
def test_a_refusal(rig: Start, tmp_path: Path, stream: bool) -> None:
    made = rig(in_turn(Says(({"type": "text", "text": "I cannot help"},), stop="refusal")))
    run = odd_run(tmp_path / "run")
    before = made.report(run)
    after = made.ask(run, stream=stream)
    assert after.incidents == before.incidents
    assert (opinion(after).outcome, opinion(after).reason) == ("abstained", "the model declined to answer")


def test_ways_of_asking_are_found_out_and_kept(rig: Start, tmp_path: Path) -> None:
    """A model that takes no thinking switch and no forced tool: two 400s once, none afterwards."""

    def script(body: Body, number: int) -> Scripted:
        if "thinking" in body:
            return Fails(400, "invalid_request_error", "thinking.type: disabled is not supported by this model")
        if body["tool_choice"]["type"] != "auto":
            return Fails(400, "invalid_request_error", "tool_choice: forced tool use is not supported by this model")
        return says({"type": "thinking", "thinking": "", "signature": "abc"}, *GOOD.blocks)

    made = rig(script)
    ask = made.consultant()
    one, two = odd_run(tmp_path / "one"), odd_run(tmp_path / "two", stderr="frobnicate: gronk", transformation="other")
    assert opinion(ask(made.report(one), one)).outcome == "answered"
    assert len(made.peer.requests) == 3
    assert opinion(ask(made.report(two), two)).outcome == "answered"
    assert len(made.peer.requests) == 4


def test_models_known_to_take_no_forced_tool_are_not_forced(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    made.ask(odd_run(tmp_path / "run"), model="claude-sonnet-5-5")
    assert made.peer.requests[0]["tool_choice"]["type"] == "auto"
    assert "thinking" not in made.peer.requests[0]


def test_thinking_blocks_go_back_unchanged(rig: Start, tmp_path: Path) -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig=="}
    first = says(thought, call("list_folder", {"job": "J1"}))
    made = rig(in_turn(first, GOOD))
    made.ask(odd_run(tmp_path / "run"))
    back = made.peer.requests[1]["messages"][1]
    assert back["role"] == "assistant"
    assert back["content"][0] == thought
    assert back["content"][1]["name"] == "list_folder"


def test_error_words_of_the_server_do_not_reach_the_report(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(Fails(401, "authentication_error", "invalid x-api-key sk-test-0123456789abcdef0123 \x1b[31m")))
    found = no_opinion(made, tmp_path / "run")
    assert "sk-test" not in found.reason and "\x1b" not in found.reason


def test_the_command_line_starts_without_the_client() -> None:
    code = "import sys, doctor.cli; print([name for name in ('anthropic', 'tenacity', 'langgraph') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
