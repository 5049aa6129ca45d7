"""A schema registry as far as a reader needs one: an HTTP server of its own process, on the same port each time."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from . import free_port, tied_to_parent

_START_TIMEOUT_S = 30.0
_PATH = "/schemas/ids/"


class SchemaRegistry:
    """Answers ``GET /schemas/ids/N`` as the Confluent API does; tests stop it and start it again."""

    def __init__(self) -> None:
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            tied_to_parent([sys.executable, "-m", "tests.services.registry", str(self._port)]),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            assert time.monotonic() < deadline and self._process.poll() is None, "the registry did not start"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{_PATH}1", timeout=1):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """End it: connections to it are refused from now on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        number = self.path.removeprefix(_PATH)
        known = self.path.startswith(_PATH) and number.isdecimal()
        schema = {"type": "record", "name": f"Event{number}", "fields": [{"name": "n", "type": "long"}]}
        said = {"schema": json.dumps(schema)} if known else {"error_code": 40403, "message": "Schema not found"}
        body = json.dumps(said).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Answers).serve_forever()
