"""A proxy before S3 that misbehaves as it is told."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, str]
Behaviour = Callable[[str, str], Answer | float | None]
"""Of method and path: status and code in the place of S3's answer; or seconds to wait before it; or none, as it is."""


class Proxy:
    """Listens on a port of its own until it is closed."""

    def __init__(self, behind: int) -> None:
        self._behaviour: Behaviour | None = None
        self.requests = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.requests += 1
                body = self._body()
                told = proxy._behaviour and proxy._behaviour(self.command, self.path)
                if isinstance(told, tuple):
                    status, code = told
                    content = (
                        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
                    )
                    self._answer(status, [("Content-Type", "application/xml")], content)
                    return
                if told:
                    time.sleep(told)
                connection = http.client.HTTPConnection("127.0.0.1", behind, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                kept = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP]
                self._answer(response.status, kept, response.read())
                connection.close()

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    parts = []
                    while size := int(self.rfile.readline().split(b";")[0], 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() != "content-length" or self.command == "HEAD":
                        self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def behave(self, behaviour: Behaviour | None) -> None:
        """From the next request on."""
        self._behaviour = behaviour

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


# Of one connection, and not passed on.
HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
