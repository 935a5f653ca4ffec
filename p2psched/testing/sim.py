"""A whole cluster in one thread, under virtual time, from one seed.

For: our own tests and those of users who want to see what their jobs go through. Peers run the
same cores on the same log format as real ones; network, disks, clocks and tasks are simulated and
fail as `Faults` says. Referees look at every event.

    cluster = SimCluster(seed=7, peers=3)
    job = cluster.submit(sim_job(TaskSet.of(0, 10), mean_us=20_000))
    cluster.run_until(lambda: cluster.state_of(job) == "succeeded", within_ms=10_000)

Invariants: one seed and the same calls give the same events in the same order in every process;
time only moves when an event is taken. It refuses to go on after a failure: `SimulationError`
tells the seed and the last events.
"""

from __future__ import annotations

import heapq
import random
import struct
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from p2psched.core.feed import SaidMessage
from p2psched.core.raft.timing import Timing
from p2psched.core.scheduler import Store
from p2psched.model.commands import Cancel, Command, Outcome, SubmitJob
from p2psched.model.config import MAX_DISCONNECT_MS
from p2psched.model.errors import Damaged, Refused
from p2psched.model.execution import Batch
from p2psched.model.ids import JobId, PeerId, new_id
from p2psched.model.job import JobSpec
from p2psched.model.precedence import MakeWay
from p2psched.model.raft import Member, Membership, RaftMessage, Snapshot
from p2psched.model.steal_messages import Steal
from p2psched.testing.faults import Faults
from p2psched.testing.referees import Referees
from p2psched.testing.sim_callers import Callers
from p2psched.testing.sim_checkpoints import Disks
from p2psched.testing.sim_follower import SimFollower
from p2psched.testing.sim_hurt import Hurt
from p2psched.testing.sim_items import Arrived, Item, encode_wire
from p2psched.testing.sim_jobs import KilledByTaskError, hangs
from p2psched.testing.sim_leading import says_hand_over
from p2psched.testing.sim_lives import Act, Lives
from p2psched.testing.sim_net import SimNetwork
from p2psched.testing.sim_peer import SimPeer
from p2psched.testing.sim_world import Damage, PowerLostError, Process, Snapshots, founding_of
from p2psched.testing.stall_referee import StallReferee

LAST_EVENTS: Final = 30  # shown when something fails
EVENT_CHARS_MAX: Final = 300
SLOW_SYNC_US: Final = 2_000
CLUSTER: Final = -1  # events of the cluster itself, in place of a peer's number
ANY_PROCESS: Final = -1  # messages reach whatever process is there
_TRACE: Final = struct.Struct("<qhI")

Event = tuple[int, int, int, int, Item | Act]  # at, order, peer, process, what


class SimulationError(AssertionError):
    """A promise was broken, or a core failed. The message says how to see it again."""

    def __init__(self, why: str, text: str, cluster: SimCluster) -> None:
        super().__init__(text)
        self.why = why
        self.faults = cluster.faults_drawn
        self.peers = cluster.size
        self.events = cluster.events
        self.virtual_us = cluster.now_us


class SimCluster(Lives):
    """Peers 0..peers-1 and the world around them."""

    max_disconnect_ms = MAX_DISCONNECT_MS  # that peers go on without a majority

    def __init__(
        self,
        *,
        seed: int,
        peers: int,
        faults: Faults | None = None,
        timing: Timing | None = None,
        slots: Sequence[int] = (2,),
        votes: Sequence[bool] = (True,),
        formed: bool = True,
        segment_bytes: int = 1 << 16,
        snapshots: Snapshots | None = None,
        zones: int = 0,
        away_ms: int | None = None,
        replay: str = "",
        last: int = LAST_EVENTS,
    ) -> None:
        """`formed`: all peers are voters from the start; else peer 0 founds the cluster and the
        others join it. `slots`, `votes` (wants to be a voter) and `zones` (0: each peer is
        one) are dealt out in turn. `away_ms`: after which a voter is replaced; None: nobody looks
        after the group. `replay` is shown when the run fails, and the `last` events."""
        super().__init__()
        self.rng = random.Random(seed)
        self.seed = seed
        self.size = peers
        self.away_ms = away_ms
        self.faults = self.faults_drawn = faults or Faults()
        self.snapshots = snapshots or Snapshots()
        self.now_us = 0
        self.events = 0
        self.trace = 0  # checksum over all events: equal traces are equal runs
        self.happened: Counter[str] = Counter()
        self.referees = Referees()
        self.disks, self.cutoff = self.referees.disks, self.referees.cutoff
        self.stalls, self.saved = StallReferee(self.happened), Disks(seed)
        self.network = SimNetwork(
            peers, random.Random(self.rng.getrandbits(64)), self.happened, self._carry
        )
        self.network.stale = self.faults.stale
        self.beyond: Callable[[PeerId, PeerId, bytes], None] | None = None  # who is there
        self.replay = replay
        self._heap: list[Event] = []
        self._order = 0
        self._last: deque[Event] = deque(maxlen=last)
        self.callers = Callers(self)
        self._hurt = Hurt(random.Random(f"hurt {seed}"), all_vote=formed and all(votes))
        members = [
            Member(
                *(PeerId(new_id(self.rng)), f"peer-{i}", f"10.0.0.{i}:1", votes[i % len(votes)]),
                zone=f"zone-{i % zones}" if zones else "",
            )
            for i in range(peers)
        ]
        self.peers = [
            SimPeer(
                self,
                number=number,
                member=member,
                slots=slots[number % len(slots)],
                timing=timing or Timing(),
                segment_bytes=segment_bytes,
                founding=founding_of(members, number, formed=formed),
            )
            for number, member in enumerate(members)
        ]
        self._by_id |= {peer.id: peer for peer in self.peers}
        self.guests: dict[PeerId, SimFollower] = {}  # followers, numbered on from the peers
        self.referees.keeping.disks = {peer.id: peer.blobs for peer in self.peers}
        for peer in self.peers:
            self.after(self.rng.randrange(1, 50), self._starter(peer))

    # --- time ---

    def after(self, delay_ms: float, act: Act) -> None:
        """Call `act` in virtual time."""
        self._push(int(delay_ms * 1000), CLUSTER, 0, act)

    def run_for(self, duration_ms: int) -> None:
        until_us = self.now_us + duration_ms * 1000
        while self._heap and self._heap[0][0] <= until_us:
            self.step()
        self.now_us = until_us

    def run_until(
        self,
        condition: Callable[[], bool],
        *,
        within_ms: int,
        every: int = 1,
        promise: str = "L5",
    ) -> None:
        """Run until `condition` holds, looking after each `every` events. Raises SimulationError
        that `promise` is broken if it doesn't within `within_ms` of virtual time."""
        until_us = self.now_us + within_ms * 1000
        while not condition():
            for _ in range(every):
                if not self._heap or self._heap[0][0] > until_us:
                    raise self._failure(f"{promise}: not within {within_ms} ms")
                self.step()

    def step(self) -> None:
        """Take the next event."""
        event = heapq.heappop(self._heap)
        at_us, _, number, process, what = event
        self.now_us = self.referees.now_us = at_us
        try:
            if number == CLUSTER:
                assert callable(what)
                what()
            else:
                peer = self.peers[number]
                assert not callable(what)
                if not peer.alive or process not in (ANY_PROCESS, peer.process):
                    return
                if peer.paused:
                    self._while_asleep(peer, what)
                    return
                self._last.append(event)
                self._perform(peer, what)
        except SimulationError:
            raise
        except Exception as exc:
            raise self._failure(f"{type(exc).__name__}: {exc}") from exc

    @contextmanager
    def told(self) -> Iterator[None]:
        """What is broken in here, between two steps, is a failure of this seed, too."""
        try:
            yield
        except SimulationError:
            raise
        except Exception as exc:
            raise self._failure(f"{type(exc).__name__}: {exc}") from exc

    def _perform(self, peer: SimPeer, item: Item) -> None:
        self.events += 1
        mark = zlib.crc32(item.data) if isinstance(item, Arrived) else len(type(item).__name__)
        self.trace = zlib.crc32(_TRACE.pack(self.now_us, peer.number, mark), self.trace)
        try:
            peer.take(item)
        except (PowerLostError, KilledByTaskError, OSError, Damaged, Refused) as error:
            self._end_by(peer, error)
        else:
            self.referees.look_at(peer)

    def _push(self, delay_us: int, number: int, process: int, what: Item | Act) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now_us + delay_us, self._order, number, process, what))

    def _failure(self, why: str) -> SimulationError:
        lines = [
            why,
            f"seed {self.seed}, {self.size} peers, event {self.events}, trace {self.trace:08x}",
            f"at {self.now_us / 1e6:.6f} s of virtual time",
            str(self.faults_drawn) + ("" if self.faults is self.faults_drawn else ", healed since"),
            f"the last {len(self._last)} events:",
            *self.last_events(),
        ]
        if self.replay:
            lines.append(f"again: {self.replay}")
        return SimulationError(why, "\n".join(lines), self)

    def last_events(self) -> list[str]:
        """One line for each."""
        return [
            f"  {at / 1e6:.6f} peer {number}: {what!r}"[:EVENT_CHARS_MAX]
            for at, _, number, _, what in self._last
        ]

    def heal(self) -> None:
        """From now on nothing goes wrong any more, and every peer is up."""
        self.faults = Faults()
        self.network.stale = 0.0
        self.network.heal()
        self.heal_peers()

    def check_end(self) -> None:
        """Demand what must hold when all is done: everybody knows the same, nothing is lost."""
        with self.told():
            self.referees.check_end(self.peers)
            rng = random.Random(f"past {self.seed}")
            self.happened["states rebuilt"] = self.referees.events.check_end(self.peers, rng)

    # --- what callers want ---

    def submit(self, spec: JobSpec) -> JobId:
        """Submit a job; asks peers until one has accepted it."""
        job = JobId(new_id(self.rng))
        self.ask(SubmitJob(job, spec))
        return job

    def cancel(self, job: JobId, done: Callable[[Outcome], None] = lambda _: None) -> None:
        self.ask(Cancel(job), done)

    def state_of(self, job: JobId) -> str:
        """The newest committed state of a job; "unknown" before it is accepted."""
        known = self.referees.shadow.jobs.get(job)
        return known.state if known else "unknown"

    def ask(self, command: Command, done: Callable[[Outcome], None] = lambda _: None) -> None:
        """Ask random peers, one after another, until `command` is answered."""
        self.callers.ask(command, done)

    def read(self, number: int, done: Callable[[int | None], None] = lambda _: None) -> None:
        """A linearizable read through a peer; when `done` is called with an index, look there."""
        self.callers.read(number, len(self.referees.committed), done)

    def bring(self, delay_us: int, number: int, process: int, item: Item) -> None:
        """Bring what a caller wants to a process, if it is still there then."""
        self._push(delay_us, number, process, item)

    # --- what peers want (`sim_world.World`) ---

    def later(self, delay_us: int, peer: SimPeer, item: Item) -> None:
        self._push(delay_us, peer.number, peer.process, item)

    def send(self, sender: Process, to: PeerId, data: bytes) -> None:
        taker = self._by_id.get(to) or self.guests.get(to)
        if taker is not None:  # else its disk is gone, and nobody answers to that id
            self.network.send(sender.number, taker.number, Arrived(sender.id, data, to))
        if self.beyond is not None:
            self.beyond(sender.id, to, data)

    def say(self, sender: Process, to: PeerId, message: SaidMessage) -> None:
        if isinstance(message, Steal):
            self.happened["steals asked"] += 1
            self.referees.steals.on_asked(self.now_us, sender.id, sender.process, to)
        elif isinstance(message, MakeWay):
            assert isinstance(sender, SimPeer), "a follower coordinates nothing"
            self.referees.preemption.on_said(sender.scheduler.machine, to, message)
        self.send(sender, to, encode_wire(message))

    def _carry(self, sender: int, to: int, arrived: Arrived) -> None:
        guest = self.guests.get(arrived.to)
        for delay_us in self.network.delays_us(sender, to, self.now_us, self.faults):
            if guest is not None:
                self._push(delay_us, CLUSTER, 0, partial(guest.arrive, arrived))
            else:
                self._push(delay_us, to, ANY_PROCESS, arrived)

    def on_said(self, peer: SimPeer, to: PeerId, message: RaftMessage) -> None:
        if says_hand_over(message):
            self.happened["vote asked by hand-over"] += 1
        self.referees.on_said(peer, to, message)

    def any_other(self, peer: SimPeer) -> PeerId:
        return self.rng.choice([other.id for other in self.peers if other is not peer])

    def carry_blob(self, giver: PeerId, taker: PeerId, digest: bytes) -> bool:
        one, other = self._somebody(giver), self._somebody(taker)
        if one is None or other is None:
            return False
        carried = self.reaches(giver, taker) and one.blobs.get(digest, False)
        if carried:
            self.happened["blobs copied"] += 1
            other.blobs.put(digest)
        return carried

    def _somebody(self, peer: PeerId) -> SimPeer | SimFollower | None:
        return self._by_id.get(peer) or self.guests.get(peer)

    def reaches(self, one: PeerId, other: PeerId) -> bool:
        here, there = self._somebody(one), self._somebody(other)
        if here is None or there is None:
            return False
        are_up = all(peer.alive and not peer.paused for peer in (here, there))
        return self.network.answers(here.number, there.number, self.faults) and are_up

    def on_stored(self, peer: SimPeer, stored: Store) -> None:
        self.referees.look_at(peer)
        self.referees.on_stored(peer, stored.events, stored.applied_index)
        self.referees.events.on_happened(peer, stored.happened)
        self.referees.acts.on_happened(stored.happened)
        self.referees.locks.on_events(stored.happened.events)
        self.stalls.on_events(stored.events)
        self.referees.queues.on_happened(peer, stored.happened)

    def on_saving(self, peer: SimPeer, snapshot: Snapshot) -> None:
        self.happened["snapshot made"] += 1
        self.referees.snapshots.on_saving(peer, snapshot)

    def on_restored(self, peer: SimPeer, snapshot: Snapshot, damaged: Damage) -> None:
        self.happened["snapshot taken" if damaged is None else "restored"] += 1
        self.referees.snapshots.on_restored(peer, snapshot, damaged or ())

    def on_blobs_gone(self, peer: SimPeer, digests: list[bytes]) -> None:
        self.referees.keeping.on_gone(peer.id, digests)

    def on_answered(self, peer: SimPeer, tag: int, outcome: Outcome) -> None:
        self.referees.look_at(peer)
        call = self.callers.on_answered(tag)
        if call is not None:
            command, done = call
            if command is not None:
                self.referees.on_answered(command, outcome)
            done(outcome)

    def on_read(self, tag: int, index: int | None) -> None:
        floor, done = self.callers.on_read(tag)
        if index is not None:
            self.happened["reads"] += 1
            self.referees.on_read(index, floor)
        done(index)

    def is_there(self, peer: PeerId) -> bool:
        """It has a disk still, and may be up."""
        return peer in self._by_id

    def newest_group(self) -> Membership:
        """Who holds the ledger, as anybody would be told who asks."""
        newest = self.referees.members.newest
        return newest if newest.voters else Membership(tuple(peer.member for peer in self.peers))

    def on_started(self, peer: Process, batch: Batch, index: int) -> None:
        self.happened["tasks hung"] += hangs(batch.spec.name, batch.job, index, batch.grant)
        self.referees.on_started(peer, batch, index)

    def on_synced(self, delay_us: int) -> None:
        self.happened["slow sync"] += delay_us >= SLOW_SYNC_US
