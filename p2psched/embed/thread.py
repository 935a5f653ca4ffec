"""The peer's thread: an event loop of its own, from the start of a peer to its end.

It touches nothing that belongs to the process as a whole: no signal handler, no environment, no
working folder, no interpreter setting, no logging set-up. It is a daemon thread, so a program that
ends without a word is not held up; the peer's processes notice and end by themselves.

Invariant: `started` and `ended` are settled whatever happens, `ended` as the thread's last act.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import Future

from p2psched.model.config import Config
from p2psched.model.errors import InternalError, P2PSchedError, Unavailable
from p2psched.model.status_messages import StatusAnswer
from p2psched.peer.announcing import Ready
from p2psched.peer.lives import Lives
from p2psched.peer.process import loop_factory

log = logging.getLogger(__name__)


class PeerThread:
    """One life of one peer. All methods may be called from any thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.started: Future[Ready] = Future()  # or why it did not
        self.ended: Future[P2PSchedError | None] = Future()  # why, if nobody here asked for it
        for future in (self.started, self.ended):
            future.set_running_or_notify_cancel()  # a waiter that gives up must not cancel it
        self._lock = threading.Lock()  # of the four below
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lives: Lives | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop_asked = False
        self._thread = threading.Thread(
            target=self._run, name=f"p2psched-{config.name}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Leave cleanly, or give up starting; within a second. Safe to repeat."""
        with self._lock:
            self._stop_asked = True
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # its loop is closed already
                    self._loop.call_soon_threadsafe(self._stop_peer)

    def join(self) -> None:
        """Blocks until the thread is gone: an instant, once `ended` is settled."""
        self._thread.join()

    def status(self) -> Future[StatusAnswer]:
        """The peer's own view, without asking anybody. Only once it has started."""
        with self._lock:
            loop, lives = self._loop, self._lives
        assert loop is not None
        assert lives is not None
        if self.ended.done():
            raise Unavailable("the embedded peer has ended: see `failed`")

        async def ask() -> StatusAnswer:
            return lives.status()

        question = ask()
        try:
            return asyncio.run_coroutine_threadsafe(question, loop)
        except RuntimeError as error:  # it ended just now
            question.close()
            raise Unavailable("the embedded peer has ended: see `failed`") from error

    # --- in the thread

    def _run(self) -> None:
        error: P2PSchedError | None = None
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._main())
            if not self._stop_asked:
                error = Unavailable("the embedded peer was told to stop from outside")
        except P2PSchedError as failure:
            error = failure
        except asyncio.CancelledError:
            pass  # it was stopped while it started
        except BaseException as bug:  # the host must hear of it, whatever it is
            log.critical("bug", exc_info=bug)
            error = InternalError(
                f"a bug in p2psched ({type(bug).__name__}: {bug}): the embedded peer ended; please "
                "report the log above"
            )
        if not self.started.done():
            self.started.set_exception(error or Unavailable("the peer was stopped as it started"))
        self.ended.set_result(error)

    async def _main(self) -> None:
        lives = Lives(self._config, on_ready=self.started.set_result)
        with self._lock:
            self._loop, self._lives = asyncio.get_running_loop(), lives
            self._task = asyncio.current_task()
            if self._stop_asked:
                return
        await lives.run()

    def _stop_peer(self) -> None:
        assert self._lives is not None
        assert self._task is not None
        if self.started.done():
            self._lives.stop()
        else:  # it may wait for others, who may never come
            self._task.cancel()
