"""E10: an attempt begins no earlier than the newest whole checkpoint that it can have had.

The referee has books of its own of what is on whose disk: what was acknowledged there counts until
that disk is lost, a newer one takes its place, or the ledger needs nothing of the task any more. It
compares by grant first and then by number, whatever the product's own order is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from p2psched.model.checkpoints import Head
from p2psched.model.ids import JobId, PeerId
from p2psched.testing.facts import Fact
from p2psched.testing.promises import demand

FIND_MS: Final = 2_000  # that those are waited for who live
PATIENCE_MS: Final = 15_000  # and the others, if nobody has any
KEPT: Final = 2  # of a task on one disk

Task = tuple[JobId, int]
Age = tuple[int, int]


class Search:
    """Of one attempt: who was there when it began, and who has answered since."""

    def __init__(
        self,
        me: PeerId,
        task: Task,
        live: Iterable[PeerId],
        away: Iterable[PeerId],
        *,
        has_run: bool,
        now_ms: int,
    ) -> None:
        self.me = me
        self.task = task
        self.live = set(live)
        self.others = self.live | set(away)
        self.has_run = has_run
        self.began_ms = now_ms
        self.heard: dict[PeerId, Age | None] = {}  # the newest that is whole there
        self.broken: set[PeerId] = set()  # it could not be had from there

    def on_broken(self, peer: PeerId) -> None:
        self.heard.pop(peer, None)
        self.broken.add(peer)


class CheckpointReferee:
    def __init__(self) -> None:
        self._books: dict[Task, dict[PeerId, list[tuple[Age, bool]]]] = {}  # the newest; whole?
        self._steps: dict[tuple[Task, Age], int] = {}  # of all that was ever saved

    def on_kept(self, peer: PeerId, head: Head, *, is_sound: bool) -> None:
        """`peer` has said that this is on its disk."""
        task, age = (JobId(head.job), head.task), (head.grant, head.number)
        step = self._steps.setdefault((task, age), head.body_bytes)
        demand(step == head.body_bytes, "E10", f"two checkpoints {age} of task {task}")
        book = self._books.setdefault(task, {}).setdefault(peer, [])
        if (age, is_sound) not in book:
            book.append((age, is_sound))
            book.sort(reverse=True)
            del book[KEPT:]

    def on_committed(self, facts: Iterable[Fact]) -> None:
        """What the ledger needs nothing of may be gone from everywhere."""
        for what, name, index, _ in facts:
            if what == "ended":
                for task in [task for task in self._books if task[0] == name]:
                    del self._books[task]
            elif what in {"recorded", "reopened"}:
                self._books.pop((JobId(name), index), None)

    def _newest(self, peer: PeerId, task: Task) -> Age | None:
        book = self._books.get(task, {}).get(peer, [])
        return max((age for age, is_sound in book if is_sound), default=None)

    def on_heard(self, search: Search, peer: PeerId) -> None:
        search.heard[peer] = self._newest(peer, search.task)

    def on_begun(self, search: Search, head: Head | None, now_ms: int) -> None:
        task, waited_ms = search.task, now_ms - search.began_ms
        ages = [self._newest(search.me, task), *search.heard.values()]
        best = max((age for age in ages if age is not None), default=None)
        if task not in self._books:  # it has ended since, or nobody ever said that it has one
            best = None
        if head is None:
            demand(best is None, "E10", f"task {task} begins anew, and there was checkpoint {best}")
        else:
            age = head.grant, head.number
            known = self._steps.get((task, age))
            demand(known == head.body_bytes, "E10", f"task {task} goes on from what nobody saved")
            demand(
                best is None or age >= best, "E10", f"task {task} goes on from {age}, not {best}"
            )
        silent = search.others - search.heard.keys() - search.broken
        if silent & search.live:
            demand(waited_ms >= FIND_MS, "E10", f"task {task} waited {waited_ms} ms for {silent}")
        if silent and search.has_run and head is None:
            demand(waited_ms >= PATIENCE_MS, "E10", f"task {task} begins anew after {waited_ms} ms")
