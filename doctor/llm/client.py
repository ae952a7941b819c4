"""The one place that talks to a model: the official ``anthropic`` client, imported on first use.

Whatever goes wrong ends in :class:`NoReply` with the reason; nothing here raises for what a server does.
Retries are tenacity's (the client's own are off), only for what may pass: 408, 409, 429, 5xx, overload,
and connections that fail or break; a ``retry-after`` is honoured up to the configured longest wait.

Newer models think before they answer and take no forced tool; others insist on it that thinking is off
when a tool is forced. :data:`WAYS` are the ways of asking, strictest first; a server's 400 about
``tool_choice`` or ``thinking`` leads to the next one, which is then kept for the model.
https://platform.claude.com/docs/en/models/sonnet-5-5/whats-new-sonnet-5-5
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from doctor.llm.budget import Spent, cost, prices
from doctor.llm.config import Access

#: (how the tool is asked for, what is said of thinking)
WAYS: tuple[tuple[str, dict[str, str] | None], ...] = (("forced", {"type": "disabled"}), ("forced", None), ("auto", None))
_AUTO_ONLY = (
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-fable-5-1",
    "claude-fable-5-2",
    "claude-mythos-5-1",
    "claude-mythos-5-2",
)
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True, slots=True)
class Reply:
    """A message that arrived whole. ``content`` are its blocks as plain data, to be sent back unchanged."""

    content: list[dict[str, Any]]
    stop_reason: str
    spent: Spent
    seconds: float

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls of the reply."""
        return [block for block in self.content if block.get("type") == "tool_use"]


@dataclass(frozen=True, slots=True)
class NoReply:
    """No message, and why. What was spent before it broke is counted."""

    reason: str
    spent: Spent = field(default_factory=Spent)


class Asker(Protocol):
    """The seam: sends one request and returns what came of it."""

    def request(self, system: Any, tools: Any, messages: Any, only: str | None) -> dict[str, Any]: ...

    def ask(self, request: dict[str, Any]) -> Reply | NoReply: ...


class _Late(Exception):
    """The reply took longer than the deadline."""


class _Cut(Exception):
    """The reply ended before the message did."""

    def __str__(self) -> str:
        return "the connection was cut in the middle of the reply"


@dataclass(slots=True)
class Client:
    """Sends requests to the configured provider. ``sleep`` and ``monotonic`` are passed in."""

    access: Access
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    _sdk: Any = None
    _way: int = -1
    _lost: list[Spent] = field(default_factory=list)

    def request(self, system: Any, tools: Any, messages: Any, only: str | None) -> dict[str, Any]:
        """The body of a request. ``only`` names the one tool that may be called now, None for any of them."""
        settings = self.access.settings
        tool, thinking = WAYS[self._first_way()]
        choice: dict[str, Any] = {"type": "auto"}
        if tool == "forced":
            choice = {"type": "tool", "name": only} if only else {"type": "any"}
        choice["disable_parallel_tool_use"] = True
        body: dict[str, Any] = {
            "model": settings.model, "max_tokens": settings.output_tokens, "system": system, "tools": tools, "messages": messages,
            "tool_choice": choice,
        }  # fmt: skip
        if thinking is not None:
            body["thinking"] = thinking
        return body

    def _first_way(self) -> int:
        if self._way < 0:
            self._way = len(WAYS) - 1 if self.access.settings.model.startswith(_AUTO_ONLY) else 0
        return self._way

    def ask(self, request: dict[str, Any]) -> Reply | NoReply:
        """Send one request, with retries. Never raises for what the provider or the network does."""
        import anthropic
        import tenacity

        settings = self.access.settings
        self._lost = []
        retrying = tenacity.Retrying(
            stop=lambda state: state.attempt_number >= settings.attempts or self._asks_too_long(state),
            wait=self._wait,
            retry=tenacity.retry_if_exception(_may_pass),
            sleep=self.sleep,
            reraise=True,
        )
        body = dict(request)
        while True:
            try:
                reply: Reply = retrying(self._once, body)
                return reply
            except anthropic.BadRequestError as problem:
                if not _about_the_way(problem) or self._way + 1 >= len(WAYS):
                    return NoReply(_words(problem), self._spent_in_vain())
                body = self._next_way(body)
            except Exception as problem:  # noqa: BLE001 - any failure of provider, network or client is "no opinion"
                return NoReply(_words(problem), self._spent_in_vain())

    def _next_way(self, body: dict[str, Any]) -> dict[str, Any]:
        self._way += 1
        only = body["tool_choice"].get("name")
        return self.request(body["system"], body["tools"], body["messages"], only)

    def _spent_in_vain(self) -> Spent:
        return sum(self._lost, Spent())

    # -- one attempt ----------------------------------------------------------------------------------

    def _client(self) -> Any:
        if self._sdk is None:
            import anthropic

            address: dict[str, Any] = {"base_url": self.access.base_url} if self.access.base_url else {}
            self._sdk = anthropic.Anthropic(api_key=self.access.key, max_retries=0, timeout=self.access.settings.timeout_s, **address)
        return self._sdk

    def _once(self, body: dict[str, Any]) -> Reply:
        began = self.monotonic()
        message = self._streamed(body, began) if self.access.settings.stream else self._client().messages.create(**body)
        if not getattr(message, "stop_reason", None) or getattr(message, "content", None) is None:
            self._lost.append(self._cost(getattr(message, "usage", None)))
            raise _Cut
        content = [_plain(block) for block in message.content]
        spent = self._cost(message.usage) + self._spent_in_vain()
        return Reply(content, str(message.stop_reason), spent, self.monotonic() - began)

    def _streamed(self, body: dict[str, Any], began: float) -> Any:
        usage: Any = None
        try:
            with self._client().messages.stream(**body) as stream:
                for event in stream:
                    if event.type == "message_start":
                        usage = event.message.usage
                    if self.monotonic() - began > self.access.settings.deadline_s:
                        raise _Late(f"the reply took longer than {self.access.settings.deadline_s:g} s")
                return stream.get_final_message()
        except BaseException:
            if usage is not None:
                self._lost.append(self._cost(usage))
            raise

    def _cost(self, usage: Any) -> Spent:
        plain, received = _count(usage, "input_tokens"), _count(usage, "output_tokens")
        written, read = _count(usage, "cache_creation_input_tokens"), _count(usage, "cache_read_input_tokens")
        settings = self.access.settings
        dollars = cost(prices(settings.model, settings.prices), plain, received, written, read)
        return Spent(1, plain + written + read, received, written, read, dollars)

    # -- retries --------------------------------------------------------------------------------------

    def _wait(self, state: Any) -> float:
        asked = _retry_after(state.outcome.exception())
        if asked is not None:
            return asked
        return float(min(2.0 ** (state.attempt_number - 1), self.access.settings.longest_wait_s))

    def _asks_too_long(self, state: Any) -> bool:
        asked = _retry_after(state.outcome.exception())
        return asked is not None and asked > self.access.settings.longest_wait_s


def _count(usage: Any, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def _plain(block: Any) -> dict[str, Any]:
    data: dict[str, Any] = block.model_dump(mode="json", exclude_none=True)
    data.pop("parsed_output", None)  # the client's own addition, which the API does not take back
    if data.get("type") == "tool_use" and not isinstance(data.get("input"), dict):
        data["input"] = {}
    return data


def _may_pass(problem: BaseException) -> bool:
    import anthropic

    if isinstance(problem, anthropic.APIStatusError):
        return (
            problem.status_code in _PASSING
            or problem.status_code >= 500
            or _kind(problem) in ("overloaded_error", "api_error", "rate_limit_error")
        )
    if isinstance(problem, anthropic.APIConnectionError | _Cut):
        return True
    return type(problem).__module__.startswith(("httpx", "httpcore")) and not isinstance(problem, ValueError)


def _about_the_way(problem: Any) -> bool:
    text = str(problem.message).lower()
    return "tool_choice" in text or "thinking" in text or "forced tool" in text


def _kind(problem: Any) -> str:
    body = problem.body if isinstance(problem.body, dict) else {}
    error = body.get("error")
    return str(error.get("type", "")) if isinstance(error, dict) else ""


def _retry_after(problem: BaseException | None) -> float | None:
    """Seconds that the server asks to wait: ``retry-after`` in seconds or as a date; None when it does not say."""
    response = getattr(problem, "response", None)
    if response is None:
        return None
    text = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    stamp = email.utils.parsedate_tz(text)
    served = email.utils.parsedate_tz(response.headers.get("date", ""))
    if stamp is None or served is None:
        return None
    return max(0.0, float(email.utils.mktime_tz(stamp) - email.utils.mktime_tz(served)))


_STATUS = {
    400: "the provider refused the request", 401: "the key was not accepted", 402: "the account has no credit",
    403: "the key may not use this model",
    404: "the provider does not know this model", 413: "the request is too large for the provider", 429: "the provider limits the rate",
    529: "the provider is overloaded",
}  # fmt: skip


def _words(problem: BaseException) -> str:
    """A failure in one sentence, without anything that the server wrote into it beyond its own error type."""
    import anthropic

    if isinstance(problem, anthropic.APIStatusError):
        asked = _retry_after(problem)
        wait = f"; it asks to wait {asked:g} s" if asked else ""
        kind = _kind(problem)
        if problem.status_code < 400 and kind:
            return f"the provider broke off ({kind[:60]})"
        return f"{_STATUS.get(problem.status_code, 'the provider failed')} (HTTP {problem.status_code}){wait}"
    if isinstance(problem, anthropic.APITimeoutError):
        return "the provider did not answer in time"
    if isinstance(problem, anthropic.APIConnectionError):
        return "the provider cannot be reached"
    if isinstance(problem, _Cut | _Late):
        return str(problem)
    if type(problem).__module__.startswith(("httpx", "httpcore")):
        return (
            "the provider did not answer in time"
            if "Timeout" in type(problem).__name__
            else "the connection broke in the middle of the reply"
        )
    return f"the reply could not be read ({type(problem).__name__})"
