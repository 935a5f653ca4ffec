"""What must hold of queues (P7): ids without gaps, an item with one owner at a time, receipts that
only rise, the order of keys, dead letters that stay, nobody who waits for what there is, and
nothing that is over before its time.

It follows what the first peer that applied an entry says of it, and keeps books of its own, entry
by entry; then every peer that is as far must have what the books have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2psched.core.event_log import Happened
from p2psched.core.state import LedgerState
from p2psched.model.actions import Act, Acted, Action, ActionAnswer, Elapsed
from p2psched.model.commands import Event
from p2psched.model.lease_actions import LeaseEnded
from p2psched.model.queue_actions import (
    DEAD,
    DELIVERIES_UNTOLD,
    AckItems,
    ConfigureQueue,
    DeleteQueue,
    ExtendItems,
    ItemsPut,
    ItemsSettled,
    ItemsTaken,
    NackItems,
    PurgeQueue,
    PutItems,
    QueueChanged,
    Receipt,
    RedriveItems,
    StopTaking,
    TakeItems,
)
from p2psched.model.queue_events import ItemDied, ItemsGiven, WaitEnded
from p2psched.testing.promises import BrokenPromiseError, demand
from p2psched.testing.sim_peer import SimPeer

Settled = AckItems | NackItems | ExtendItems


@dataclass(slots=True)
class BookItem:
    key: str
    deliveries: int = 0
    receipt: int = 0  # of the newest delivery
    claim: str = ""  # who has it
    until_ms: int | None = 0  # it is hidden, or held; None: as long as its lease
    may_go: bool = False  # what is being applied takes it from its claim
    is_spared: bool = False  # and not for its deliveries


@dataclass(slots=True)
class Book:
    """Of one queue."""

    count: int = 0  # ids that were given
    most: int = DELIVERIES_UNTOLD
    items: dict[int, BookItem] = field(default_factory=dict)
    takers: list[str] = field(default_factory=list)


class QueueReferee:
    def __init__(self) -> None:
        self.books: dict[str, Book] = {}
        self.takes: dict[str, TakeItems] = {}  # claims that wait, or have had something
        self.acked: dict[tuple[str, int], None] = {}
        self.died = 0
        self._index = self._stamp_ms = 0
        self._waits_until: dict[str, int] = {}  # claims that wait
        self._may_end: set[str] = set()  # waits that what is being applied may end
        self._acts: set[tuple[int, int]] = set()  # that have acted

    # --- what is looked at by callers of a simulation ---

    def held(self, claim: str) -> list[Receipt]:
        take = self.takes.get(claim)
        book = self.books.get(take.queue) if take is not None else None
        items = book.items.items() if book is not None else ()
        return [(number, item.receipt) for number, item in items if item.claim == claim]

    def waits(self, claim: str) -> bool:
        return any(claim in book.takers for book in self.books.values())

    @property
    def left(self) -> int:
        """Items that are not done, but for dead letters."""
        return sum(len(b.items) for name, b in self.books.items() if not name.endswith(DEAD))

    @property
    def fullest(self) -> str:
        """A queue of which the most items are not done."""
        sizes = {n: len(b.items) for n, b in self.books.items() if not n.endswith(DEAD)}
        return max(sizes, key=lambda name: sizes[name], default="")

    # --- what peers say ---

    def on_happened(self, peer: SimPeer, happened: Happened) -> None:
        batch = happened.batch
        if batch.index == self._index + 1:
            self._index = batch.index
            self._stamp_ms = max(self._stamp_ms, batch.stamp_ms)
            self._follow(happened)
        if batch.index != self._index or batch.index != peer.scheduler.machine.applied_index:
            return
        if any(isinstance(one.command, (Act, Elapsed)) for one in batch.envelopes):
            self._compare(peer)

    def check_end(self, peers: Sequence[SimPeer]) -> None:
        for peer in peers:
            self._compare(peer)

    def _follow(self, happened: Happened) -> None:
        index = happened.before
        for envelope, outcome in zip(happened.batch.envelopes, happened.outcomes, strict=True):
            index += 1
            command = envelope.command
            if not isinstance(command, (Act, Elapsed)):
                continue
            events = [one.event for one in happened.events if one.index == index]
            if isinstance(command, Elapsed):
                self._elapse(min(command.upto_ms, self._stamp_ms))
                self._hear(events)
            elif isinstance(command, Act) and isinstance(outcome, Acted):
                if (command.caller, command.number) in self._acts:
                    demand(not events, "P7", f"act {command.number} acted again")
                    continue
                if command.caller:
                    self._acts.add((command.caller, command.number))
                self._act(command.action, outcome.answer)
                self._hear(events)
                if isinstance(command.action, TakeItems):
                    self._check_taken(command.action, outcome.answer)

    # --- what was done ---

    def _act(self, action: Action, answer: ActionAnswer) -> None:
        match action:
            case PutItems() if isinstance(answer, ItemsPut):
                self._put(action, answer.first)
            case TakeItems() if action.claim not in self.takes and isinstance(answer, ItemsTaken):
                if answer.ids or answer.waits:
                    self.takes[action.claim] = action
                    self._waits_until[action.claim] = self._stamp_ms + max(1, action.wait_ms)
                    self._book(action.queue).takers.append(action.claim)
            case AckItems() | NackItems() | ExtendItems() if isinstance(answer, ItemsSettled):
                self._settle(action, answer.stale)
            case StopTaking(claim=claim):
                self._may_end.add(claim)
                for item in self._of_claim(claim):
                    item.deliveries -= 1
                    item.may_go = item.is_spared = True
                    item.until_ms = 0
            case _:
                self._handle(action, answer)

    def _handle(self, action: Action, answer: ActionAnswer) -> None:
        if not isinstance(answer, QueueChanged):
            return
        match action:
            case ConfigureQueue(queue=name, max_deliveries=most):
                self._book(name).most = most
            case PurgeQueue(queue=name):
                items = self.books[name].items
                gone = [number for number, item in items.items() if not item.claim]
                for number in gone:
                    del items[number]
                demand(answer.count == len(gone), "P7", f"{answer.count} purged, of {len(gone)}")
            case DeleteQueue(queue=name):
                book = self.books.pop(name)
                demand(not book.items and not book.takers, "P7", f"{name} is deleted, not empty")
            case RedriveItems(queue=name, count=most):
                self._redrive(name, most, answer.count)

    def _book(self, name: str) -> Book:
        most = 0 if name.endswith(DEAD) else DELIVERIES_UNTOLD
        return self.books.setdefault(name, Book(most=most))

    def _put(self, action: PutItems, first: int) -> None:
        book = self._book(action.queue)
        demand(first == book.count + 1, "P7", f"item {first} of {action.queue}, not {book.count}+1")
        for new in action.items:
            self._add(book, new.key, self._stamp_ms + new.delay_ms if new.delay_ms else 0)

    def _add(self, book: Book, key: str, until_ms: int = 0) -> None:
        book.count += 1
        book.items[book.count] = BookItem(key, until_ms=until_ms)

    def _settle(self, action: Settled, stale: tuple[int, ...]) -> None:
        book = self.books.get(action.queue, Book())
        refused: list[int] = []
        for number, receipt in action.receipts:
            item = book.items.get(number)
            if item is None or not item.claim or item.receipt != receipt or item.may_go:
                refused.append(number)
            elif isinstance(action, AckItems):
                del book.items[number]
                self.acked[(action.queue, number)] = None
            elif isinstance(action, NackItems):
                item.may_go = True
                item.until_ms = self._stamp_ms + action.delay_ms if action.delay_ms else 0
            else:
                item.until_ms = self._stamp_ms + action.visibility_ms
        demand(list(stale) == refused, "P7", f"receipts {stale} are refused, not {refused}")

    def _redrive(self, name: str, most: int, count: int) -> None:
        letters = self.books.get(name + DEAD, Book())
        free = [n for n, item in letters.items.items() if self._is_free(letters, n, item)]
        demand(count == min(most, len(free)), "P7", f"{count} of {len(free)} redriven")
        for number in free[:count]:
            self._add(self._book(name), letters.items.pop(number).key)

    def _is_free(self, letters: Book, number: int, item: BookItem) -> bool:
        """Nobody has it, or an earlier one of its key."""
        earlier = [o for n, o in letters.items.items() if n <= number and o.key == item.key]
        return not any(other.claim for other in (earlier if item.key else [item]))

    def _elapse(self, upto_ms: int) -> None:
        for book in self.books.values():
            for item in book.items.values():
                if item.until_ms and item.until_ms <= upto_ms:
                    item.until_ms = 0
                    item.may_go = bool(item.claim)
        self._may_end |= {c for c, until_ms in self._waits_until.items() if until_ms <= upto_ms}

    # --- what came of it ---

    def _hear(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case LeaseEnded(lease=lease):
                    self._end_lease(lease)
                case WaitEnded(claim=claim):
                    demand(claim in self._may_end, "P7", f"a wait of {claim} ends too early")
                    self._leave_row(claim)
                case ItemsGiven():
                    self._give(event)
                case ItemDied():
                    self._die(event)
        self._may_end.clear()
        self._close()

    def _close(self) -> None:
        """What was taken from its claims, and given to nobody, is free."""
        for name, book in self.books.items():
            for number, item in book.items.items():
                if item.may_go:
                    spent = 0 < book.most <= item.deliveries and not item.is_spared
                    demand(not spent, "P7", f"item {number} of {name} should have died")
                    item.may_go = item.is_spared = False
                    item.claim = ""
            ready = [n for n in book.items if self._is_ready(book, n)]
            demand(not (ready and book.takers), "P7", f"at {name} one waits for items {ready}")

    def _end_lease(self, lease: str) -> None:
        ended = [claim for claim, take in self.takes.items() if take.lease == lease]
        self._may_end |= set(ended)
        for claim in ended:
            for item in self._of_claim(claim):
                item.may_go, item.until_ms = True, 0

    def _of_claim(self, claim: str) -> list[BookItem]:
        take = self.takes.get(claim)
        items = self.books[take.queue].items.values() if take and take.queue in self.books else ()
        return [item for item in items if item.claim == claim]

    def _leave_row(self, claim: str) -> None:
        takers = self.books[self.takes[claim].queue].takers
        demand(claim in takers, "P7", f"{claim} did not wait")
        takers.remove(claim)
        del self._waits_until[claim]

    def _is_ready(self, book: Book, number: int) -> bool:
        item = book.items[number]
        return not item.claim and not item.until_ms and self._is_first(book, number)

    def _is_first(self, book: Book, number: int) -> bool:
        """Of its key."""
        key = book.items[number].key
        return not key or not any(n < number and o.key == key for n, o in book.items.items())

    def _give(self, given: ItemsGiven) -> None:
        book, take = self._book(given.queue), self.takes[given.claim]
        first = book.takers[:1] == [given.claim]
        demand(first, "P7", f"{given.claim} is not the first at {given.queue}")
        self._leave_row(given.claim)
        for number, receipt in given.receipts:
            what = f"item {number} of {given.queue}"
            item = book.items.get(number)
            if item is None:
                raise BrokenPromiseError(f"P7: {what} is given, and is not there")
            demand(not item.claim or item.may_go, "P7", f"{what} has two owners")
            demand(not item.until_ms, "P7", f"{what} is given before its time")
            demand(receipt > item.receipt, "P7", f"{what} has an old receipt")
            demand(self._is_first(book, number), "P7", f"{what} is not the first of its key")
            item.may_go = item.is_spared = False
            item.deliveries += 1
            item.receipt, item.claim = receipt, given.claim
            visible_ms = take.visibility_ms
            item.until_ms = self._stamp_ms + visible_ms if visible_ms else None

    def _die(self, died: ItemDied) -> None:
        book, letters = self.books[died.queue], self._book(died.queue + DEAD)
        item = book.items.pop(died.id)
        spent = item.may_go and 0 < book.most <= item.deliveries == died.deliveries
        demand(spent, "P7", f"item {died.id} of {died.queue} died too early")
        demand(died.letter == letters.count + 1, "P7", f"letter {died.letter} is not the next")
        self._add(letters, item.key)
        self.died += 1

    def _check_taken(self, take: TakeItems, answer: ActionAnswer) -> None:
        if isinstance(answer, ItemsTaken) and take.claim in self.takes:
            waits = self.waits(take.claim)
            demand(answer.waits == waits, "P7", f"{take.claim} is told another thing than is so")

    # --- what a peer has ---

    def _compare(self, peer: SimPeer) -> None:
        s: LedgerState = peer.scheduler.machine
        where = f"on peer {peer.number}"
        there = {name: head.next_id - 1 for name, head in s.queue_heads.items()}
        known = {name: book.count for name, book in self.books.items()}
        if there != known:
            demand(False, "P7", f"queues are {there}, not {known} {where}")
        owners = {key: (item.receipt, item.claim) for key, item in s.queue_items.items()}
        expected = {
            (name, number): (item.receipt if item.claim else 0, item.claim)
            for name, book in self.books.items()
            for number, item in book.items.items()
        }
        if owners != expected:
            demand(False, "P7", f"items are {owners}, not {expected} {where}")
        rows = {name: list(queue.takers) for name, queue in s.queues.queues.items()}
        waiting = {name: book.takers for name, book in self.books.items()}
        if rows != waiting:
            demand(False, "P7", f"takers are {rows}, not {waiting} {where}")
