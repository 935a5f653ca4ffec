"""Queues under any sequence of actions do what lists that are searched would do."""

from __future__ import annotations

import random

import pytest

from p2psched.model.queue_actions import (
    AckItems,
    ConfigureQueue,
    DeleteQueue,
    ExtendItems,
    NackItems,
    NewItem,
    PurgeQueue,
    PutItems,
    QueueAction,
    Receipt,
    RedriveItems,
    StopTaking,
    TakeItems,
)
from p2psched.model.queue_events import ItemsGiven
from tests.core.queue_model import Naive
from tests.core.queue_rig import Rig, claim, plain, restart

LEASES = (f"{7:032x}", f"{8:032x}")
STEPS = 250
# What happens how often, out of what all of them weigh together.
WEIGHTS = {
    "put": 20,
    "take": 30,
    "ack": 8,
    "nack": 8,
    "extend": 2,
    "time": 12,
    "lease": 2,
    "copy": 4,
    "stop": 4,
    "configure": 2,
    "purge": 1,
    "delete": 2,
    "redrive": 3,
}


def new_item(rng: random.Random) -> NewItem:
    return NewItem(
        rng.randbytes(rng.randint(0, 3)),
        rng.choice((0, 0, 0, 5, -2)),
        rng.choice(("", "", "k", "l")),
        rng.choice((0, 0, 0, 700)),
    )


def some_receipts(rng: random.Random, rig: Rig) -> tuple[str, tuple[Receipt, ...]]:
    """Of lately delivered items of one queue; some are over."""
    lately = deliveries(rig)[-8:]
    if not lately:
        return "a", ((1, 1),)
    queue = rng.choice(lately)[0]
    there = [(number, receipt) for at, number, receipt in lately if at == queue]
    return queue, tuple(rng.sample(there, rng.randint(1, min(3, len(there)))))


def draw(word: str, rng: random.Random, rig: Rig) -> QueueAction:
    queue = rng.choice("ab")
    any_queue = rng.choice(("a", "a", "b", "a.dead"))
    name = claim(rng.randint(1, 5))
    match word:
        case "put":
            return PutItems(queue, tuple(new_item(rng) for _ in range(rng.randint(1, 3))))
        case "take":
            visible = rng.choice((0, 500, 2_000))
            lease = rng.choice(LEASES) if not visible or rng.random() < 0.3 else ""
            wait = rng.choice((0, 1_000, 3_000))
            return TakeItems(any_queue, name, rng.randint(1, 3), visible, wait, lease)
        case "ack":
            return AckItems(*some_receipts(rng, rig))
        case "nack":
            return NackItems(*some_receipts(rng, rig), rng.choice((0, 0, 300)))
        case "extend":
            return ExtendItems(*some_receipts(rng, rig), 900)
        case "stop":
            return StopTaking(name)
    return draw_whole(word, rng, queue, any_queue)


def draw_whole(word: str, rng: random.Random, queue: str, any_queue: str) -> QueueAction:
    match word:
        case "configure":
            return ConfigureQueue(queue, rng.choice((0, 1, 2)))
        case "purge":
            return PurgeQueue(any_queue)
        case "delete":
            return DeleteQueue(any_queue)
        case "redrive":
            return RedriveItems(queue, rng.randint(1, 3))
    raise ValueError(word)


def deliveries(rig: Rig) -> list[tuple[str, int, int]]:
    return [
        (event.queue, number, receipt)
        for event in rig.events
        if isinstance(event, ItemsGiven)
        for number, receipt in event.receipts
    ]


@pytest.mark.parametrize("seed", range(30))
def test_the_fold_does_what_a_naive_queue_does(seed: int) -> None:
    rng = random.Random(seed)
    rig, naive = Rig(), Naive(now=1_000)
    rig.lend(*LEASES)
    for word in rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS):
        command = rig.s.command_index + 1
        match word:
            case "time":
                span = rng.choice((1, 300, 500, 2_000))
                rig.pass_time(span)
                naive.pass_time(span, command)
            case "lease":
                lease = rng.choice(LEASES)
                rig.end_lease(lease)
                naive.end_lease(lease, command)
            case "copy":
                restart(rig)
            case _:
                action = draw(word, rng, rig)
                assert plain(rig.do(action)) == naive.do(action, command), action
        assert state_of(rig) == state_of_naive(naive), word
    assert [delivered[:2] for delivered in deliveries(rig)] == naive.log


def state_of(rig: Rig) -> object:
    return [
        (
            (name, queue.head.next_id - 1, queue.head.max_deliveries, list(queue.takers)),
            [
                (i.id, i.value, i.priority, i.key, i.deliveries, i.claim, i.receipt, i.due_ms)
                for i in queue.items.values()
            ],
        )
        for name, queue in sorted(rig.queues.queues.items())
    ]


def state_of_naive(naive: Naive) -> object:
    return [
        (
            (
                *(name, count, naive.most[name]),
                [t.claim for t in naive.takers if t.queue == name],
            ),
            [
                (
                    *(t.id, t.value, t.priority, t.key, t.deliveries),
                    *(t.holder or "", t.receipt, t.until or 0),
                )
                for t in sorted(naive.things, key=lambda t: t.id)
                if t.queue == name
            ],
        )
        for name, count in sorted(naive.counts.items())
    ]
