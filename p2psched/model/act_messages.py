"""Calls by which clients act on leases, keys, locks and queues."""

from __future__ import annotations

import msgspec

from p2psched.model.actions import Action, ActionAnswer


class Do(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=90):
    """Put this into the ledger, once for each (caller, number), and tell what came of it. Any peer
    may be asked, and asked again: see `model.actions.Act`."""

    caller: int
    number: int
    settled: int
    action: Action


class DidSo(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=90):
    answer: ActionAnswer


ActCall = Do
ActCallAnswer = DidSo
