"""What queues refuse, and what they bear."""

from __future__ import annotations

import pytest

from p2psched.core import queues
from p2psched.model import queue_actions
from p2psched.model.commands import Rejected
from p2psched.model.queue_actions import (
    BATCH_BYTES_MAX,
    ITEM_BYTES_MAX,
    AckItems,
    ConfigureQueue,
    ExtendItems,
    NackItems,
    NewItem,
    PutItems,
    QueueAction,
    RedriveItems,
    StopTaking,
    TakeItems,
)
from tests.core.queue_rig import Q, Rig, claim


def test_what_is_handed_over_together_fits_a_frame() -> None:
    rig = Rig()
    for _ in range(3):
        rig.put(bytes(ITEM_BYTES_MAX))
    assert rig.take(1, count=3) == [1, 2]
    assert 2 * ITEM_BYTES_MAX == BATCH_BYTES_MAX


@pytest.mark.parametrize(
    ("bound", "of", "action"),
    [
        ("QUEUES_MAX", 1, PutItems("other", (NewItem(b"x"),))),
        ("QUEUES_MAX", 1, TakeItems("other", claim(5), wait_ms=100)),
        ("QUEUE_ITEMS_MAX", 2, PutItems(Q, (NewItem(b"x"), NewItem(b"x")))),
        ("QUEUE_BYTES_MAX", 10, PutItems(Q, (NewItem(b"123456789", key="k"),))),
        ("TAKERS_MAX", 0, TakeItems("other", claim(5), wait_ms=100)),
    ],
)
def test_at_a_bound_an_action_is_refused_and_says_what_to_do(
    bound: str, of: int, action: QueueAction, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    rig.put(b"x")
    monkeypatch.setattr(queues, bound, of)
    before = rig.state()
    answer = rig.do(action)
    assert isinstance(answer, Rejected)
    assert answer.code == "refused"
    assert any(word in answer.message for word in ("ack", "delete", "ask again"))
    assert rig.state() == before


@pytest.mark.parametrize(
    "action",
    [
        PutItems("", (NewItem(b"x"),)),
        PutItems("a\nb", (NewItem(b"x"),)),
        PutItems("n" * 201, (NewItem(b"x"),)),
        PutItems("x.dead", (NewItem(b"x"),)),
        PutItems(Q, ()),
        PutItems(Q, (NewItem(b"x", priority=2**31),)),
        PutItems(Q, (NewItem(b"x", key="k" * 1_025),)),
        PutItems(Q, (NewItem(b"x", delay_ms=-1),)),
        PutItems(Q, (NewItem(bytes(ITEM_BYTES_MAX)),) * 3),
        TakeItems(Q, "short"),
        TakeItems(Q, claim(1), count=0),
        TakeItems(Q, claim(1), visibility_ms=0),
        TakeItems(Q, claim(1), visibility_ms=99),
        TakeItems(Q, claim(1), wait_ms=-1),
        AckItems(Q, ()),
        NackItems(Q, ((1, 1),), delay_ms=-1),
        ExtendItems(Q, ((1, 1),), visibility_ms=0),
        StopTaking(""),
        ConfigureQueue(Q, -1),
        ConfigureQueue("x.dead", 1),
        RedriveItems("x.dead", 1),
        RedriveItems(Q, 0),
    ],
)
def test_what_no_peer_could_do_is_a_fault_of_the_caller(action: QueueAction) -> None:
    rig = Rig()
    assert queue_actions.fault_of(action)
    answer = rig.do(action)
    assert isinstance(answer, Rejected)
    assert answer.code == "usage"
    assert rig.queues.queues == {}
