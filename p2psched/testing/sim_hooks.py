"""Webhooks of a simulation: somebody adds and removes them, and says how far they have come, by
any peer, maybe late. Nobody is there to post to: only the part of the ledger is looked at.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from p2psched.model.commands import Acknowledged, Command, Outcome
from p2psched.model.event_messages import Place
from p2psched.model.webhook import AckWebhook, AddWebhook, RemoveWebhook

if TYPE_CHECKING:
    from p2psched.testing.sim import SimCluster

NAMES: Final = ("one", "two")
PAUSE_MS_MAX: Final = 800
ASKED_MAX: Final = 30


def start_hooks(cluster: SimCluster) -> None:
    """In some seeds. Drawn apart: all else of the seed is drawn as without."""
    rng = random.Random(f"hooks {cluster.seed}")
    if rng.random() < 0.7:
        return
    for _ in range(rng.randrange(1, ASKED_MAX)):
        cluster.after(rng.randrange(1, ASKED_MAX * PAUSE_MS_MAX), lambda: _ask(cluster, rng))


def _ask(cluster: SimCluster, rng: random.Random) -> None:
    def count(outcome: Outcome) -> None:
        if isinstance(outcome, Acknowledged):
            cluster.happened["webhook changed"] += 1

    # Once: that there is none to remove is an answer here.
    cluster.callers.call(rng.randrange(len(cluster.peers)), _command(cluster, rng), count)


def _command(cluster: SimCluster, rng: random.Random) -> Command:
    name = rng.choice(NAMES)
    draw = rng.random()
    if draw < 0.4:
        return AddWebhook(name, f"http://host/{rng.randrange(2)}")
    if draw < 0.55:
        return RemoveWebhook(name)
    hooks = rng.choice(cluster.peers).scheduler.machine.webhooks  # of one that may be behind
    hook = hooks.get(name)
    newest = len(cluster.referees.committed)
    return AckWebhook(name, hook.added if hook else 1, Place(rng.randint(1, newest + 1)))
