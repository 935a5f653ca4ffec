"""What this peer tells of its load, and what it hears of others: sensors, the owner and gossip come
together here. It decides nothing, and nothing waits for it: without gossip a peer sees itself.

Looked at with the clock of the peer's loop, which then has the newest view. One for the life of a
process; it is told of each life of the peer, as a follower and as a member.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from p2psched.core.load_report import LoadReporter, share_bytes_s
from p2psched.core.load_view import LoadView
from p2psched.core.owner import Owner
from p2psched.core.state import LedgerState
from p2psched.core.swim.events import Changed, NewsOf
from p2psched.core.swim.members import Member
from p2psched.core.swim.settings import Settings
from p2psched.model.commands import Command, PeerInfo
from p2psched.model.ids import PeerId
from p2psched.model.load import Seen
from p2psched.model.load_messages import LoadRow, LoadStatus, LoadTable
from p2psched.model.raft import Room
from p2psched.net.load_codec import LoadCodec
from p2psched.observe.beat import until_beat
from p2psched.observe.machine import Measured, Sensors
from p2psched.observe.rate import Rate
from p2psched.peer.battery import Battery
from p2psched.ports.clock import Clock
from p2psched.store.folder import DataFolder

WHOLE_TOPIC: Final = 0
DELTA_TOPIC: Final = 1
LOOK_MS: Final = 1_000  # between two whole looks at the owner; what is urgent is seen at once
SENSE_S: Final = 1.0
_SENSED: Final = (
    *("cores", "cpu", "foreign_cpu", "memory", "memory_free", "disk_free", "gpus", "gpus_busy"),
    *("received", "sent", "battery", "mains", "temperature", "npus", "machine", "load"),
)


class Gossiping(Protocol):
    @property
    def settings(self) -> Settings: ...

    @property
    def runs(self) -> bool: ...

    @property
    def members(self) -> Mapping[PeerId, Member]: ...

    def publish(self, data: bytes, topic: int = 0) -> None: ...

    def hear_news(self, on_news: Callable[[NewsOf], None]) -> None: ...

    def hear_changes(self, on_changed: Callable[[Changed], None]) -> None: ...


class Own(Protocol):
    """Of a scheduler, or of a follower."""

    @property
    def info(self) -> PeerInfo: ...

    @property
    def owner(self) -> Owner: ...

    @property
    def machine(self) -> LedgerState: ...


class Space(Protocol):
    @property
    def room(self) -> Room: ...


class Looking(Protocol):
    """The loop of a peer's core."""

    look: Callable[[], Mapping[PeerId, Seen]]

    def note(self, command: Command) -> None: ...


class Loads:
    def __init__(
        self,
        me: PeerId,
        gossip: Gossiping,
        sensors: Sensors,
        clock: Clock,
        *,
        battery_min: int = 0,
    ) -> None:
        """`battery_min`: per cent below which the peer drains itself; 0: never."""
        self._me = me
        self._battery_min = battery_min
        self._gossip = gossip
        self._sensors = sensors
        self._clock = clock
        self._codec = LoadCodec()
        self._view = LoadView(me)
        self._reporter = LoadReporter(self._codec.encode)
        self._measured = Measured()
        self._own: Own | None = None
        self._space: Space | None = None
        self._marks = (False, False, 0)  # what a report that is urgent would be of
        self._looked_ms = -LOOK_MS
        self._rate = Rate()
        self._received = 0
        gossip.hear_news(self._on_news)
        gossip.hear_changes(self._on_changed)

    @classmethod
    def of(cls, folder: DataFolder, gossip: Gossiping, clock: Clock, battery_min: int) -> Loads:
        me, sensors = folder.identity.peer, Sensors(folder.path)
        return cls(me, gossip, sensors, clock, battery_min=battery_min)

    def begin(self, loop: Looking, own: Own, space: Space, group: asyncio.TaskGroup) -> None:
        """A life begins: whoever leads it looks here, and sensors are read as long as `group`
        lives."""
        self._own, self._space = own, space
        self._looked_ms = self._clock.now_ms() - LOOK_MS
        loop.look = self.look
        group.create_task(self._sense())
        battery = Battery(
            self._me,
            own.machine,
            least=self._battery_min,
            read=lambda: (self._measured.battery, self._measured.mains),
            propose=loop.note,
        )
        group.create_task(battery.run())

    async def _sense(self) -> None:
        """In a thread, for some devices are slow to answer."""
        while True:
            now_ms = self._clock.now_ms()
            self._measured = await asyncio.to_thread(self._sensors.read, now_ms)
            await asyncio.sleep(until_beat(SENSE_S))

    # --- for the peer's loop ----------------------------------------------------------------------

    def look(self) -> Mapping[PeerId, Seen]:
        """Ten times a second: say what there is to say. All peers as they are known now."""
        own, now_ms = self._own, self._clock.now_ms()
        if own is not None:
            self._look_at(own, now_ms)
        return self._view.seen()

    def _look_at(self, own: Own, now_ms: int) -> None:
        takes, owner = self._takes(own), own.owner
        marks = (takes, owner.has_queue, owner.running_count)
        if marks == self._marks and now_ms - self._looked_ms < LOOK_MS:
            return
        self._looked_ms, self._marks = now_ms, marks
        found = msgspec.structs.replace(
            owner.load(),
            takes=takes,
            **{name: getattr(self._measured, name) for name in _SENSED},
        )
        self._view.on_self(now_ms, own.info.incarnation, found)
        if not self._gossip.runs:
            return  # not yet, or between two lives: what is said would be lost
        said = self._reporter.look(now_ms, found, bytes_s=self.share_bytes_s)
        if said is not None:
            self._gossip.publish(said.data, WHOLE_TOPIC if said.is_whole else DELTA_TOPIC)
        self._rate.note(now_ms, self._reporter.bytes_said)

    def _takes(self, own: Own) -> bool:
        row = own.machine.peers.get(self._me)
        is_full = self._space is not None and self._space.room is not Room.ENOUGH
        return (row is None or row.takes_tasks) and not is_full

    @property
    def share_bytes_s(self) -> float:
        """What this peer may say, for all together to stay within what gossip may send."""
        settings = self._gossip.settings
        peers = 1 + sum(member.is_present for member in self._gossip.members.values())
        return share_bytes_s(settings.news_bytes_per_s, peers, settings.news_transmits(peers))

    # --- from gossip ------------------------------------------------------------------------------

    def _on_news(self, news: NewsOf) -> None:
        if news.topic not in (WHOLE_TOPIC, DELTA_TOPIC):
            return
        self._received += len(news.data)
        try:
            report = self._codec.decode(news.data)
        except ValueError:
            self._view.on_malformed()
            return
        self._view.on_news(self._clock.now_ms(), news.peer, news.life, report)

    def _on_changed(self, changed: Changed) -> None:
        if changed.liveness is None:
            self._view.forget(changed.peer)
            return
        self._view.on_member(
            self._clock.now_ms(),
            changed.peer,
            incarnation=changed.life,
            liveness=changed.liveness,
        )

    # --- for people -------------------------------------------------------------------------------

    def seen(self) -> Mapping[PeerId, Seen]:
        return self._view.seen()

    def table(self) -> LoadTable:
        now_ms = self._clock.now_ms()
        rows = self._own.machine.peers if self._own is not None else {}
        return LoadTable(
            self._me,
            tuple(
                LoadRow(
                    one.peer,
                    rows[one.peer].info.name if one.peer in rows else "",
                    one.liveness,
                    max(0, now_ms - one.heard_ms),
                    one.load,
                )
                for one in self._view.seen().values()
            ),
            self.status(),
        )

    def status(self) -> LoadStatus:
        now_ms, reporter, dropped = self._clock.now_ms(), self._reporter, self._view.dropped
        return LoadStatus(
            whole=reporter.whole_count,
            deltas=reporter.delta_count,
            bytes_said=reporter.bytes_said,
            bytes_saved=reporter.bytes_saved,
            bytes_per_s=round(self._rate.per_s(now_ms, reporter.bytes_said), 1),
            budget_bytes_s=round(self.share_bytes_s, 1),
            held_back=reporter.held_back,
            bytes_received=self._received,
            dropped=tuple(sorted((why, number) for why, number in dropped.items() if number)),
            reading_us=round(self._sensors.cost_us),
            readings=self._sensors.count,
        )
