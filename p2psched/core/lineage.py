"""Which jobs wait for which others. All of it follows from `Job.awaits`."""

from __future__ import annotations

from collections.abc import Iterable

from p2psched.core.jobs import Job
from p2psched.model.ids import JobId


class Lineage:
    """Parents, which others come after, have not ended; their children wait for them."""

    __slots__ = ("awaiting", "children", "parted")

    def __init__(self, running: Iterable[Job] = ()) -> None:
        """`running`: in their order."""
        self.awaiting: dict[JobId, None] = {}  # all children, oldest first
        self.children: dict[JobId, dict[JobId, None]] = {}  # of each parent, oldest first
        self.parted: list[JobId] = []  # that had children, and were ended by this command
        for job in running:
            self.attach(job)

    def attach(self, job: Job) -> None:
        """To those that it awaits."""
        for parent in job.awaits:
            self.children.setdefault(parent, {})[job.id] = None
        if job.awaits:
            self.awaiting[job.id] = None

    def part(self, job: Job) -> None:
        """It ends: from those that it awaits, and from its children, which `dependencies.settle`
        looks after."""
        if job.id in self.children:
            self.parted.append(job.id)
        for parent in job.awaits:
            children = self.children[parent]
            del children[job.id]
            if not children:
                del self.children[parent]
        job.awaits = {}
        self.awaiting.pop(job.id, None)

    def descendants(self, job: JobId) -> list[JobId]:
        """Its children and theirs, each once: what its end may change."""
        found: dict[JobId, None] = {}
        names = [job]
        for name in names:
            for child in self.children.get(name, ()):
                if child not in found:
                    found[child] = None
                    names.append(child)
        return names[1:]
