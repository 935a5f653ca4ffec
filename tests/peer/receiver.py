"""Something that webhooks can be posted to, in a thread of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fields = dict[str, Any]


class Receiver:
    """`answer`: the status for the request of this number, from 1."""

    def __init__(self, answer: Callable[[int], int]) -> None:
        self.answer = answer
        self.taken: list[tuple[dict[str, str], bytes]] = []  # headers and bodies answered with 200
        self.asked = 0
        self.changed = threading.Condition()
        self.url = ""

    def on_post(self, headers: dict[str, str], body: bytes) -> int:
        with self.changed:
            self.asked += 1
            status = self.answer(self.asked)
            if status == 200:
                self.taken.append((headers, body))
            self.changed.notify_all()
        return status

    @property
    def events(self) -> list[Fields]:
        """Of all bodies, in the order in which they came."""
        with self.changed:
            bodies = [json.loads(body) for _, body in self.taken]
        return [event for body in bodies for event in body["events"]]

    def wait(self, is_enough: Callable[[], bool], timeout_s: float = 60.0) -> None:
        with self.changed:
            assert self.changed.wait_for(is_enough, timeout_s), f"{self.asked} requests came"


@contextmanager
def receiving(answer: Callable[[int], int] = lambda _: 200) -> Iterator[Receiver]:
    receiver = Receiver(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.on_post(dict(self.headers.items()), body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook?x=1"
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
