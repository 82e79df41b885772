"""A customer's webhook receiver on loopback, which checks signatures with the public package."""

import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

from tests.waiting import until

_PROMPTJUGGLER = re.compile(r"t=(\d{10}),v1=([0-9a-f]{64})")


@dataclass(frozen=True)
class Received:
    """One delivery as it came in; names of headers in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def run_id(self) -> str:
        """The run it tells of, in either format."""
        run = self.document.get("data", {}).get("run", self.document)
        return str(run["id"])

    def verified(self, secret: str) -> dict[str, Any]:
        """Check it as Standard Webhooks ask; its document. Raises `WebhookVerificationError`."""
        document: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return document

    def promptjuggler_time_s(self, secret: str) -> int | None:
        """The moment in its PromptJuggler signature; None when that is not made with the secret."""
        parts = _PROMPTJUGGLER.fullmatch(self.headers.get("promptjuggler-signature", ""))
        if parts is None:
            return None
        signed = f"{parts[1]}.".encode() + self.body
        made = hmac.digest(secret.encode(), signed, hashlib.sha256).hex()
        return int(parts[1]) if hmac.compare_digest(made, parts[2]) else None


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Let a server answer in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Receiver:
    """Answers 204 to everything and keeps it."""

    def __init__(self) -> None:
        self._received: list[Received] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def at(self, path: str) -> list[Received]:
        """What one endpoint received until now."""
        return [received for received in list(self._received) if received.path == path]

    def of_run(self, path: str, run_id: str) -> Received:
        """Wait for an endpoint's first delivery about a run."""
        return until(lambda: [r for r in self.at(path) if r.run_id == run_id])[0]

    @contextmanager
    def listening(self) -> Iterator["Receiver"]:
        with serving(self._server):
            yield self

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        kept = self._received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                kept.append(Received(self.path, headers, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing: what came in is in the list."""

        return Handler
