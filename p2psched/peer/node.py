"""The life of a peer that holds the ledger: the place that picks its adapters and wires them to
the loops. See `peer.lives` for what came before.

`Node.run` lives until it is told to stop or something fails that the peer must not survive. What it
guards: the incarnation is new at each start, and nothing is answered before the disk has given back
what it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from p2psched.core.duty import Duty
from p2psched.core.scheduler import Scheduler
from p2psched.model.commands import PeerInfo
from p2psched.model.config import Config
from p2psched.model.errors import P2PSchedError, UsageError, first_of
from p2psched.model.execution import ExecutorEvent
from p2psched.model.feed_messages import Feed, FeedElsewhere, FeedMessage
from p2psched.model.gossip_messages import Carried
from p2psched.model.ids import PeerId
from p2psched.model.messages import Call, PeerMessage
from p2psched.model.raft import Member
from p2psched.model.status_messages import StatusAnswer
from p2psched.model.steal_messages import StealMessage
from p2psched.net.auth import Identity
from p2psched.net.link import Connection, Handlers
from p2psched.net.peers import PeerLinks
from p2psched.net.server import Server
from p2psched.observe.clock import BootClock
from p2psched.observe.lateness import LoopLateness
from p2psched.peer.acts import Acts
from p2psched.peer.addresses import Addresses
from p2psched.peer.announcing import Announcing
from p2psched.peer.answering import Answering
from p2psched.peer.api import Api
from p2psched.peer.around import KnownPeers
from p2psched.peer.backfill import BackFill, Source
from p2psched.peer.cluster import (
    Belonging,
    advertised,
    info_of,
    offers_of,
    pool_of,
)
from p2psched.peer.doors import starting
from p2psched.peer.engines import make_ledger
from p2psched.peer.failures import write_failure
from p2psched.peer.feeding import begin_feeding
from p2psched.peer.gossip import Gossip
from p2psched.peer.holder_status import status_of
from p2psched.peer.joining import Joining
from p2psched.peer.large_data import LargeData
from p2psched.peer.leaving import leave
from p2psched.peer.ledger_files import open_log
from p2psched.peer.loads import Loads
from p2psched.peer.members import away_ms
from p2psched.peer.own_policies import load_policies
from p2psched.peer.raft_loop import RaftLedger
from p2psched.peer.regaining import await_regained
from p2psched.peer.result_writer import ResultWriter
from p2psched.peer.scheduler_loop import SchedulerLoop
from p2psched.peer.separation import SeparationKeeper
from p2psched.peer.space import SpaceKeeper
from p2psched.peer.status import Process
from p2psched.peer.submissions import Submissions
from p2psched.peer.whereabouts import Whereabouts
from p2psched.peer.wishes import Wishes
from p2psched.run.means import Means
from p2psched.store.blobs import BlobFiles
from p2psched.store.folder import DataFolder
from p2psched.store.log import LogStore, Recovered
from p2psched.store.results_gaps import SqliteGapResults

log = logging.getLogger(__name__)

_Scheduling = FeedMessage | StealMessage


class _Stopped(Exception):
    """Ends the task group; nobody else sees it."""


class Node:
    """Make one, `run` it once. `handlers` get what comes meanwhile."""

    def __init__(
        self,
        config: Config,
        folder: DataFolder,
        space: SpaceKeeper,
        belonging: Belonging,
        server: Server,
        *,
        clock: BootClock,
        started_ms: int,
        stop: asyncio.Event,
        on_failed: Callable[[BaseException], None],
        announcing: Announcing,
        gossip: Gossip,
        loads: Loads,
        doors: Handlers,
    ) -> None:
        """`stop` ends it; `on_failed` is told of what the peer must not survive, and sets it.
        `doors`: of connections that this peer makes, they outlive its lives."""
        self._config, self._folder, self._space = config, folder, space
        self._belonging, self._server = belonging, server
        self._clock, self._started_ms, self._stop = clock, started_ms, stop
        self._on_failed, self._announcing = on_failed, announcing
        self._gossip, self._loads, self._doors = gossip, loads, doors
        # Drawn from with each heartbeat: no call of the system for each.
        self._rng = random.Random(random.SystemRandom().getrandbits(128))
        self._has_failed = False
        self._answering: Answering | None = None
        self._lateness = LoopLateness()
        self.handlers = Handlers(
            on_message=self._on_message, on_opened=self._on_opened, on_closed=self._on_closed
        )

    def _fail(self, error: BaseException) -> None:
        self._has_failed = True
        self._on_failed(error)

    async def run(self) -> None:
        """Until it is told to stop, or fails."""
        with contextlib.ExitStack() as self._files:
            await self._run()

    async def _run(self) -> None:
        folder, belonging = self._folder, self._belonging
        self._me = folder.identity.peer
        address = advertised(self._config, self._server.address)
        votes = belonging.founds or bool(self._config.votes)
        self._member = Member(self._me, folder.identity.name, address, votes, self._config.zone)
        began_ms = self._clock.wall_ms() if belonging.founds else None
        log_bytes = self._space.log_bytes(self._config.snapshot_log_bytes)
        store, recovered = await asyncio.to_thread(
            open_log, folder, self._member, founded_ms=began_ms, snapshot_log_bytes=log_bytes
        )
        self._files.callback(store.close)  # a second time if the ledger got it, which is harmless
        incarnation = await asyncio.to_thread(self._space.patiently, folder.next_incarnation)
        files = await asyncio.to_thread(BlobFiles, folder.blobs_path, now_ms=self._clock.now_ms)
        results = await asyncio.to_thread(SqliteGapResults, folder.results_path)
        self._links = PeerLinks(
            identity=Identity(peer=self._me, address=address, cluster=belonging.cluster),
            secret=belonging.secret,
            handlers=self._doors,
            rng=self._rng,
        )
        self._where = Whereabouts(self._member, links=self._links, book=folder.address_book)
        self._addresses = Addresses(self._where, self._links)
        self._results = ResultWriter(results, on_failed=self._fail)
        self._pool = pool_of(self._config, folder, files, on_event=self._on_executed)
        try:
            async with asyncio.TaskGroup() as group:
                self._data = LargeData(
                    files,
                    me=self._me,
                    others=self._addresses,
                    group=group,
                    on_disk_failed=self._on_disk_failed,
                    clock=self._clock,
                    checkpoint_budget=self._config.checkpoint_budget,
                    on_forgotten=self._pool.output.forget,
                )
                group.create_task(self._pool.run())
                await self._pool.wait_ready()
                python = self._pool.python_version
                self._info = info_of(self._config, self._member, incarnation, python)
                self._wire(store, recovered)
                del recovered  # as large as the log was, and not needed any more
                await self._live(group)
        except* _Stopped:
            pass
        except* P2PSchedError as errors:
            self._fail(first_of(errors))
        finally:
            if hasattr(self, "_separation"):
                self._ledger.stop()
                self._separation.close()
            self._data.close()
            self._results.close()
            if self._config.embedded:  # the process lives on, and would vouch for the record
                self._announcing.remove_record()

    def _wire(self, store: LogStore, recovered: Recovered) -> None:
        config, self._lost = self._config, recovered.lost
        scheduler = scheduler_of(config, self._info, self._pool.means)
        self._scheduling = SchedulerLoop(
            scheduler,
            clock=self._clock,
            executor=self._data.checkpoints.around(self._pool),
            results=self._results,
            next_incarnation=lambda: self._space.patiently(self._folder.next_incarnation),
            on_bug=self._fail,
        )
        self._ledger = make_ledger(
            config,
            self._belonging.group,
            me=self._me,
            secret=self._belonging.secret,
            store=store,
            recovered=recovered,
            clock=self._clock,
            rng=self._rng,
            send=self._send,
            listener=self._scheduling,
            on_membership=self._where.on_membership,
            on_disk_failed=self._on_disk_failed,
            on_bug=self._fail,
            space=self._space,
            make_durable=self._results.make_durable,
            late_ms=lambda: self._lateness.p99_ms,
            away_ms=away_ms(config, scheduler.machine),
        )
        self._separation = SeparationKeeper(self._folder, self._scheduling, config, self._clock)
        self._scheduling.attach(self._ledger, send=self._send, shun=lambda: self._gossip.shunned)
        if isinstance(self._ledger, RaftLedger):
            begin_feeding(self._scheduling, self._ledger)
        self._data.blobs.store.space_left_min = self._space.watch.least
        self._data.start(self._scheduling, self._ledger.engine.raft, self._clock)
        self._addresses.state = scheduler.machine
        self._source = Source(self._addresses, self._ledger.coordinator, scheduler.machine)
        self._api = Api(
            me=self._me,
            name=self._info.name,
            cluster=self._belonging.cluster,
            scheduling=self._scheduling,
            ledger=self._ledger,
            results=self._results,
            submissions=Submissions(
                self._scheduling,
                self._results,
                refusal=self._space.refusal,
                are_secure=self._data.are_secure,
            ),
            acts=Acts(self._scheduling, refusal=self._space.refusal),
            others=self._addresses,
            data=self._data,
            source=self._source,
            output=self._pool.output,
            status=self.status,
            stop=self._stop.set,
            where=self._where.answer,
            secret=self._belonging.secret,
            gossip=lambda: self._gossip.members,
            loads=self._loads,
            separation=self._separation,
        )

    async def _live(self, group: asyncio.TaskGroup) -> None:
        await self._ledger.open()
        self._ledger.start()  # notes the members of the log
        self._where.read_book()
        for peer, address in self._belonging.known.items():
            self._where.meet(peer, address)  # newer than both
        await self._separation.begin(group)
        joining = Joining(
            self._member,
            config=self._config,
            belonging=self._belonging,
            clock=self._clock,
            ledger=self._ledger,
            links=self._links,
            where=self._where,
            on_removed=self._fail,
        )
        answer = self._space.gate(self._api.answer)
        api, wishes = self._api, Wishes(self._scheduling)
        self._answering = Answering(group, answer, api.submissions, api.acts, wishes)
        for connection in self._server.connections:
            self._on_opened(connection)  # those that came while we started
        group.create_task(self._pool.keep(self._data.blobs))
        group.create_task(self._links.run())
        group.create_task(self._lateness.run(lambda: self._scheduling.is_quiet))
        group.create_task(self._space.run())
        group.create_task(self._scheduling.run())
        group.create_task(self._api.events.webhooks.run())
        group.create_task(BackFill(self._results, self._source).run())
        joining.start(group)
        scheduler, raft = self._scheduling.scheduler, self._ledger.engine.raft
        around = KnownPeers.of_ledger(self._where, scheduler, lambda: raft.membership)
        group.create_task(self._announcing.announce(self._info, scheduler.machine))
        self._loads.begin(self._scheduling, scheduler, self._space, group)
        group.create_task(self._gossip.run(around, self._links, self._where.meet))
        if self._lost is not None:
            ms = self._config.election_ms_max
            group.create_task(
                await_regained(raft, self._lost, clock=self._clock, election_ms_max=ms)
            )
        await self._stop.wait()
        if not self._has_failed:
            self._gossip.leave()
            await leave(self._scheduling, self._ledger, self._separation, self._data, self._config)
            self._server.say_goodbye()  # nobody shall wait until our workers have ended
            self._announcing.remove_record()
        # Together: what is delivered to a scheduler that has stopped is applied nowhere.
        self._scheduling.stop()
        self._ledger.stop()
        raise _Stopped

    def _send(self, peer: PeerId, message: PeerMessage) -> None:
        if isinstance(message, StealMessage):
            self._addresses.find(peer)
        try:
            self._links.send(peer, message)
        except UsageError as error:  # fits no frame: bounds elsewhere should not let it get here
            log.critical("message-dropped", extra={"peer": peer, "error": str(error)})

    # --- connections ------------------------------------------------------------------------------

    def _on_message(self, connection: Connection, message: PeerMessage | Call) -> None:
        if self._answering is None:  # peers repeat, and callers are told to
            if isinstance(message, Call):
                connection.send_nowait(starting(message))
        elif isinstance(message, Call):
            self._answering.on_call(connection, message)
        elif connection.peer is not None:
            assert not isinstance(message, Carried), "`Doors` takes those"
            if not isinstance(message, _Scheduling):
                self._ledger.on_message(connection.peer, message)
            elif not isinstance(message, Feed | FeedElsewhere):  # of when this peer followed
                self._scheduling.on_followed(connection.peer, message)

    def _on_opened(self, connection: Connection) -> None:
        if self._answering is not None:
            self._where.on_opened(connection)

    def _on_closed(self, connection: Connection, error: P2PSchedError | None) -> None:
        del error  # logged where it arose
        if self._answering is not None:
            self._answering.on_closed(connection)

    def _on_executed(self, event: ExecutorEvent) -> None:
        self._data.checkpoints.on_executed(event)

    # --- failures ---------------------------------------------------------------------------------

    def _on_disk_failed(self, error: Exception) -> None:
        """A peer that can't write must not promise: it stops at once."""
        if isinstance(error, OSError):
            self._fail(write_failure(self._folder, error))
        else:
            self._fail(error)

    def status(self) -> StatusAnswer:
        """Once it is ready. From the loop of `run` only."""
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
        return status_of(process, self._scheduling.scheduler, self._ledger, self._results)


def scheduler_of(config: Config, info: PeerInfo, means: Means) -> Scheduler:
    """The core of a peer that holds the ledger. Raises UsageError for what is no policy."""
    scheduler = Scheduler(
        info,
        window_ms=config.detection_window_ms,
        keep_ms=config.keep_ms,
        keep_bytes=config.keep_bytes,
        offers=offers_of(config, means),
        policies=load_policies(config.policy_file),
        retry_percent=config.retry_percent,
        max_disconnect_ms=config.max_disconnect_ms,
        stall_ms=config.stall_ms,
    )
    scheduler.owner.duty = Duty(info.slots, config.duty)
    return scheduler
