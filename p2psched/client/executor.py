"""`concurrent.futures.Executor` on a cluster: for programs that have no event loop.

One thread with an event loop of its own carries what any number of threads submit; what they
submit close together travels together. A future is pending, and can be cancelled, until its call
leaves for the cluster; then it is running, and `cancel` is too late. At most `max_workers` of them
are on their way at a time if that is given, else HANDED_MAX; the rest waits here.

As with the standard library's executors, the interpreter waits at its exit for what was submitted.
A cluster that can't be reached for longer than `patience_s` breaks the executor: all that is open
ends with ClusterUnreachable, and so does each further submit.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar, cast, overload

from p2psched.client.client import Client
from p2psched.client.executor_thread import Carrier, ClusterUnreachable
from p2psched.client.options import HasOptions, Options, unwrap
from p2psched.client.session import PATIENCE_S
from p2psched.model.errors import UsageError

__all__ = ["ClusterUnreachable", "Executor"]

P = ParamSpec("P")
T = TypeVar("T")


class Executor(concurrent.futures.Executor):
    """Runs calls in a cluster: `with Executor() as executor: executor.submit(train, 0.1).result()`.

    Where to connect is found as by `Client`. `retries`, `timeout_s`, `cpus` and `name` are of each
    task, unless what is submitted brings its own. `chunksize` is the default of `map`.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        secret_file: str | Path | None = None,
        runtime_dir: str | Path | None = None,
        max_workers: int | None = None,
        chunksize: int = 1,
        retries: int = 0,
        timeout_s: float | None = None,
        cpus: int = 1,
        name: str | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        _check_chunksize(chunksize)
        self._chunksize = chunksize
        self._options = Options(retries=retries, timeout_s=timeout_s, cpus=cpus, name=name)
        client = Client(
            address, secret_file=secret_file, runtime_dir=runtime_dir, patience_s=patience_s
        )
        self._carrier = Carrier(client, max_workers=max_workers)
        # Nobody can submit any more once this is gone; what was submitted is carried to its end.
        weakref.finalize(self, self._carrier.close)

    @overload
    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]: ...

    @overload
    def submit(
        self, fn: str | HasOptions, /, *args: object, **kwargs: object
    ) -> concurrent.futures.Future[object]: ...

    def submit(
        self, fn: Callable[P, T] | str | HasOptions, /, *args: object, **kwargs: object
    ) -> concurrent.futures.Future[T] | concurrent.futures.Future[object]:
        """Arguments are packed now; what can't be is the exception of the future. Raises
        RuntimeError after `shutdown`, ClusterUnreachable if the executor is broken."""
        function, options = unwrap(fn, self._options)
        return self._carrier.submit(function, options, (args, kwargs))

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[object],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Iterator[T]:
        """As the built-in: results in order, as they are there. All is submitted at once, in tasks
        of `chunksize` calls each. Raises TimeoutError from the iterator if a result is not there
        `timeout` seconds after the call."""
        size = self._chunksize if chunksize is None else chunksize
        _check_chunksize(size)
        if size == 1:
            return super().map(fn, *iterables, timeout=timeout)
        function, options = unwrap(fn, self._options)
        if isinstance(function, str):
            raise UsageError("calls in chunks take a function: import it, or leave out chunksize")
        chunked = cast("Callable[..., list[T]]", _WithOptions(_whole_chunk(function), options))
        chunks = _chunks(zip(*iterables, strict=False), size)
        return _flat(super().map(chunked, chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with `wait` return once all futures are done and nothing of ours is
        left; with `cancel_futures` cancel those that have not left for the cluster (of the first
        `max_workers` it is taken that they have)."""
        self._carrier.close(cancel_futures=cancel_futures)
        if wait:
            self._carrier.join()


@dataclass(frozen=True, slots=True)
class _WithOptions:
    """What `submit` takes for a function with options of its own."""

    function: Callable[..., object]
    settings: Options


def _check_chunksize(chunksize: int) -> None:
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")


def _chunks(
    calls: Iterable[tuple[object, ...]], size: int
) -> Iterator[tuple[tuple[object, ...], ...]]:
    iterator = iter(calls)
    while chunk := tuple(itertools.islice(iterator, size)):
        yield chunk


def _whole_chunk(
    function: Callable[..., T],
) -> Callable[[tuple[tuple[object, ...], ...]], list[T]]:
    """One call for all of a chunk. A nested function, so that it travels by value: workers need not
    have this package."""

    def run_chunk(calls: tuple[tuple[object, ...], ...]) -> list[T]:
        return [function(*arguments) for arguments in calls]

    return run_chunk


def _flat(lists: Iterator[list[T]]) -> Iterator[T]:
    """All elements, none of them held."""
    for values in lists:
        values.reverse()
        while values:
            yield values.pop()
