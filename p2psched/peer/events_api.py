"""Events of the ledger and looks at its past, as calls. A part of the API, see `peer.api`.

Events come from memory where that goes back far enough, from snapshot and log where it doesn't,
and from another peer where this one never had them or has let go of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from p2psched.core.machine import Machine
from p2psched.model.commands import Rejected
from p2psched.model.errors import P2PSchedError, Refused, Unavailable, UsageError, from_wire
from p2psched.model.event_messages import (
    EVENTS_MAX,
    AddHook,
    EventCall,
    EventFilter,
    EventPage,
    FetchEvents,
    HookAdded,
    HookList,
    ListHooks,
    Place,
    ReadPast,
    RemoveHook,
)
from p2psched.model.ids import PeerId
from p2psched.model.messages import (
    AnswerBody,
    Done,
    FindJob,
    JobList,
    ListJobs,
    ListPeers,
    ShowJob,
)
from p2psched.model.peer_messages import PeerList
from p2psched.model.raft import Membership
from p2psched.model.webhook import AddWebhook, RemoveWebhook, fault_of
from p2psched.peer.backfill import Source
from p2psched.peer.replay import HistoryGone, Replays
from p2psched.peer.roster import NO_QUORUM, PATIENCE_S
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.peer.views import find_job, job_of, job_view, newest_views, peer_views
from p2psched.peer.webhooks import Webhooks
from p2psched.ports.engine import Engine

WAIT_MS_MAX: Final = 30_000

PastBody = FindJob | ShowJob | ListJobs | ListPeers
_past_body: Final = msgspec.msgpack.Decoder(PastBody).decode


class EventsApi:
    def __init__(
        self,
        scheduling: SchedulerLoop,
        ledger: Engine,
        source: Source,
        linearize: Callable[[], Awaitable[None]],
        *,
        me: PeerId,
        secret: bytes,
        cluster: str,
    ) -> None:
        self._me = me
        self._scheduling = scheduling
        self._feed = scheduling.events
        self._ledger = ledger
        self._source = source
        self._linearize = linearize
        self._replays = Replays(ledger)
        self.webhooks: Final = Webhooks(scheduling, self.read, secret=secret, cluster=cluster)

    async def answer(self, body: EventCall) -> AnswerBody:
        """Raises a P2PSchedError for the caller."""
        match body:
            case FetchEvents(start=None):
                await self._linearize()
                return EventPage((), Place(self._feed.last + 1))
            case FetchEvents():
                return await self.read(body)
            case ReadPast():
                return await self._past(body)
            case AddHook():
                return await self._add(body)
            case RemoveHook(name=name):
                await self._propose(RemoveWebhook(name))
                return Done()
            case ListHooks():
                return await self._hooks(body)

    # --- events -----------------------------------------------------------------------------------

    async def read(self, body: FetchEvents) -> EventPage:
        """From its place on, here or from others."""
        assert body.start is not None
        place = body.start
        limit = max(1, min(body.limit, EVENTS_MAX))
        if min(place.index, place.position) < 0:
            raise UsageError(f"there is no place {place} in a ledger")
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + min(body.wait_ms, WAIT_MS_MAX) / 1000
        while True:
            page = await self.page(place, body.wanted, limit)
            if page.oldest is not None and not body.here_only:
                return await self._from_others(body, page)
            is_news = page.events or page.oldest is not None
            place = page.following
            if is_news or place.index <= self._feed.last or loop.time() >= deadline_s:
                return page
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._feed.wait_beyond(place.index - 1)
            except TimeoutError:
                if not self._ledger.engine.raft.leader_is_live():
                    raise Unavailable(NO_QUORUM) from None  # others may know more

    async def page(self, start: Place, wanted: EventFilter, limit: int) -> EventPage:
        """What this peer has from a place on."""
        page = self._feed.read(start, wanted, limit)
        if page is not None:
            return page
        try:
            return await self._replays.events(start, wanted, limit)
        except HistoryGone as gone:
            return EventPage((), start, oldest=Place(gone.oldest))

    async def _from_others(self, body: FetchEvents, here: EventPage) -> EventPage:
        """Of the peer that goes back far enough, or else how far the oldest one does."""
        asked = msgspec.structs.replace(body, here_only=True, wait_ms=0)
        oldest = here.oldest
        assert oldest is not None
        for peer in self._source.peers():
            try:
                answer = await self._source.call(peer, asked)
            except (P2PSchedError, TimeoutError):
                continue
            assert isinstance(answer, EventPage)
            if answer.oldest is None:
                return answer
            oldest = min(oldest, answer.oldest)
        return EventPage((), here.following, oldest=oldest)

    # --- webhooks ---------------------------------------------------------------------------------

    async def _add(self, body: AddHook) -> HookAdded:
        fault = fault_of(body.name, body.url, body.wanted)
        if fault:
            raise UsageError(fault)
        await self._propose(AddWebhook(body.name, body.url, body.wanted, body.start))
        hook = self._scheduling.scheduler.machine.webhooks.get(body.name)
        if hook is None:
            raise Refused(f"webhook {body.name} was removed meanwhile")
        return HookAdded(self.webhooks.key(hook))

    async def _propose(self, command: AddWebhook | RemoveWebhook) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                outcome = await self._scheduling.propose(command)
        except TimeoutError as exc:
            raise Unavailable(NO_QUORUM) from exc
        if isinstance(outcome, Rejected):
            raise from_wire(outcome.code, outcome.message, 1000)

    async def _hooks(self, body: ListHooks) -> AnswerBody:
        """Of whoever delivers, if it can be asked: it knows what goes wrong."""
        await self._linearize()
        leader = self._ledger.coordinator()
        if leader not in (None, self._me) and not body.here_only:
            with contextlib.suppress(P2PSchedError, TimeoutError):
                return await self._source.call(leader, ListHooks(here_only=True))
        return HookList(tuple(self.webhooks.views()))

    # --- the state as of an entry -----------------------------------------------------------------

    async def _past(self, body: ReadPast) -> AnswerBody:
        try:
            asked = _past_body(body.body)
        except (msgspec.DecodeError, ValueError) as error:
            raise UsageError(f"a call that reads no past state: {error}") from error
        await self._linearize()
        machine = self._scheduling.scheduler.machine
        look = partial(_look, asked)
        if body.index == machine.applied_index:
            return look(machine, self._ledger.engine.raft.membership)
        if not 0 < body.index < machine.applied_index:
            raise UsageError(
                f"there is no entry {body.index}: the newest is {machine.applied_index}"
            )
        try:
            return await self._replays.look(body.index, look)
        except HistoryGone as gone:
            if body.here_only:
                raise Refused(_gone(body.index, gone.oldest)) from gone
            return await self._past_of_others(body, gone.oldest)

    async def _past_of_others(self, body: ReadPast, oldest: int) -> AnswerBody:
        asked = msgspec.structs.replace(body, here_only=True)
        for peer in self._source.peers():
            try:
                return await self._source.call(peer, asked)
            except (Refused, Unavailable, TimeoutError):
                continue
        raise Refused(_gone(body.index, oldest))


def _look(asked: PastBody, machine: Machine, members: Membership) -> AnswerBody:
    match asked:
        case FindJob(text=text):
            return job_view(find_job(machine, text), machine, whole=True)
        case ShowJob(job=job):
            return job_view(job_of(machine, job), machine, whole=True)
        case ListJobs(limit=limit):
            views = newest_views(machine, limit, lambda job: job_view(job, machine))
            return JobList(tuple(views), len(machine.jobs))
        case ListPeers():  # who led nobody wrote down
            return PeerList(tuple(peer_views(machine, members, None, {})))


def _gone(index: int, oldest: int) -> str:
    return (
        f"the state as of entry {index} is gone: peers keep what leads back to entry {oldest}, and "
        "let go of older ones with each snapshot"
    )
