"""The life of a peer that holds no ledger, from the question whether it should to its end.

A peer without a ledger on its disk asks to join. It becomes a member, and is whole from then on, or
a follower: then it lives here, until it stops or the group needs one more that holds the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from p2psched.core.duty import Duty
from p2psched.core.follower import Follower
from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError, Removed, Static, first_of
from p2psched.model.execution import ExecutorEvent
from p2psched.model.feed_messages import Feed, FeedElsewhere, Following, KeepBlobs, KeptBlobs
from p2psched.model.ids import PeerId
from p2psched.model.messages import AnswerBody, Call, CallBody, Done, Join, PeerMessage
from p2psched.model.raft import Member
from p2psched.model.status_messages import StatusAnswer
from p2psched.model.steal_messages import StealMessage
from p2psched.net.auth import Identity
from p2psched.net.link import Connection, Handlers
from p2psched.net.peers import PeerLinks
from p2psched.net.server import Server
from p2psched.observe.lateness import LoopLateness
from p2psched.peer.announcing import Announcing
from p2psched.peer.answering import Answering
from p2psched.peer.around import KnownPeers
from p2psched.peer.asking import AskingAround
from p2psched.peer.cluster import Belonging, info_of, offers_of, pool_of
from p2psched.peer.doors import starting
from p2psched.peer.failures import was_removed, write_failure
from p2psched.peer.follower_api import FollowerApi
from p2psched.peer.follower_loop import FollowerLoop
from p2psched.peer.gossip import Gossip
from p2psched.peer.joining import CALL_PATIENCE_S, JOIN_RETRY_S
from p2psched.peer.large_data import LargeData
from p2psched.peer.loads import Loads
from p2psched.peer.separation import SeparationKeeper
from p2psched.peer.space import SpaceKeeper
from p2psched.peer.status import Process, follower_status
from p2psched.peer.whereabouts import Whereabouts
from p2psched.ports.clock import Clock
from p2psched.store.blobs import BlobFiles
from p2psched.store.folder import DataFolder
from p2psched.store.separation_files import SeparationFiles

log = logging.getLogger(__name__)

WANTED_LOOK_S: Final = 2.0  # between two looks whether too few hold the ledger
ALONE_S: Final = 2.0  # for an answer of somebody, before a peer goes on with what it had
COLLECT_S: Final = 60.0  # between two looks for blobs that nobody needs
DIGESTS_PAGE: Final = 4_096


class _Ended(Exception):
    """Ends the task group; nobody else sees it."""


class Life:
    """Make one, `run` it once. `handlers` get what comes meanwhile."""

    def __init__(
        self,
        config: Config,
        folder: DataFolder,
        space: SpaceKeeper,
        belonging: Belonging,
        server: Server,
        *,
        clock: Clock,
        stop: asyncio.Event,
        on_failed: Callable[[BaseException], None],
        announcing: Announcing,
        gossip: Gossip,
        loads: Loads,
        can_hold: Callable[[], Awaitable[bool]],
    ) -> None:
        """`stop` ends it; `on_failed` is told of what the peer must not survive, and sets it.
        `can_hold`: gets ready for a life with the ledger."""
        self._config, self._folder, self._space = config, folder, space
        self._belonging, self._server = belonging, server
        self._clock, self._stop = clock, stop
        self._on_failed, self._announcing = on_failed, announcing
        self._gossip, self._loads, self._can_hold = gossip, loads, can_hold
        self._me = folder.identity.peer
        self._started_ms = clock.now_ms()
        self._lateness = LoopLateness()
        self._loop: FollowerLoop | None = None
        self._callers: Answering | None = None
        self._peers: Answering | None = None
        self._is_whole = False
        self.handlers = Handlers(
            on_message=self._on_message, on_opened=self._on_opened, on_closed=self._on_closed
        )

    async def run(self, address: str) -> bool:
        """True once this peer is a member, and shall begin its life as one; False when it has
        stopped. `address` is its own."""
        votes, name = bool(self._config.votes), self._folder.identity.name
        self._member = Member(self._me, name, address, votes, self._config.zone)
        self._links = PeerLinks(
            identity=Identity(peer=self._me, address=address, cluster=self._belonging.cluster),
            secret=self._belonging.secret,
            handlers=self.handlers,
            rng=random.SystemRandom(),
        )
        self._where = Whereabouts(self._member, links=self._links, book=self._folder.address_book)
        self._where.read_book()
        for peer, known in self._belonging.known.items():
            self._where.meet(peer, known)
        asking_around = AskingAround(
            self._member,
            config=self._config,
            belonging=self._belonging,
            clock=self._clock,
            where=self._where,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._links.run())
                group.create_task(asking_around.run(self._is_fed))
                stopping = group.create_task(self._stop.wait())
                asking = group.create_task(self._ask_or_recall())
                await asyncio.wait([asking, stopping], return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    await self._follow(group, asking.result())
                raise _Ended
        except* _Ended:
            pass
        except* P2PSchedError as errors:
            self._on_failed(first_of(errors))
        return self._is_whole and not self._stop.is_set()

    # --- which part this peer plays ---

    async def _ask_or_recall(self) -> Following | None:
        """Who has something to go on with, and reaches nobody, goes on with that."""
        note = await asyncio.to_thread(SeparationFiles(self._folder.path).read_note)
        patience_s = ALONE_S if note.owned and note.group.voters else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                return await self._ask()
        return Following(note.group, None)

    async def _ask(self) -> Following | None:
        """Until somebody answers. None: it is a member now."""
        while True:
            answer = await self._ask_once()
            if answer is not None:
                return answer if isinstance(answer, Following) else None
            await asyncio.sleep(JOIN_RETRY_S)

    async def _ask_once(self, *, would_rather: bool | None = None) -> AnswerBody | None:
        rather = self._config.follows is True if would_rather is None else would_rather
        join = Join(self._member, self._config.follows is not False, rather)
        for peer in sorted(self._where.known):
            try:
                async with asyncio.timeout(CALL_PATIENCE_S):
                    return await self._links.call(peer, join)
            except (Removed, Static):
                raise
            except (TimeoutError, P2PSchedError):
                continue  # another may be there
        return None

    def _is_fed(self) -> bool:
        return self._loop is not None and self._loop.follower.is_fed

    async def _watch_group(self) -> None:
        """Be whole as soon as too few are, or too many of those are away; not all at once."""
        short_at: int | None = None
        patience_ms = self._config.replace_ms
        assert self._loop is not None
        follower = self._loop.follower
        turn = hashlib.blake2b(self._me.encode(), digest_size=1).digest()[0] / 256
        while True:
            await asyncio.sleep(WANTED_LOOK_S * (1 + turn))
            is_short = follower.is_fed and follower.is_short
            short_at = (short_at or self._clock.now_ms()) if is_short else None
            has_lasted = short_at is not None and self._clock.now_ms() - short_at >= patience_ms
            is_wanted = follower.is_wanted or has_lasted
            may_join = follower.is_fed and is_wanted and self._config.follows is None
            if may_join and await self._can_hold():
                answer = await self._ask_once()
                if isinstance(answer, Done):
                    log.info("joins-the-group")
                    self._is_whole = True
                    raise _Ended

    # --- as a follower ---

    async def _follow(self, group: asyncio.TaskGroup, told: Following | None) -> None:
        if told is None:
            self._is_whole = True
            return
        folder, config = self._folder, self._config
        await asyncio.to_thread(folder.following.set)
        incarnation = await asyncio.to_thread(self._space.patiently, folder.next_incarnation)
        files = await asyncio.to_thread(BlobFiles, folder.blobs_path, now_ms=self._clock.now_ms)
        self._pool = pool_of(config, folder, files, on_event=self._on_executed)
        self._data = LargeData(
            files,
            me=self._me,
            others=self._links,
            group=group,
            on_disk_failed=lambda error: self._on_failed(write_failure(self._folder, error)),
            clock=self._clock,
            checkpoint_budget=config.checkpoint_budget,
        )
        try:
            group.create_task(self._pool.run())
            await self._pool.wait_ready()
            self._wire(told, incarnation)
            await self._live(group)
        finally:
            if hasattr(self, "_separation"):
                self._separation.close()
            self._data.close()
            if config.embedded:
                self._announcing.remove_record()

    def _wire(self, told: Following, incarnation: int) -> None:
        info = info_of(self._config, self._member, incarnation, self._pool.python_version)
        config, offers = self._config, offers_of(self._config, self._pool.means)
        follower = Follower(
            *(info, told.group, told.leader, offers),
            stall_ms=config.stall_ms,
            max_disconnect_ms=config.max_disconnect_ms,
        )
        follower.owner.duty = Duty(info.slots, config.duty)
        loop = self._loop = FollowerLoop(
            follower,
            clock=self._clock,
            executor=self._data.checkpoints.around(self._pool),
            send=self._send,
            next_incarnation=lambda: self._space.patiently(self._folder.next_incarnation),
            on_bug=self._on_failed,
        )
        self._data.blobs.store.space_left_min = self._space.watch.least
        copier = self._data.follow(
            follower.machine,
            lambda: follower.group,
            on_copied=loop.on_copied,
            on_executed=loop.on_executed,
            note=loop.note,
            catch_up=loop.wait_told,
        )
        loop.copy = copier.start
        self._where.on_membership(follower.group)
        self._separation = SeparationKeeper(
            *(self._folder, loop, self._config, self._clock),
            follows=lambda: (follower.cursor, follower.group),
            ask=self._ask_holder,
        )
        self._api = FollowerApi(
            follower,
            others=self._links,
            data=self._data,
            output=self._pool.output,
            status=self.status,
            stop=self._stop.set,
            where=self._where.answer,
            loads=self._loads.table,
            separation=self._separation,
            wall_of=loop.wall_of,
        )

    async def _ask_holder(self, body: CallBody) -> AnswerBody:
        return await self._api.ask(body)

    async def _live(self, group: asyncio.TaskGroup) -> None:
        assert self._loop is not None
        loop = self._loop
        self._callers = Answering(group, self._space.gate(self._api.answer))
        self._peers = Answering(group, self._space.gate(self._api.answer_peer))
        for connection in self._server.connections:
            self._on_opened(connection)
        await self._separation.begin(group)
        for task in (
            self._pool.keep(self._data.blobs),
            self._lateness.run(),
            self._space.run(),
            loop.run(),
            self._announce(),
            self._collect(),
            self._gossip.run(
                KnownPeers.of_feed(self._where, loop.follower), self._links, self._where.meet
            ),
        ):
            group.create_task(task)
        self._loads.begin(loop, loop.follower, self._space, group)
        watching = group.create_task(self._until_whole())
        stopping = group.create_task(self._stop.wait())
        await asyncio.wait([watching, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not self._is_whole:
            self._gossip.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.leave_ms / 1000):
                await self._data.checkpoints.leave(self._config.leave_ms / 2000)
                await loop.leave()
                self._separation.forget_owned()
        if not self._is_whole:
            self._server.say_goodbye()
            self._announcing.remove_record()
        loop.stop()

    async def _until_whole(self) -> None:
        with contextlib.suppress(_Ended):
            await self._watch_group()

    async def _announce(self) -> None:
        """Leave a record for local commands, and say when the ledger knows of us."""
        assert self._loop is not None
        follower = self._loop.follower
        await self._announcing.leave_record(follower.info)
        await self._loop.wait(lambda: follower.is_known)
        self._announcing.ready(follower.info)

    async def _collect(self) -> None:
        """Remove blobs that nobody touched for long and that the ledger has no use for here."""
        assert self._loop is not None
        owner, blobs = self._loop.follower.owner, self._data.blobs
        while True:
            await asyncio.sleep(COLLECT_S)
            old = await blobs.old()
            for start in range(0, len(old), DIGESTS_PAGE):
                page = tuple(old[start : start + DIGESTS_PAGE])
                with contextlib.suppress(P2PSchedError):
                    answer = await self._api.ask(KeepBlobs(self._me, page))
                    assert isinstance(answer, KeptBlobs)
                    kept = {*answer.digests, *(ref.digest for ref in owner.blobs())}
                    await blobs.drop([digest for digest in page if digest not in kept])

    # --- connections ---

    def _send(self, peer: PeerId, message: PeerMessage) -> None:
        if self._links.address(peer) is None:  # another follower, whose tasks this one would take
            address = self._gossip.address(peer)
            if address:
                self._where.note(peer, "", address)
        self._links.send(peer, message)

    def _on_message(self, connection: Connection, message: PeerMessage | Call) -> None:
        if isinstance(message, Call):
            answering = self._callers if connection.peer is None else self._peers
            if answering is None:
                connection.send_nowait(starting(message))
            else:
                answering.on_call(connection, message)
        elif self._loop is not None and isinstance(message, Feed | FeedElsewhere | StealMessage):
            assert connection.peer is not None, "clients say nothing one way"
            self._loop.on_told(connection.peer, message)
            self._where.on_membership(self._loop.follower.group)
            if self._loop.follower.is_removed:
                self._on_failed(was_removed(self._member.name, self._me, self._config.data))

    def _on_opened(self, connection: Connection) -> None:
        if self._loop is not None or hasattr(self, "_where"):
            self._where.on_opened(connection)

    def _on_closed(self, connection: Connection, error: P2PSchedError | None) -> None:
        del error  # logged where it arose
        for answering in (self._callers, self._peers):
            if answering is not None:
                answering.on_closed(connection)
        if self._loop is not None and connection.peer is not None:
            self._loop.on_lost(connection.peer)

    def _on_executed(self, event: ExecutorEvent) -> None:
        self._data.checkpoints.on_executed(event)

    def status(self) -> StatusAnswer:
        """Once it follows. From the loop of `run` only."""
        assert self._loop is not None
        process = Process(
            lateness=self._lateness,
            links=self._links,
            server=self._server,
            blobs=self._data.blobs.store,
            cluster=self._belonging.cluster,
            timing=self._config.timing,
            clock=self._clock,
            started_ms=self._started_ms,
            gossip=self._gossip.status(),
            load=self._loads.status(),
            checkpoints=self._data.checkpoints.status(),
            separation=self._separation.status(),
            limits=self._pool.means.kept(),
            outputs=self._pool.output.sizes(),
            space=self._space.status(),
        )
        return follower_status(process, self._loop.follower)
