"""Queues as naive as can be: lists that are searched, one thing at a time. The fold must do the
same."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2psched.model.queue_actions import (
    BATCH_BYTES_MAX,
    DELIVERIES_UNTOLD,
    AckItems,
    ConfigureQueue,
    DeleteQueue,
    ExtendItems,
    NackItems,
    PurgeQueue,
    PutItems,
    QueueAction,
    RedriveItems,
    StopTaking,
    TakeItems,
)


@dataclass
class Thing:
    queue: str
    id: int
    value: bytes
    priority: int
    key: str
    deliveries: int = 0
    holder: str | None = None
    receipt: int = 0
    until: int | None = None  # hidden or held; None: held as long as its holder lives


@dataclass
class Taker:
    queue: str
    claim: str
    lease: str
    count: int
    visibility: int
    until: int


@dataclass
class Naive:
    now: int = 0
    things: list[Thing] = field(default_factory=list)
    takers: list[Taker] = field(default_factory=list)  # waiting
    claims: dict[str, Taker] = field(default_factory=dict)  # all that wait or hold
    counts: dict[str, int] = field(default_factory=dict)  # ids that were given
    most: dict[str, int] = field(default_factory=dict)
    log: list[tuple[str, int]] = field(default_factory=list)  # (queue, id) of each delivery
    receipts: int = 0

    def do(self, action: QueueAction, command: int) -> object:
        """What the fold should answer, without the class around it."""
        answer: object
        self.receipts = max(self.receipts, command - 1)
        match action:
            case PutItems():
                self._make(action.queue)
                first = self.counts[action.queue] + 1
                for new in action.items:
                    until = self.now + new.delay_ms if new.delay_ms else 0
                    self._add(action.queue, new.value, new.priority, new.key, until)
                answer = first
            case TakeItems():
                answer = self._take(action)
            case AckItems() | NackItems() | ExtendItems():
                answer = self._settle(action)
            case StopTaking():
                answer = self._stop(action.claim)
            case ConfigureQueue() | PurgeQueue() | DeleteQueue() | RedriveItems():
                answer = self._handle(action)
        self._match()
        if isinstance(action, TakeItems) and answer == "waits":
            got = [thing.id for thing in self._of(action.claim)]
            answer = (sorted(got), not got)
        return answer

    def pass_time(self, span: int, command: int) -> None:
        self.receipts = max(self.receipts, command - 1)
        self.now += span
        while True:
            due = [(t.until, 0, t.queue, t.id) for t in self.things if t.until]
            due += [(t.until, 1, t.claim, 0) for t in self.takers]
            due = [entry for entry in due if entry[0] <= self.now]
            if not due:
                break
            _, is_taker, name, number = min(due)
            if is_taker:
                self.takers = [t for t in self.takers if t.claim != name]
            else:
                thing = next(t for t in self.things if (t.queue, t.id) == (name, number))
                if thing.holder is None:
                    thing.until = 0
                else:
                    self._back(thing)
            self._match()

    def end_lease(self, lease: str, command: int) -> None:
        self.receipts = max(self.receipts, command - 1)
        self.takers = [t for t in self.takers if t.lease != lease]
        for name in [name for name, t in self.claims.items() if t.lease == lease]:
            for thing in self._of(name):
                self._back(thing)
        self._match()

    # --- parts ---

    def _handle(self, action: ConfigureQueue | PurgeQueue | DeleteQueue | RedriveItems) -> object:
        match action:
            case ConfigureQueue():
                self._make(action.queue)
                self.most[action.queue] = action.max_deliveries
                return 0
            case PurgeQueue():
                return self._purge(action.queue)
            case DeleteQueue():
                return self._delete(action.queue)
            case RedriveItems():
                return self._redrive(action.queue, action.count)

    def _stop(self, claim: str) -> int:
        held = self._of(claim)
        self.takers = [t for t in self.takers if t.claim != claim]
        for thing in held:
            thing.deliveries -= 1
            self._free(thing, 0)
        return len(held)

    def _make(self, queue: str) -> None:
        self.counts.setdefault(queue, 0)
        self.most.setdefault(queue, 0 if queue.endswith(".dead") else DELIVERIES_UNTOLD)

    def _add(self, queue: str, value: bytes, priority: int, key: str, until: int) -> None:
        self._make(queue)
        self.counts[queue] += 1
        self.things.append(Thing(queue, self.counts[queue], value, priority, key, until=until or 0))

    def _of(self, claim: str) -> list[Thing]:
        held = [thing for thing in self.things if thing.holder == claim]
        return sorted(held, key=lambda thing: thing.receipt)

    def _take(self, action: TakeItems) -> object:
        held = self._of(action.claim)
        waits = any(t.claim == action.claim for t in self.takers)
        if held or waits:
            if self.claims[action.claim].queue != action.queue:
                return "usage"
            return sorted(thing.id for thing in held), waits
        if not action.wait_ms and not self._ready(action.queue):
            return [], False
        self._make(action.queue)
        until = self.now + max(1, action.wait_ms)
        taker = Taker(
            *(action.queue, action.claim, action.lease),
            *(action.count, action.visibility_ms, until),
        )
        self.takers.append(taker)
        self.claims.pop(action.claim, None)
        self.claims[action.claim] = taker
        return "waits"

    def _ready(self, queue: str) -> list[Thing]:
        ready = []
        for thing in self.things:
            if thing.queue != queue or thing.holder is not None or thing.until:
                continue
            earlier = [
                other
                for other in self.things
                if other.queue == queue and other.key == thing.key and other.id < thing.id
            ]
            if not thing.key or not earlier:
                ready.append(thing)
        return sorted(ready, key=lambda thing: (-thing.priority, thing.id))

    def _match(self) -> None:
        for taker in list(self.takers):
            size = count = 0
            while count < taker.count and (ready := self._ready(taker.queue)):
                best = ready[0]
                size += len(best.value) + len(best.key)
                if count and size > BATCH_BYTES_MAX:
                    break
                self.receipts += 1
                best.holder, best.receipt = taker.claim, self.receipts
                best.deliveries += 1
                best.until = self.now + taker.visibility if taker.visibility else None
                self.log.append((best.queue, best.id))
                count += 1
            if count:
                self.takers.remove(taker)

    def _free(self, thing: Thing, until: int) -> None:
        thing.holder, thing.receipt, thing.until = None, 0, until

    def _back(self, thing: Thing, until: int = 0) -> None:
        most = self.most[thing.queue]
        if most and thing.deliveries >= most:
            self.things.remove(thing)
            self._add(thing.queue + ".dead", thing.value, thing.priority, thing.key, 0)
        else:
            self._free(thing, until)

    def _settle(self, action: AckItems | NackItems | ExtendItems) -> object:
        stale = []
        for number, receipt in action.receipts:
            held = [
                thing
                for thing in self.things
                if (thing.queue, thing.id, thing.receipt) == (action.queue, number, receipt)
                and thing.holder is not None
            ]
            if not held:
                stale.append(number)
            elif isinstance(action, AckItems):
                self.things.remove(held[0])
            elif isinstance(action, NackItems):
                self._back(held[0], self.now + action.delay_ms if action.delay_ms else 0)
            else:
                held[0].until = self.now + action.visibility_ms
        return stale

    def _purge(self, queue: str) -> object:
        if queue not in self.counts:
            return "not-found"
        before = len(self.things)
        self.things = [t for t in self.things if t.queue != queue or t.holder is not None]
        return before - len(self.things)

    def _delete(self, queue: str) -> object:
        if queue not in self.counts:
            return "not-found"
        if any(t.queue == queue for t in self.things) or any(t.queue == queue for t in self.takers):
            return "refused"
        del self.counts[queue], self.most[queue]
        return 0

    def _redrive(self, queue: str, count: int) -> object:
        letters = [t for t in self.things if t.queue == queue + ".dead"]
        held_keys = {t.key for t in letters if t.holder is not None and t.key}
        free = [t for t in letters if t.holder is None and t.key not in held_keys]
        moved = sorted(free, key=lambda t: t.id)[:count]
        for thing in moved:
            self._make(queue)
            self.things.remove(thing)
            self._add(queue, thing.value, thing.priority, thing.key, 0)
        return len(moved)
