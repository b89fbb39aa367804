"""A web server of a test's own, whose files and faults the test says."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class WebServer:
    """files: what is answered to a path and query, one answer after another, the last again and again; heard: the
    requests that came; most: how many were under way at once; connections: over how many they came."""

    port: int = 0
    files: dict[str, list[Answer]] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    slow_s: float = 0.0
    at_once: int = 0
    most: int = 0
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, path: str, body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer so, behind the answers that are there."""
        self.files.setdefault(path, []).append((status, dict(headers or {}), body))


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Serve on loopback for the length of the block."""
    state = WebServer()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with lock:
                state.connections += 1

        def answer(self) -> None:
            with lock:
                state.heard.append(f"{self.command} {self.path}")
                answers = state.files.get(self.path, [(404, {}, b"")])
                status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                state.at_once += 1
                state.most = max(state.most, state.at_once)
            time.sleep(state.slow_s)
            with lock:  # before the answer, after which the next one may come
                state.at_once -= 1
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = answer

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
