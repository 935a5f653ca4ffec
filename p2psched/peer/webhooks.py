"""Tells webhooks of events: the peer that coordinates posts them, at least once, in order.

How far each one is stands in the ledger, so whoever coordinates next goes on there. An address that
fails is asked again, later and later; it holds up no other one and no reader. What it misses for
longer than peers keep events is told to it as lost, never passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from p2psched.core.machine import Machine
from p2psched.model.errors import P2PSchedError
from p2psched.model.event_messages import EventPage, FetchEvents, HookView, Place
from p2psched.model.version import VERSION
from p2psched.model.webhook import AckWebhook, Webhook
from p2psched.observe.beat import until_beat
from p2psched.observe.event_json import event_fields
from p2psched.peer.http_post import Post
from p2psched.peer.scheduler_loop import SchedulerLoop

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5  # between two looks at who coordinates and which webhooks there are
BATCH_MAX: Final = 100  # events in one request
GATHER_S: Final = 0.1  # after the first event, for others that come with it
WAIT_MS: Final = 20_000
POST_S: Final = 15.0
POSTS_MAX: Final = 4  # at a time
BACKOFF_S_MIN: Final = 1.0
BACKOFF_S_MAX: Final = 300.0
FETCH_RETRY_S: Final = 1.0
ACK_S: Final = 5.0  # for the ledger to take it; else some of it is told again
# Entries without an event that fits, after which the ledger hears that these are done with, too.
QUIET_ENTRIES: Final = 1_000
_ERROR_LEN_MAX: Final = 200

Read = Callable[[FetchEvents], Awaitable[EventPage]]


@dataclass(slots=True)
class Trouble:
    """Of a webhook whose last request failed."""

    tries: int = 0
    error: str = ""


def key_of(secret: bytes, cluster: str, hook: Webhook) -> bytes:
    """What its requests are signed with: of this registration alone, and on no disk."""
    words = f"webhook:{cluster}:{hook.name}:{hook.added}".encode()
    return hmac.new(secret, words, hashlib.sha256).digest()


def signature_of(key: bytes, body: bytes) -> str:
    return "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()


class Webhooks:
    """`run` it beside the loops."""

    def __init__(
        self,
        scheduling: SchedulerLoop,
        read: Read,
        *,
        secret: bytes,
        cluster: str,
    ) -> None:
        self._scheduling = scheduling
        self._read = read
        self._secret = secret
        self._cluster = cluster
        self._rng = random.SystemRandom()
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._trouble: dict[tuple[str, int], Trouble] = {}
        self._pool: ThreadPoolExecutor | None = None

    @property
    def _machine(self) -> Machine:
        return self._scheduling.scheduler.machine

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._look(group)
                    await asyncio.sleep(until_beat(LOOK_S))
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self, group: asyncio.TaskGroup) -> None:
        """Deliver to those that there are, as long as this peer coordinates."""
        hooks = self._machine.webhooks.values() if self._scheduling.scheduler.coordinates else ()
        wanted = {(hook.name, hook.added): hook for hook in hooks}
        for name in self._tasks.keys() - wanted.keys():
            self._tasks.pop(name).cancel()
            self._trouble.pop(name, None)
        for name, hook in wanted.items():
            if name not in self._tasks:
                self._tasks[name] = group.create_task(self._deliver(hook))

    def views(self) -> list[HookView]:
        """As the ledger has them, with what goes wrong if this peer delivers."""
        newest = self._machine.applied_index
        views = []
        for hook in self._machine.webhooks.values():
            trouble = self._trouble.get((hook.name, hook.added), Trouble())
            behind = max(0, newest + 1 - hook.acked.index)
            views.append(
                HookView(
                    hook.name,
                    hook.url,
                    hook.wanted,
                    hook.acked,
                    behind,
                    trouble.tries,
                    trouble.error,
                )
            )
        return views

    def key(self, hook: Webhook) -> bytes:
        return key_of(self._secret, self._cluster, hook)

    # --- one of them ------------------------------------------------------------------------------

    async def _deliver(self, hook: Webhook) -> None:
        place = acked = hook.acked
        lost: tuple[Place, Place] | None = None
        while True:
            page = await self._page(hook, place)
            if page.oldest is not None:
                lost = (lost[0] if lost is not None else place, page.oldest)
                place = page.oldest
                continue
            if page.events:
                await self._post_until_taken(hook, page, lost)
                lost = None
            place = page.following
            if page.events or place.index - acked.index >= QUIET_ENTRIES:
                await self._ack(hook, place)
                acked = place

    async def _page(self, hook: Webhook, place: Place) -> EventPage:
        body = FetchEvents(place, hook.wanted, BATCH_MAX, WAIT_MS)
        while True:
            try:
                page = await self._read(body)
                if 0 < len(page.events) < BATCH_MAX:
                    await asyncio.sleep(GATHER_S)
                    page = await self._read(body)
            except (P2PSchedError, OSError) as error:
                log.info("webhook-waits", extra={"webhook": hook.name, "reason": str(error)})
                await asyncio.sleep(FETCH_RETRY_S)
            else:
                return page

    async def _ack(self, hook: Webhook, upto: Place) -> None:
        with contextlib.suppress(P2PSchedError, TimeoutError):
            async with asyncio.timeout(ACK_S):
                await self._scheduling.propose(AckWebhook(hook.name, hook.added, upto))

    async def _post_until_taken(
        self, hook: Webhook, page: EventPage, lost: tuple[Place, Place] | None
    ) -> None:
        body = self._body(hook, page, lost)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"p2psched/{VERSION}",
            "Idempotency-Key": f"{hook.name}/{hook.added}/{page.events[-1].place}",
            "P2PSched-Webhook": hook.name,
            "P2PSched-Signature": signature_of(self.key(hook), body),
        }
        trouble = self._trouble.setdefault((hook.name, hook.added), Trouble())
        while True:
            error = await self._post(Post(hook.url, body, headers))
            if not error:
                trouble.tries, trouble.error = 0, ""
                return
            trouble.tries += 1
            trouble.error = error[:_ERROR_LEN_MAX]
            told = {"webhook": hook.name, "tries": trouble.tries, "error": trouble.error}
            log.warning("webhook-failed", extra=told)
            await asyncio.sleep(backoff_s(trouble.tries, self._rng))

    async def _post(self, post: Post) -> str:
        """What went wrong; empty if it was taken."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(POSTS_MAX, thread_name_prefix="webhooks")
        try:
            async with asyncio.timeout(POST_S):
                status = await asyncio.get_running_loop().run_in_executor(self._pool, post.run)
        except TimeoutError:
            return f"no answer within {POST_S:.0f} s"
        except (OSError, ValueError) as error:  # no address, maybe
            return f"{type(error).__name__}: {error}"
        finally:
            post.end()
        return "" if 200 <= status < 300 else f"status {status}"

    def _body(self, hook: Webhook, page: EventPage, lost: tuple[Place, Place] | None) -> bytes:
        fields = {
            "version": 1,
            "webhook": hook.name,
            "cluster": self._cluster,
            "events": [event_fields(record) for record in page.events],
            "lost": None if lost is None else {"from": str(lost[0]), "before": str(lost[1])},
        }
        return json.dumps(fields).encode()


def backoff_s(tries: int, rng: random.Random) -> float:
    """Twice as long each time, and never two webhooks in step."""
    longest = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(tries - 1, 20))
    return longest * rng.uniform(0.5, 1.0)
