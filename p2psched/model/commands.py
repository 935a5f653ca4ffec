"""Commands, what they answer, and what follows from them.

A command is one decision in the ledger. Tags are for ever; fields are only appended, with defaults.
Each has an index, not that of its entry; that of a `Place` is the grant, which only rises: a fence.
"""

from __future__ import annotations

import enum

import msgspec

from p2psched.model.actions import Act, Acted, ActEvent, Elapsed
from p2psched.model.backing import PlaceCommand, PlaceEvent
from p2psched.model.blob import BlobRef
from p2psched.model.history_events import HistoryCut
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import Cause, JobSpec, JobState, Segment
from p2psched.model.needs import Offer
from p2psched.model.once import EndEvent, Once
from p2psched.model.pace_commands import Said
from p2psched.model.reconciled import PeerReconciled, Reconciled
from p2psched.model.resumed import Resumed
from p2psched.model.stalls import Stall, Stalled
from p2psched.model.taskset import EMPTY, TaskSet
from p2psched.model.webhook import WebhookCommand

Grant = int  # index of the command that made its peer the owner, the generation in its high bits


class PeerInfo(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a peer says of itself when it comes up."""

    peer: PeerId
    incarnation: int  # rises at each start of the process, and when the peer was declared down
    name: str
    address: str  # host:port that others reach it at
    pid: int
    slots: int  # tasks at a time; 0 runs nothing
    version: str
    python: str  # version of the workers' interpreter, "3.11"
    level: int = 1  # the highest feature level that it knows


class KeptGrant(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A grant that a peer still works under although it was declared down."""

    job: JobId
    grant: Grant
    tasks: TaskSet


class SubmitJob(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Accept a job. The client chose the id, so a repeated submit is the same job."""

    job: JobId
    spec: JobSpec


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Make a live incarnation the owner of those of `tasks` that nobody live owns."""

    job: JobId
    tasks: TaskSet
    peer: PeerId
    incarnation: int


class Complete(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Commit how tasks ended. Applies to the part that is still under `grant`, and only there."""

    job: JobId
    grant: Grant
    segments: tuple[Segment, ...]


class PeerUp(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """A peer is there under a new incarnation; older ones end. It keeps `kept` if still current.

    `continues`: the incarnation of the same process before this one, 0 if it is a new process. If
    that is the last one known of the peer, nothing has died."""

    info: PeerInfo
    kept: tuple[KeptGrant, ...] = ()
    continues: int = 0


class PeerDown(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """An incarnation is gone. What it owns may be placed anew, and is its own until then."""

    peer: PeerId
    incarnation: int
    reason: str
    stopped: bool = False  # it says so itself, and stops cleanly: no task is to blame


class Cancel(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """End a job: nothing that comes later can turn one of its tasks into a success."""

    job: JobId


class Forget(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """Drop a job that has ended, its results and its history. Its id stays taken for a while.

    With `ended_ms` nobody asked for it: then the job is meant as it ended at that ledger time, and
    not once it is pinned, or has been run again since; nor before `due_ms`, in ledger time too: who
    proposed it may have reckoned ahead, and have lost its place since."""

    job: JobId
    ended_ms: int | None = None
    due_ms: int | None = None  # None: there are too many, or too many bytes


class Pin(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    """Keep a job for ever, or let it go again: a pinned one is never forgotten by itself."""

    job: JobId
    pinned: bool


class Retry(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    """Run failed tasks again, and those whose results have no copy left. `spec` is that of the job:
    what an ended job ran is not kept in memory. `tasks`: only these; empty: all such."""

    job: JobId
    spec: JobSpec
    tasks: TaskSet = EMPTY


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """`peer` has these large results of a job on its disk from now on, or (not `held`) not any
    more. Each is (index, name, digest): what the job has replaced since is not meant."""

    job: JobId
    peer: PeerId
    blobs: tuple[tuple[int, str, bytes], ...]
    held: bool


class RaiseLevel(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Use commands up to this feature level from here on. Acts only if all peers know it."""

    level: int
    gone: tuple[PeerId, ...] = ()  # removed for good: if they are down they don't count


class DrainMode(enum.IntEnum):
    """Whether a peer is given tasks."""

    OFF = 0
    ON = 1  # it is given nothing, until somebody takes it back
    ONCE = 2  # nothing, until its next process comes up
    CORDON = 3  # nothing more, and it keeps what it has; until somebody takes it back


class Drain(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=30):
    """Grant a peer nothing more, or (OFF) tasks again. It stays what else it is."""

    peer: PeerId
    mode: DrainMode


class GiveBack(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=31):
    """Its owner has not started these tasks under this grant and won't: they wait again, at no
    cost to their retries. With a `stall` it tells why, and under grant 0 it only tells
    that. With `by` they have begun, and were ended so that a task of that job may run."""

    job: JobId
    grant: Grant
    tasks: TaskSet
    stall: Stall | None = None
    by: JobId = JobId("")


class NewGeneration(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """The ledger goes on from a copy of its state, as another cluster that begins with `peer`. All
    grants and peers of before are over."""

    generation: int
    peer: PeerId
    start: int = 0  # of its numbers: drawn, for others may go on from the same copy


class ForgetPeer(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=50):
    """A removed peer goes, once it is down and owns nothing. It never comes up again."""

    peer: PeerId


Command = (
    SubmitJob
    | Place
    | Complete
    | PeerUp
    | PeerDown
    | Cancel
    | Forget
    | Pin
    | Retry
    | Held
    | RaiseLevel
    | Drain
    | GiveBack
    | NewGeneration
    | WebhookCommand
    | ForgetPeer
    | Act
    | Elapsed
    | Offer
    | PlaceCommand
    | Said
    | Reconciled
    | Once
)


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A command and who waits for its outcome. (proposer, request) names a proposal for ever:
    repeats after a timeout carry the same, and the first outcome counts."""

    proposer: PeerId
    request: int
    command: Command


# --- outcomes: what the proposer learns -----------------------------------------------------------


class Submitted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    job: JobId
    duplicate: bool  # the id was known: same job, nothing new started


class Placed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    grant: Grant
    tasks: TaskSet  # empty: all were owned, ended or unknown


class Completed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Each task of the `Complete` is in exactly one of the three."""

    accepted: TaskSet = EMPTY
    duplicate: TaskSet = EMPTY  # already committed under the same grant
    stale: TaskSet = EMPTY  # under a newer grant, cancelled, or unknown: refused and counted


class Acknowledged(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """Done, or true already."""


class Rejected(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """Nothing changed. `code` is that of an error class."""

    code: str
    message: str


Outcome = Submitted | Placed | Completed | Acknowledged | Rejected | Acted


# --- events: what every peer learns by applying ---------------------------------------------------


class JobAdded(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """`spec` goes to the result store, which keeps it for a retry; history leaves it out."""

    job: JobId
    spec: JobSpec | None = None


class Granted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    job: JobId
    grant: Grant
    peer: PeerId
    incarnation: int
    tasks: TaskSet


class Revoked(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """`peer` must end these tasks: they run elsewhere, or the job was cancelled."""

    job: JobId
    grant: Grant
    peer: PeerId
    tasks: TaskSet
    cause: Cause  # PEER_LOST or CANCELLED


class Recorded(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """Final results. `position` counts the segments of its job in commit order, from 0."""

    job: JobId
    grant: Grant
    peer: PeerId
    position: int
    segment: Segment


class Retried(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """Attempts failed and the tasks wait for another."""

    job: JobId
    grant: Grant
    peer: PeerId
    segment: Segment


class ResultRefused(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """Somebody brought results under a grant that is not current."""

    job: JobId
    grant: Grant
    tasks: TaskSet


class PeerCameUp(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    info: PeerInfo


class PeerWentDown(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    peer: PeerId
    incarnation: int
    reason: str


class JobEnded(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    job: JobId
    state: JobState


class JobForgotten(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """All of it may go from memory and disks. `blobs`: it referred to them; others may still."""

    job: JobId
    blobs: tuple[BlobRef, ...] = ()


class JobReopened(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=11):
    """Tasks of a job wait again. Results of theirs at positions before `position` are void."""

    job: JobId
    tasks: TaskSet
    position: int


class ResultsLost(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=12):
    """The last copies of large results of these tasks are gone."""

    job: JobId
    tasks: TaskSet


class PeerDrains(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=30):
    """A peer is given nothing more, or (OFF) tasks again."""

    peer: PeerId
    mode: DrainMode


class GivenBack(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=31):
    """`peer` did not start these tasks, and they wait again."""

    job: JobId
    grant: Grant
    peer: PeerId
    tasks: TaskSet


JobEvent = (
    JobAdded
    | Granted
    | Revoked
    | Recorded
    | Retried
    | ResultRefused
    | PeerCameUp
    | PeerWentDown
    | JobEnded
    | JobForgotten
    | JobReopened
    | ResultsLost
    | PeerDrains
    | GivenBack
    | PlaceEvent
    | Resumed
    | HistoryCut
    | Stalled
    | EndEvent
)
Event = JobEvent | ActEvent | PeerReconciled


class Stamped(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event with its place in history. `wall_ms` is Unix time for people; it decides nothing."""

    index: int  # of the command
    at_ms: int  # ledger time
    wall_ms: int
    event: Event
