"""Places on this host to which notifications are sent: a web hook and a mail server, of the standard library alone."""

from __future__ import annotations

import json
import socketserver
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.header import decode_header, make_header
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hook:
    """What came in. ``mode``: ok, error (500) or hang (accepts, reads, never answers)."""

    port: int = 0
    mode: str = "ok"
    got: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)  # accepted: path, authorization, fields
    refused: int = 0
    hanging: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    def texts(self, path: str = "/") -> list[str]:
        """Title and body of every accepted message below a path."""
        return [" | ".join(str(value) for value in fields.values()) for where, _, fields in list(self.got) if where.startswith(path)]


@contextmanager
def hook() -> Iterator[Hook]:
    """A web server on the loopback address."""
    state = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if state.mode == "hang":
                state.hanging += 1
                state.release.wait(60)
                return
            if state.mode == "error":
                state.refused += 1
                self.send_error(500)
                return
            text = raw.decode()
            fields = json.loads(text) if text.startswith("{") else dict(urllib.parse.parse_qsl(text))
            state.got.append((self.path, self.headers.get("Authorization", ""), fields))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield state
        finally:
            state.release.set()
            server.shutdown()


@dataclass
class Mail:
    port: int = 0
    got: list[tuple[str, str]] = field(default_factory=list)  # subject, text


@contextmanager
def mail() -> Iterator[Mail]:
    """A mail server on the loopback address: as much of SMTP as a client needs to hand over one message."""
    state = Mail()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 loopback\r\n")
            for line in self.rfile:
                word = line[:4].upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = []
                    for row in self.rfile:
                        if row == b".\r\n":
                            break
                        lines.append(row)
                    state.got.append(_parsed(b"".join(lines)))
                self.wfile.write(b"250 loopback\r\n" if word != b"QUIT" else b"221 bye\r\n")
                if word == b"QUIT":
                    return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield state
        finally:
            server.shutdown()


def _parsed(raw: bytes) -> tuple[str, str]:
    whole = message_from_bytes(raw)
    parts = [part.get_payload(decode=True) for part in whole.walk() if not part.is_multipart()]
    return str(make_header(decode_header(whole["Subject"]))), "\n".join(part.decode() for part in parts if isinstance(part, bytes))
