"""The part of the fold that is about webhooks: who is told of events, and how far that went."""

from __future__ import annotations

import msgspec

from p2psched.core.state import LedgerState
from p2psched.model.commands import Acknowledged, Outcome, Rejected
from p2psched.model.event_messages import Place
from p2psched.model.webhook import (
    WEBHOOKS_MAX,
    AckWebhook,
    AddWebhook,
    RemoveWebhook,
    Webhook,
    fault_of,
)


def decide(s: LedgerState, command: AddWebhook | RemoveWebhook | AckWebhook) -> Outcome:
    match command:
        case AddWebhook():
            return _add(s, command)
        case RemoveWebhook(name=name):
            if s.webhooks.pop(name, None) is None:
                return Rejected(
                    "not-found", f"no webhook {name}: `p2psched webhook list` names them"
                )
            return Acknowledged()
        case AckWebhook(name=name, added=added, upto=upto):
            hook = s.webhooks.get(name)
            if hook is not None and hook.added == added and hook.acked < upto:
                s.webhooks[name] = msgspec.structs.replace(hook, acked=upto)
            return Acknowledged()


def _add(s: LedgerState, command: AddWebhook) -> Outcome:
    fault = fault_of(command.name, command.url, command.wanted)
    if fault:
        return Rejected("usage", fault)
    known = s.webhooks.get(command.name)
    if known is not None:
        if (known.url, known.wanted) == (command.url, command.wanted):
            return Acknowledged()
        return Rejected("usage", f"there is another webhook {command.name}: remove that one first")
    if len(s.webhooks) >= WEBHOOKS_MAX:
        return Rejected("refused", f"there are {WEBHOOKS_MAX} webhooks already: remove one first")
    following = Place(s.applied_index + 1)
    start = following if command.start is None else min(command.start, following)
    s.webhooks[command.name] = Webhook(
        command.name, command.url, command.wanted, s.command_index, start
    )
    return Acknowledged()
