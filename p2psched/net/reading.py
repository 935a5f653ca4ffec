"""Whether one connection reads, or waits for a later turn of the loop; it reads nothing then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from p2psched.net.turns import Turns


class Reading:
    """`attach` comes first."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self.waits = False

    def attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def wait(self, turns: Turns | None, go_on: Callable[[], None]) -> None:
        """`go_on` is called when it is its turn, unless the transport is gone by then; it may ask
        for a further one. `turns`: the line to stand in; None: the next turn of the loop will do.
        """
        if self._transport is None or self._transport.is_closing():
            return
        self.waits = True
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        on_turn = partial(self._on_turn, self._transport, go_on)
        if turns is not None:
            turns.wait(on_turn)
        else:
            asyncio.get_running_loop().call_soon(on_turn)

    def _on_turn(self, transport: asyncio.Transport, go_on: Callable[[], None]) -> None:
        self.waits = False
        if not transport.is_closing():
            go_on()
        # Not before all is taken that has come: what is read must not pile up here.
        if not self.waits and not transport.is_closing():
            self._is_paused = False
            transport.resume_reading()
