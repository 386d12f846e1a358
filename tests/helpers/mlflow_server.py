"""A real ``mlflow server`` that can be killed and started again, and a line to it that can be disturbed.

Called by the tests of the MLflow copy. Everything listens on this machine's loopback only.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

CONFIGURED = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``mlflow server`` on a SQLite store in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, as the README does, without naming a host; returns once it answers."""
        store = ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port), *store]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--artifacts-destination", str(self.folder / "artifacts")],
                env=os.environ | CONFIGURED,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
            return True
        return False

    def kill(self) -> None:
        """Kill -9 the server with all its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def addresses(self) -> set[str]:
        """The addresses it listens on, as the kernel writes them: ``0100007F`` is 127.0.0.1."""
        found = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                local, _, state = line.split()[1:4]
                address, _, port = local.partition(":")
                if int(port, 16) == self.port and state == "0A":
                    found.add(address)
        return found


class Line:
    """A proxy before a server: ``fault`` says what it does to a request; None passes it on."""

    def __init__(self, port: int) -> None:
        self.fault: str | None = None
        self.disturbed = 0
        line = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                line.handle(self, port)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *arguments: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.uri = f"http://127.0.0.1:{self._server.server_port}"

    def handle(self, request: BaseHTTPRequestHandler, port: int) -> None:
        """Pass the request on, or do what ``fault`` says."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self.fault
        self.disturbed += fault is not None
        if fault == "slow":
            time.sleep(0.3)
        if fault in ("500", "garbage"):
            request.send_response(500 if fault == "500" else 200)
            request.end_headers()
            request.wfile.write(b"<html>please log in</html>")
        elif fault == "hang":
            time.sleep(3)
        elif fault != "drop":
            answer, content = self._forward(request, port, body)
            if fault != "lost answer":
                request.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        request.send_header(name, value)
                request.send_header("Content-Length", str(len(content)))
                request.end_headers()
                request.wfile.write(content)
        request.close_connection = True

    def _forward(
        self, request: BaseHTTPRequestHandler, port: int, body: bytes
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in ("host", "connection")}
        connection.request(request.command, request.path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
