"""The asyncio client: submit work to any peer, follow it through any other.

async with Client("127.0.0.1:7420") as client:
    print(await client.submit(train, 0.1))
    job = await client.map(train, grid)
    async for result in job:
        print(result.index, result.value)
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, ParamSpec, TypeVar, Unpack, overload

from p2psched.client import blobs
from p2psched.client.disconnected import Disconnected
from p2psched.client.find import find_peers, who_am_i
from p2psched.client.job import Job
from p2psched.client.members import Members
from p2psched.client.pipeline import Pipeline, keep_house
from p2psched.client.session import PATIENCE_S, Session
from p2psched.client.shared import Shared
from p2psched.client.spool import Upload
from p2psched.model.errors import P2PSchedError, Unavailable, UsageError
from p2psched.model.ids import JobId, new_id
from p2psched.model.job import JobSpec
from p2psched.model.messages import (
    FindJob,
    GetStatus,
    JobList,
    JobView,
    ListJobs,
    ListPeers,
    Submit,
)
from p2psched.model.peer_messages import PeerList, PeerView
from p2psched.model.staleness import Staleness
from p2psched.model.status_messages import StatusAnswer
from p2psched.store.records import default_runtime_dir

if TYPE_CHECKING:
    from p2psched.client.functions import Calls, MapOptions
    from p2psched.client.futures import ReturnWhen, Task
    from p2psched.client.options import Function, HasOptions
    from p2psched.client.programs import ProgramOptions

__all__ = ["Client", "Job", "who_am_i"]

PACKED_HERE_MAX: Final = 5_000  # calls that are packed in the event loop: some 10 ms

Consistency = Literal["linearizable", "stale"]

P = ParamSpec("P")
T = TypeVar("T")


class Client(Shared):
    """A connection to a cluster through any of its peers; see the module for the shortest use.

    Without an address the peers on this machine are found by their records, and so is the secret;
    elsewhere pass `secret_file`. `P2PSCHED_PEER`, `P2PSCHED_SECRET_FILE` and `P2PSCHED_RUNTIME_DIR`
    stand in for what is not given. Every call is repeated at another peer for up to `patience_s`
    seconds when one is gone or without a leader; then Unavailable is raised.

    What is read is as of now: all that was acknowledged anywhere before is seen. With
    `consistency="stale"` the peer that is asked answers from what it knows, also without a
    majority; `staleness` tells how old that may be.

    A client belongs to the event loop in which it is opened. Leaving the block waits until what was
    submitted is accepted (not if it is left by an exception) and ends all that follows jobs here;
    the jobs go on. It can be opened again, also in another loop.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        secret_file: str | Path | None = None,
        runtime_dir: str | Path | None = None,
        patience_s: float = PATIENCE_S,
        consistency: Consistency = "linearizable",
    ) -> None:
        self._address = address
        self._stale = consistency == "stale"
        self._secret_file = Path(secret_file) if secret_file is not None else None
        self._runtime_dir = Path(runtime_dir) if runtime_dir is not None else None
        self._patience_s = patience_s
        self._session: Session | None = None
        self._pipeline: Pipeline | None = None
        self._house: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Client:
        if self._session is not None:
            raise UsageError("this client is open: open another one, or use this one")
        addresses, secret = await self._locate()
        session = Session(addresses, secret=secret, patience_s=self._patience_s, stale=self._stale)
        await session.__aenter__()
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Pipeline] = loop.create_future()
        # The children's group has a task of its own: a notebook, or a fixture, opens and closes a
        # client in different tasks, and a group belongs to one.
        house = loop.create_task(
            keep_house(session, ready, partial(blobs.submit, session), submitter=who_am_i())
        )
        try:
            self._pipeline = await ready
        except BaseException:
            house.cancel()
            await session.__aexit__()
            raise
        self._house, self._session = house, session
        return self

    async def open(self) -> Client:
        """For where no block fits, as in a notebook: `client = await Client().open()`."""
        return await self.__aenter__()

    async def close(self) -> None:
        """As leaving the block does. Nothing to do for a client that is not open."""
        await self.__aexit__()

    async def _locate(self) -> tuple[list[str], bytes]:
        """Where to connect, and with which secret."""
        return await asyncio.to_thread(self._find_peers)

    def _find_peers(self) -> tuple[list[str], bytes]:
        """What wasn't given comes from the variables that the command line reads too."""
        runtime_dir = self._runtime_dir or Path(os.environ.get("P2PSCHED_RUNTIME_DIR", ""))
        secret_file = self._secret_file or Path(os.environ.get("P2PSCHED_SECRET_FILE", ""))
        return find_peers(
            self._address or os.environ.get("P2PSCHED_PEER") or None,
            secret_file=secret_file if secret_file != Path() else None,
            runtime_dir=runtime_dir if runtime_dir != Path() else default_runtime_dir(os.environ),
        )

    async def __aexit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        session, pipeline, house = self._session, self._pipeline, self._house
        self._session = self._pipeline = self._house = None
        if session is None or pipeline is None or house is None:
            return
        try:
            if kind is None:
                await pipeline.wait_sent()
            await session.consumer.close()
        finally:
            pipeline.close(Unavailable("client closed: open one with `async with Client(...)`"))
            try:
                await session.claims.close()
            finally:
                house.cancel()
                try:
                    await asyncio.wait({house})
                finally:
                    await session.__aexit__()

    @property
    def session(self) -> Session:
        """For calls that have no method here."""
        if self._session is None:
            raise UsageError("use the client as `async with Client(...) as client`")
        return self._session

    @property
    def pipeline(self) -> Pipeline:
        """What carries submitted calls. Raises UsageError outside of the client's own loop."""
        if self._pipeline is None:
            raise UsageError("use the client as `async with Client(...) as client`")
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not self._pipeline.loop:
            raise UsageError(
                "a Client belongs to the event loop in which it was opened: open another one here, "
                "or use p2psched.Executor, which any thread may call"
            )
        return self._pipeline

    # --- work -------------------------------------------------------------------------------------

    async def map(
        self,
        function: Function | HasOptions,
        items: Iterable[object],
        *more: Iterable[object],
        kwargs: Mapping[str, object] | None = None,
        job_id: str | None = None,
        **options: Unpack[MapOptions],
    ) -> Job:
        """One task for each item: `function(item)`, or `function(x, y)` for several iterables, as
        the built-in does it; `kwargs` are passed to all. Returns once the job is accepted: from
        then on it can't be lost. `timeout_s` is for one attempt; by default a task is tried once,
        without a limit, on one cpu. `copies`: disks that a large result is on. `hold`: of a
        lock, by each task while it runs. `policy` and `needs`: where its tasks go. `lease`: of
        tasks that `start="exclusive"`, in seconds or as "15s". `modules`: see
        `client.functions.pack`. Raises UsageError for what can't be serialised or is over a limit.
        The same `job_id` (32 hex digits) again is the same job."""
        from p2psched.client.functions import calls  # noqa: PLC0415 (who only looks packs nothing)

        return await self._map(function, calls(items, *more, kwargs=kwargs), job_id, options)

    async def starmap(
        self,
        function: Function | HasOptions,
        tuples: Iterable[Sequence[object]],
        *,
        kwargs: Mapping[str, object] | None = None,
        job_id: str | None = None,
        **options: Unpack[MapOptions],
    ) -> Job:
        """As `map`, with one task for each tuple: `function(*tuple)`."""
        from p2psched.client.functions import star_calls  # noqa: PLC0415

        return await self._map(function, star_calls(tuples, kwargs=kwargs), job_id, options)

    async def _map(
        self,
        function: Function | HasOptions,
        each: Calls,
        job_id: str | None,
        options: MapOptions,
    ) -> Job:
        from p2psched.client.functions import pack  # noqa: PLC0415
        from p2psched.client.options import unwrap  # noqa: PLC0415

        called, own = unwrap(function)
        chosen = own.told()
        for option, value in options.items():
            if value is not None:
                chosen[option] = value  # type: ignore[literal-required]  # both have these keys
        make = partial(pack, called, each, submitter=who_am_i(), **chosen)
        # Many take seconds, and the loop has other things to do. What the caller's own code makes
        # one by one must run here, though: it may belong to this loop.
        packed = await asyncio.to_thread(make) if each.count > PACKED_HERE_MAX else make()
        return await self.submit_spec(packed.spec, job_id=job_id, uploads=packed.uploads)

    @overload
    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]: ...

    @overload
    def submit(
        self, function: str | HasOptions, /, *args: object, **kwargs: object
    ) -> Task[object]: ...

    def submit(
        self, function: Callable[P, T] | str | HasOptions, /, *args: object, **kwargs: object
    ) -> Task[T] | Task[object]:
        """One task: `function(*args, **kwargs)`. Returns at once; `await` it for the value.

        The arguments are packed now, the function as it is when the first call of it in this turn
        of the event loop is submitted. What is submitted in one turn travels together: the calls of
        one function with the same options become one job. Raises UsageError for what can't be
        serialised; what the cluster refuses is raised by the task.
        """
        from p2psched.client import futures  # noqa: PLC0415

        return futures.submit(self.pipeline, function, (args, kwargs))

    @overload
    async def gather(
        self, tasks: Iterable[Task[T]], *, return_exceptions: Literal[False] = False
    ) -> list[T]: ...

    @overload
    async def gather(
        self, tasks: Iterable[Task[T]], *, return_exceptions: bool
    ) -> list[T | BaseException]: ...

    async def gather(
        self, tasks: Iterable[Task[T]], *, return_exceptions: bool = False
    ) -> list[T] | list[T | BaseException]:
        """The values in the order of the tasks. Raises what the first one to fail raised, and the
        others go on; with `return_exceptions` that stands in the list instead."""
        from p2psched.client import futures  # noqa: PLC0415

        return await futures.gather(tasks, return_exceptions=return_exceptions)

    def as_completed(self, tasks: Iterable[Task[T]]) -> AsyncIterator[Task[T]]:
        """Each task once, as soon as it has ended: `async for task in client.as_completed(...)`."""
        from p2psched.client import futures  # noqa: PLC0415

        return futures.as_completed(tasks)

    async def wait(
        self,
        tasks: Iterable[Task[T]],
        *,
        timeout_s: float | None = None,
        return_when: ReturnWhen = "ALL_COMPLETED",
    ) -> tuple[set[Task[T]], set[Task[T]]]:
        """Those that have ended, and those that have not, once `timeout_s` is over, or one has
        ended (FIRST_COMPLETED), or failed (FIRST_EXCEPTION), or all have. Their errors stay in
        them."""
        from p2psched.client import futures  # noqa: PLC0415

        return await futures.wait(tasks, timeout_s=timeout_s, return_when=return_when)

    async def cancel(self, work: Task[object] | Job | Iterable[Task[object] | Job]) -> None:
        """Cancel, and return once that is final where it can be.

        A job is cancelled in the ledger: no later result counts. So is the job of tasks if nobody
        waits for any unfinished task of it. Of a job with others in it the tasks given here are
        only dropped by this client: they may still run, and be recorded.
        """
        from p2psched.client.futures import Task  # noqa: PLC0415

        found = [work] if isinstance(work, Task | Job) else list(work)
        for task in found:
            if isinstance(task, Task):
                task.cancel()
        # One for each job, however many tasks of it are here.
        confirm = {one.job.id: one.wait_cancelled for one in found if isinstance(one, Task)}
        confirm |= {one.id: one.cancel for one in found if isinstance(one, Job)}
        errors: list[P2PSchedError] = []

        async def confirmed(cancel: Callable[[], Awaitable[None]]) -> None:
            try:
                await cancel()
            except P2PSchedError as error:
                errors.append(error)

        async with asyncio.TaskGroup() as group:
            for cancel in confirm.values():
                group.create_task(confirmed(cancel))
        if errors:
            raise errors[0]

    async def submit_program(
        self,
        argv: Sequence[str],
        *,
        job_id: str | None = None,
        **options: Unpack[ProgramOptions],
    ) -> Job:
        """One child process for each of `tasks` (default: one, index 0), never through a shell.
        `outputs` are files in the task's folder that it hands over: see `TaskResult.files`. `hold`,
        `policy` and `needs`: as in `map`."""
        from p2psched.client.programs import pack_program  # noqa: PLC0415

        spec, uploads = pack_program(argv, submitter=who_am_i(), **options)
        return await self.submit_spec(spec, job_id=job_id, uploads=uploads)

    async def submit_spec(
        self, spec: JobSpec, *, job_id: str | None = None, uploads: Sequence[Upload] = ()
    ) -> Job:
        """A job that was made elsewhere, and the blobs that it names."""
        job = JobId(job_id if job_id is not None else new_id(random.SystemRandom()))
        if spec.after is not None:
            await self.pipeline.wait_known(spec.after.parents)
        await blobs.submit(self.session, Submit(job, spec), uploads)
        return Job(self.session, job)

    # --- looking ----------------------------------------------------------------------------------

    async def job(self, text: str) -> Job:
        """By id, prefix of an id, name, or `last`. Raises NotFound."""
        if not isinstance(text, str):
            raise UsageError(f"{text!r} is no id or name of a job: both are text")
        view = await self.session.call(FindJob(text), JobView)
        return Job(self.session, view.job)

    async def jobs(self, *, limit: int = 100) -> list[JobView]:
        """Newest first."""
        return list((await self.session.call(ListJobs(limit), JobList)).jobs)

    async def peers(self) -> list[PeerView]:
        """By name: role, zone, state, and how far each is."""
        return list((await self.session.call(ListPeers(), PeerList)).peers)

    @property
    def peer(self) -> Members:
        """To remove, promote, demote and drain peers, and to say how many vote."""
        return Members(self.session)

    @property
    def cut_off(self) -> Disconnected:
        """What the peer that this client talks to keeps while it hears no majority."""
        return Disconnected(self.session)

    @property
    def staleness(self) -> Staleness | None:
        """Of the oldest stale answer since this client was opened; None if there was none."""
        return self.session.staleness

    async def status(self) -> StatusAnswer:
        """The view of the peer that we talk to."""
        return await self.session.call(GetStatus(), StatusAnswer)
