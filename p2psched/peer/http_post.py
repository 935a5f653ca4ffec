"""One HTTP request with a body, in a thread, bounded in time and bytes. Follows no redirect."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:  # a megabyte that only peers with webhooks need
    from http.client import HTTPConnection

SILENCE_S: Final = 10.0  # between two bytes of the answer
ANSWER_BYTES_MAX: Final = 64 * 1024  # that are read of it


class Post:
    """Make it in the loop, `run` it in a thread; `end` from any thread makes `run` raise soon."""

    def __init__(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        self._url = url
        self._body = body
        self._headers = dict(headers)
        self._ended = False
        self._connection: HTTPConnection | None = None

    def run(self) -> int:
        """The status. Raises OSError."""
        import http.client  # noqa: PLC0415

        try:
            return self._exchange(_connection_to(self._url))
        except http.client.HTTPException as error:
            raise OSError(f"no answer in HTTP: {type(error).__name__} {error}") from error

    def _exchange(self, connection: HTTPConnection) -> int:
        parts = urlsplit(self._url)
        self._connection = connection
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.connect()
            if self._ended:
                raise TimeoutError("it took too long")
            connection.request("POST", path, self._body, self._headers)
            answer = connection.getresponse()
            answer.read(ANSWER_BYTES_MAX)
            return answer.status
        finally:
            connection.close()

    def end(self) -> None:
        self._ended = True
        connection = self._connection
        found = connection.sock if connection is not None else None
        if isinstance(found, socket.socket):
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)


def _connection_to(url: str) -> HTTPConnection:
    import http.client  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    parts = urlsplit(url)
    assert parts.hostname is not None
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=SILENCE_S, context=context
        )
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=SILENCE_S)
