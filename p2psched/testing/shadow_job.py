"""What the shadow ledger keeps of one job, and of a peer that is down."""

from __future__ import annotations

from collections import Counter
from typing import Final

from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec

WAITING: Final = 0  # grants are 1 and more
ENDED: Final = -1
UNKNOWN: Final = -2

BlobName = tuple[int, str]  # task, name


class Away:
    """A peer that is down: what it owned when it went, and whom its death was blamed on."""

    def __init__(self, owned: list[tuple[JobId, int]], *, stopped: bool) -> None:
        self.owned = owned
        self.stopped = stopped
        self.blamed: tuple[JobId, int] | None = None


class ShadowJob:
    """`owner`: task -> grant, `WAITING`, `UNKNOWN` or `ENDED`."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.owner: dict[int, int] = dict.fromkeys(spec.tasks, WAITING)
        self.left = len(self.owner)
        self.failures: Counter[int] = Counter()
        self.spaceless: Counter[int] = Counter()  # attempts that ended on a full disk
        self.state = "running"
        self.said: dict[int, set[int]] = {}  # grant -> tasks that it had its say about
        self.causes: dict[int, Cause] = {}  # how tasks ended for good
        self.blobs: dict[BlobName, tuple[bytes, set[PeerId]]] = {}  # digest, holders
        self.pinned = False
        self.ended_ms = 0
        self.ran_again = False
        self.deaths: Counter[int] = Counter()  # of owners of the task
        self.killed: dict[int, list[PeerId]] = {}  # owners that died and owned nothing else
        self.ends: Counter[tuple[int, Cause]] = Counter()  # of attempts, by causes with a rule
        self.due: dict[int, int] = {}  # tasks that wait for a moment to come
        self.avoids: set[tuple[int, PeerId]] = set()  # where it ended badly, and is not moved to
        self.alerted: set[Cause] = set()
        self.warned = False
        self.fatal = self.given_up = self.queue_over = False
        self.look_ms: int | None = None  # what is due of it is looked for at the next `Elapsed`
        self.since_ms = 0  # its limits of time count from there
        self.tried: set[int] = set()  # some peer has owned these
        self.dropped: set[int] = set()  # they had waited for too long
        self.begun: dict[int, int] = {}  # task -> grant under which it may have begun
        self.until_ms: dict[int, int] = {}  # grant -> where the lease on what has begun is over
        self.disowned: set[tuple[int, int]] = set()  # with the grant: its owner knows it no more
        self.lost_ms: dict[int, int] = {}  # grant -> the same, of what of it is unknown
        self.copies: dict[int, list[int]] = {}  # task -> grants of its backups, oldest first
        self.thinned: set[int] = set()  # it ended badly while another ran it
        self.speculated: set[int] = set()
        self.mourned: dict[int, Away] = {}  # what is unknown since its owner's death
        self.open: set[JobId] = set()  # jobs that it comes after, and that have not ended
        self.unknown: dict[int, int] = {}  # task -> grant of its lost owner; `owner`: UNKNOWN

    @property
    def lost(self) -> set[int]:
        """Tasks with a large result that nobody holds."""
        return {index for (index, _), (_, holders) in self.blobs.items() if not holders}

    @property
    def failed(self) -> set[int]:
        return {index for index, cause in self.causes.items() if cause is not Cause.OK}
