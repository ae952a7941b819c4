"""A loopback server that really speaks the Messages API over HTTP, driven by scripted answers.

It streams server-sent events or answers in one piece as the request asks, calls tools, reports caching in
its usage, and fails in all the ways in which providers fail. It judges nothing: what it says is written
in the test. Formats: https://platform.claude.com/docs/en/api/messages and .../messages-streaming
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Says:
    """A message: blocks, why it stops, and its usage."""

    blocks: tuple[Body, ...]
    stop: str | None = "tool_use"
    usage: Body = field(default_factory=lambda: {"input_tokens": 900, "output_tokens": 120})


@dataclass(frozen=True)
class Fails:
    """An HTTP error with its headers."""

    status: int
    kind: str
    message: str = "scripted"
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None  # instead of the error document


@dataclass(frozen=True)
class Breaks:
    """A stream that begins well and does not end well: ``how`` is cut, hang, garbage, error or nothing."""

    how: str
    blocks: tuple[Body, ...] = ()
    kind: str = "overloaded_error"


Scripted = Says | Fails | Breaks
Script = Callable[[Body, int], Scripted]  # (request, number of the request from 0)


def call(name: str, data: Any, number: int = 1) -> Body:
    return {"type": "tool_use", "id": f"toolu_{number:04d}", "name": name, "input": data}


def answer(cause: str, *evidence: str, **more: Any) -> Body:
    """A well-formed answer; ``more`` replaces or adds fields."""
    data = {
        "cause": cause, "culprit": "", "evidence": list(evidence), "chain": [], "explanation": "The line says so.", "advice": "",
        "confidence": 0.8, **more,
    }  # fmt: skip
    return call("answer", data)


def says(*blocks: Body, **usage: int) -> Says:
    return Says(blocks, usage={"input_tokens": 900, "output_tokens": 120, **usage}) if usage else Says(blocks)


@dataclass
class Peer:
    """A running server: its address, what it was sent, and what it will say."""

    script: Script
    url: str = ""
    requests: list[Body] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)  # lets hanging replies go
    lock: threading.Lock = field(default_factory=threading.Lock)


def in_turn(*replies: Scripted) -> Script:
    """One reply after the other, the last one again and again."""
    return lambda body, number: replies[min(number, len(replies) - 1)]


@contextmanager
def serve(script: Script) -> Iterator[Peer]:
    """A peer on a free port of the loopback interface."""
    peer = Peer(script)
    handler = type("Handler", (_Handler,), {"peer": peer})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    peer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    peer: Peer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.loads(data)
        with self.peer.lock:
            number = len(self.peer.requests)
            self.peer.requests.append(body)
            self.peer.raw.append(data)
            self.peer.heads.append({key.lower(): value for key, value in self.headers.items()})
        if self.path.split("?")[0] != "/v1/messages":
            self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": self.path}})
            return
        reply = self.peer.script(body, number)
        try:
            if isinstance(reply, Fails):
                self._fail(reply)
            elif isinstance(reply, Breaks):
                self._break(reply, body)
            elif body.get("stream"):
                self._stream(reply, body)
            else:
                self._json(200, message(reply, body))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _json(self, status: int, data: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._send(status, json.dumps(data).encode(), "application/json", headers)

    def _send(self, status: int, raw: bytes, kind: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(raw)))
        self.send_header("request-id", "req_scripted")
        for key, value in headers:
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(raw)

    def _fail(self, reply: Fails) -> None:
        if reply.raw is not None:
            self._send(reply.status, reply.raw, "text/html", reply.headers)
            return
        self._json(reply.status, {"type": "error", "error": {"type": reply.kind, "message": reply.message}}, reply.headers)

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("cache-control", "no-cache")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def _event(self, name: str, data: Any) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def _stream(self, reply: Says, body: Body) -> None:
        self._begin_stream()
        for name, data in events(reply, body):
            self._event(name, data)

    def _break(self, reply: Breaks, body: Body) -> None:
        if reply.how == "nothing":
            self.close_connection = True
            self.connection.close()
            return
        if reply.how == "hang" and not body.get("stream"):
            self.peer.release.wait(30)
            return
        if reply.how == "garbage" and not body.get("stream"):
            self._send(200, b'{"type": "message", "content": [{"type": "tool_use", "inp', "application/json")
            return
        self._begin_stream()
        whole = list(events(Says(reply.blocks or (answer("abstain"),)), body))
        for name, data in whole[: len(whole) // 2]:
            self._event(name, data)
        if reply.how == "hang":
            self.peer.release.wait(30)
        elif reply.how == "garbage":
            self.wfile.write(b"event: content_block_delta\ndata: {not json at all\n\n")
        elif reply.how == "error":
            self._event("error", {"type": "error", "error": {"type": reply.kind, "message": "scripted"}})


def message(reply: Says, body: Body) -> Body:
    return {
        "id": "msg_scripted", "type": "message", "role": "assistant", "model": body["model"], "content": list(reply.blocks),
        "stop_reason": reply.stop, "stop_sequence": None,
        "usage": {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, **reply.usage},
    }  # fmt: skip


def events(reply: Says, body: Body) -> Iterator[tuple[str, Body]]:
    """The events of a streamed message, inputs in small pieces as the API sends them."""
    first = message(reply, body)
    usage = dict(first["usage"])
    output = usage.pop("output_tokens", 0)
    yield (
        "message_start",
        {"type": "message_start", "message": {**first, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}},
    )
    yield "ping", {"type": "ping"}
    for index, block in enumerate(reply.blocks):
        shell = (
            {**block, "input": {}} if block["type"] == "tool_use" else {"type": "text", "text": ""} if block["type"] == "text" else block
        )
        yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": shell}
        if block["type"] == "tool_use":
            text = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
            for start in range(0, len(text), 37):
                delta = {"type": "input_json_delta", "partial_json": text[start : start + 37]}
                yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
        elif block["type"] == "text":
            delta = {"type": "text_delta", "text": block["text"]}
            yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
        yield "content_block_stop", {"type": "content_block_stop", "index": index}
    yield (
        "message_delta",
        {"type": "message_delta", "delta": {"stop_reason": reply.stop, "stop_sequence": None}, "usage": {"output_tokens": output}},
    )
    yield "message_stop", {"type": "message_stop"}
