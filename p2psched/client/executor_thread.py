"""The thread of an Executor: takes calls from any thread, gives their futures what became of them.

Its event loop runs one Client. Everything that threads share with it is under one lock: the queue,
and whether the carrier still takes calls. It refuses to work in a forked child, where its thread is
not.

Invariants: every future that was given out is done once the thread has ended; no callback of a
future runs while the lock is held.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures

# Its hook at the interpreter's end is to be there before ours: they run newest first, and what we
# carry to its end then needs threads.
import concurrent.futures.thread
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from p2psched.client.batching import Batch
from p2psched.client.client import Client
from p2psched.client.functions import Arguments, pack_call
from p2psched.client.options import Function, Options
from p2psched.client.pipeline import Pipeline
from p2psched.client.results import TaskResult
from p2psched.model.errors import P2PSchedError, Unavailable, UsageError

Future = concurrent.futures.Future

HANDED_MAX: Final = 20_000  # calls on their way, if the executor has no limit of its own
_CARRIERS: Final[weakref.WeakSet[Carrier]] = weakref.WeakSet()  # those whose thread was started
_EXITING: Final = threading.Event()


class ClusterUnreachable(concurrent.futures.BrokenExecutor):
    """Nobody answered for as long as the executor's patience, or nobody may talk to us. Make a new
    executor once the cluster is there; tasks that had been accepted go on in it."""


class _Call:
    """The waiter of one future."""

    __slots__ = ("arguments", "carrier", "function", "future", "options")

    def __init__(
        self, carrier: Carrier, function: Function, options: Options, arguments: bytes
    ) -> None:
        self.carrier = carrier
        self.future: Future[object] = Future()
        self.function: Function | None = function
        self.options = options
        self.arguments = arguments

    def on_leaving(self, batch: Batch, index: int) -> bool:
        del batch, index
        if self.future.set_running_or_notify_cancel():
            return True
        self.carrier.on_done(self)
        return False

    def on_result(self, result: TaskResult) -> None:
        try:
            error: BaseException | None = result.error
            value = result.value if error is None else None
        except Exception as failure:  # noqa: BLE001 (opening a value runs its own code)
            error, value = failure, None
        # First, for it may wait for a lock: once a value is there, it is its future's alone.
        self.carrier.on_done(self)
        self._settle(value, error)

    def on_failed(self, error: Exception) -> None:
        if not self.future.running() and not self.future.set_running_or_notify_cancel():
            self.carrier.on_done(self)
            return
        self._settle(None, self.carrier.verdict(error))
        self.carrier.on_done(self)

    def _settle(self, value: object, error: BaseException | None) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # somebody else set it
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(value)


class Carrier:
    """See the module. Its thread starts with the first call."""

    def __init__(self, client: Client, *, max_workers: int | None) -> None:
        self._client = client
        self._max_workers = max_workers
        self._handed_max = max_workers or HANDED_MAX
        self._pid = os.getpid()
        # Reentrant: the collector may end an executor, and so close this, wherever a thread is.
        self._lock = threading.RLock()
        self._queue: deque[_Call] = deque()
        self._is_closed = False
        self._broken: ClusterUnreachable | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_woken = False
        # Only in the loop's thread:
        self._handed: set[_Call] = set()
        self._pipeline: Pipeline | None = None
        self._ended: asyncio.Event | None = None

    # --- from any thread --------------------------------------------------------------------------

    def submit(self, function: Function, options: Options, arguments: Arguments) -> Future[object]:
        """Raises RuntimeError once it is closed, ClusterUnreachable once it is broken."""
        self._check_process()
        try:
            packed = pack_call(arguments)
        except UsageError as error:
            future: Future[object] = Future()
            future.set_exception(error)
            self._check_open()
            return future
        call = _Call(self, function, options, packed)
        with self._lock:
            self._check_open()
            self._queue.append(call)
            if self._thread is None:
                self._start()
            self._wake()
        return call.future

    def close(self, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end once those that were taken are done."""
        if os.getpid() != self._pid:
            return  # the parent's; nothing of it runs here
        cancelled: list[_Call] = []
        with self._lock:
            self._is_closed = True
            if cancel_futures:
                cancelled = self._take_cancelled()
            self._wake()
        for call in cancelled:
            call.future.cancel()
            call.future.set_running_or_notify_cancel()

    def _take_cancelled(self) -> list[_Call]:
        """Under the lock. With a limit, a call has its place as soon as there is one."""
        keep = 0 if self._max_workers is None else max(0, self._max_workers - len(self._handed))
        queued = list(self._queue)
        self._queue = deque(queued[:keep])
        if self._max_workers is None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel_handed)
        return queued[keep:]

    def join(self) -> None:
        """Until the thread has ended; at once in the thread itself, as in a future's callback."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(
                f"this Executor belongs to process {self._pid}, and this is a fork of it: "
                "make a new one here"
            )

    def _check_open(self) -> None:
        if self._broken is not None:
            raise _copy_of(self._broken)
        if _EXITING.is_set():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self._is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="p2psched-executor")
        _CARRIERS.add(self)
        self._thread.start()

    def _wake(self) -> None:
        """Under the lock; once for all calls that are queued until the loop has its turn."""
        if self._loop is not None and not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._hand_over)

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._main())
        finally:
            self._finish()

    async def _main(self) -> None:
        self._ended = asyncio.Event()
        try:
            async with self._client as client:
                self._pipeline = client.pipeline
                self._hand_over()
                await self._ended.wait()
        except P2PSchedError as error:  # it can't be opened
            self._break(error)
        finally:
            with self._lock:
                self._is_closed = True
                self._loop = None  # nobody wakes it any more

    def _finish(self) -> None:
        """The loop is closed. Whoever still waits hears why."""
        with self._lock:
            left = [*self._handed, *self._queue]
            self._queue.clear()
        for call in left:
            call.on_failed(Unavailable("the executor's thread ended: see its traceback"))

    def _hand_over(self) -> None:
        """Let calls leave as far as they may; end if nothing is left to do."""
        with self._lock:
            self._is_woken = False
        pipeline = self._pipeline
        if pipeline is None:
            return  # not connected yet
        while len(self._handed) < self._handed_max:
            with self._lock:
                if not self._queue:
                    break
                call = self._queue.popleft()
            self._hand(pipeline, call)
            del call  # an idle thread holds nobody's function
        with self._lock:
            is_over = self._is_closed and not self._queue and not self._handed
        if (is_over or self._broken is not None) and self._ended is not None:
            self._ended.set()

    def _hand(self, pipeline: Pipeline, call: _Call) -> None:
        function, call.function = call.function, None
        assert function is not None
        self._handed.add(call)
        try:
            pipeline.add(function, call.options, call.arguments, call)
        except P2PSchedError as error:
            call.on_failed(error)
        call.arguments = b""

    def _cancel_handed(self) -> None:
        for call in list(self._handed):
            call.future.cancel()  # only those that have not left

    def on_done(self, call: _Call) -> None:
        self._handed.discard(call)
        with self._lock:
            if self._queue or self._is_closed:
                self._wake()

    def verdict(self, error: Exception) -> Exception:
        """What a future gets for it. Whoever is out of reach for one is for all."""
        if not isinstance(error, Unavailable):
            return error
        return _copy_of(self._break(error))

    def _break(self, error: P2PSchedError) -> ClusterUnreachable:
        with self._lock:
            if self._broken is None:
                self._broken = ClusterUnreachable(str(error))
                self._broken.__cause__ = error
            self._wake()
            return self._broken


def _copy_of(broken: ClusterUnreachable) -> ClusterUnreachable:
    """Raised in many threads: each has its own traceback."""
    copy = ClusterUnreachable(str(broken))
    copy.__cause__ = broken.__cause__
    return copy


def _at_exit() -> None:
    """Before the interpreter's modules go: carry what is open to its end."""
    _EXITING.set()
    carriers = [carrier for carrier in _CARRIERS if carrier._pid == os.getpid()]
    for carrier in carriers:
        carrier.close()
    for carrier in carriers:
        carrier.join()


# `atexit` is too late: threads are joined before, and ours ends only when it is told. This is how
# the standard library's executors do it; without it, exit waits for executors left open.
_register = getattr(threading, "_register_atexit", atexit.register)
cast("Callable[[Callable[[], None]], object]", _register)(_at_exit)
