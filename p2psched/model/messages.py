"""Everything that travels between processes, but for the bytes of the frame itself (`net.frames`).

One connection: the opening (`opening_messages`), then calls and answers, and between peers also
one-way messages and forwarded proposals. A tag is for ever; fields are appended, with defaults.
"""

from __future__ import annotations

import msgspec

from p2psched.model.act_messages import ActCall, ActCallAnswer
from p2psched.model.after import AfterView
from p2psched.model.backing import BackupView
from p2psched.model.backup_messages import BackupAnswer, BackupCall
from p2psched.model.blob_messages import BlobAnswer
from p2psched.model.checkpoint_messages import CheckpointAnswer, DataCall
from p2psched.model.commands import DrainMode, Envelope, Stamped
from p2psched.model.event_messages import EventAnswer, EventCall
from p2psched.model.feed_messages import FeedMessage, Following, KeepBlobs, KeptBlobs
from p2psched.model.gossip_messages import Carried, GossipAnswer, GossipCall
from p2psched.model.ids import JobId, PeerId
from p2psched.model.job import JobSpec, JobState, Segment
from p2psched.model.keep_messages import ForgetJob, PinJob, RetryJob
from p2psched.model.key_messages import KeyChanges, KeyLook, KeyLookAnswer, WatchKeys
from p2psched.model.load_messages import GetLoads, LoadTable
from p2psched.model.lock_messages import AwaitLock, ListLocks, LockList, LockNow
from p2psched.model.log_messages import LogAnswer, LogCall
from p2psched.model.member_messages import MemberAnswer, MemberCall
from p2psched.model.once import OnceView, ResolveTasks
from p2psched.model.opening_messages import Opening
from p2psched.model.peer_messages import PeerList
from p2psched.model.precedence import PrecedenceView
from p2psched.model.progress_messages import TaskAnswer, TaskCall
from p2psched.model.queue_messages import QueueCall, QueueCallAnswer
from p2psched.model.raft import Member, RaftMessage
from p2psched.model.resumed import Resumption
from p2psched.model.separation_messages import CutOffCall, SeparationAnswer
from p2psched.model.sighting_messages import Sightings, WhereAre
from p2psched.model.staleness import Staleness
from p2psched.model.status_messages import StatusAnswer
from p2psched.model.steal_messages import StealMessage
from p2psched.model.taskset import TaskSet


class Forward(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Proposals on their way to the leader. Nobody answers: the proposer sees them commit."""

    envelopes: tuple[Envelope, ...]


# --- calls ----------------------------------------------------------------------------------------


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=1):
    job: JobId
    spec: JobSpec
    follow: bool = False  # answered with the first results, if they come soon


class CancelJob(msgspec.Struct, frozen=True, array_like=True, tag=2):
    job: JobId


class FindJob(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Resolve what a person typed: a whole id, a prefix, a name, or `last`."""

    text: str


class ShowJob(msgspec.Struct, frozen=True, array_like=True, tag=4):
    job: JobId


class ListJobs(msgspec.Struct, frozen=True, array_like=True, tag=5):
    limit: int = 100  # newest first


class FetchResults(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Segments from `position` on, at most `wait_ms` after the call if there are none yet."""

    job: JobId
    position: int
    wait_ms: int = 0
    here_only: bool = False  # not passed on: a peer that lacks something refuses


class FetchItem(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The item of one task, or where it stands if it has none yet."""

    job: JobId
    index: int
    here_only: bool = False  # as in `FetchResults`


class TailOutput(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Output of a running program task from its owner's disk, from byte `offset` on."""

    job: JobId
    index: int
    stderr: bool
    offset: int


class FetchHistory(msgspec.Struct, frozen=True, array_like=True, tag=9):
    job: JobId
    after: int = 0  # command index
    limit: int = 1000
    here_only: bool = False  # as in `FetchResults`; the first page then has the job's spec, too


class ListPeers(msgspec.Struct, frozen=True, array_like=True, tag=10):
    here_only: bool = False  # whom the peer that receives it knows of; good enough for addresses


class GetStatus(msgspec.Struct, frozen=True, array_like=True, tag=11): ...


class Join(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """A new peer asks to be a learner. Safe to repeat. Answered by the leader (others forward)."""

    member: Member
    # It has no ledger: if there are enough who do, `Following` is the answer.
    may_follow: bool = False
    would_rather: bool = False  # follow, however many hold the ledger


class StopPeer(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """End the peer that receives this, cleanly."""


class Contacts(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Asked of the leader: how long ago each peer was heard."""


class CompactLedger(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """Asked of the peer whose disk it is: make a snapshot now, and let go of the log behind it."""


class DrainPeer(msgspec.Struct, frozen=True, array_like=True, tag=60):
    """`peer drain`: grant the peer nothing more, or tasks again. Any peer may be asked."""

    peer: PeerId
    mode: DrainMode


ReadBody = (
    FindJob
    | ShowJob
    | ListJobs
    | FetchResults
    | FetchItem
    | FetchHistory
    | ListPeers
    | KeyLook
    | ListLocks
)


class Stale(msgspec.Struct, frozen=True, array_like=True, tag=75):
    """Answer this from what the peer that receives it has applied, whoever leads."""

    body: ReadBody


Wish = CancelJob | ForgetJob | PinJob | DrainPeer  # one proposal each, nothing comes before it
KeepCall = Wish | RetryJob | ResolveTasks
CallBody = (
    Submit
    | FindJob
    | ShowJob
    | ListJobs
    | FetchResults
    | FetchItem
    | TailOutput
    | FetchHistory
    | ListPeers
    | GetStatus
    | Join
    | StopPeer
    | Contacts
    | KeepCall
    | CompactLedger
    | WhereAre
    | Stale
    | BackupCall
    | DataCall
    | MemberCall
    | EventCall
    | KeepBlobs
    | ActCall
    | KeyLook
    | WatchKeys
    | AwaitLock
    | ListLocks
    | QueueCall
    | TaskCall
    | GossipCall
    | GetLoads
    | LogCall
    | CutOffCall
)


# --- answers --------------------------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, array_like=True, tag=1):
    pass


class JobAccepted(msgspec.Struct, frozen=True, array_like=True, tag=2):
    job: JobId
    duplicate: bool


class JobView(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A job as people see it. Counts add up to `tasks`."""

    job: JobId
    name: str
    kind: str  # "program" or "function"
    state: JobState
    tasks: int
    waiting: int
    owned: int
    succeeded: int
    failed: int
    cancelled: int
    segments: int  # results committed so far, counted as in `FetchResults.position`
    attempts_lost: int  # attempts that ended with their peer
    attempts_failed: int  # failed attempts that were retried
    results_refused: int
    submitted_ms: int  # Unix time, for people
    ended_ms: int | None
    submitter: str
    owners: tuple[tuple[PeerId, int], ...] = ()  # tasks that each peer owns now
    finished_by: tuple[tuple[PeerId, int], ...] = ()  # final results by the peer that brought them
    task_set: TaskSet = TaskSet()
    command: str = ""  # what runs, for people
    note: str = ""  # why nothing moves, if nothing moves
    lost: int = 0  # of the succeeded: their large results have no copy left
    short: int = 0  # large results with fewer copies on live peers than the job asked for
    pinned: bool = False
    keep_ms: int | None = None  # how long after its end it is kept; None: until it is removed
    result_bytes: int = 0
    moved: int = 0  # tasks that an owner gave to another peer before it began them
    moves: tuple[tuple[PeerId, PeerId, int], ...] = ()  # from whom, to whom: the first few pairs
    bad_ends: tuple[tuple[str, int], ...] = ()  # attempts by the cause of their end
    delayed: int = 0  # of the waiting: they wait for the moment of their next attempt
    next_attempt_ms: int | None = None  # the first such moment, Unix time, for people
    stopped: str = ""  # why it, or a part of it, was given up
    resumed: int = 0  # attempts that went on from a checkpoint, or should have
    resumptions: tuple[Resumption, ...] = ()  # the newest of the last few tasks
    once: OnceView = OnceView()  # if its tasks must not start twice
    backups: BackupView = BackupView()  # if they may run on several peers
    precedence: PrecedenceView = PrecedenceView()
    after: AfterView = AfterView()


class JobList(msgspec.Struct, frozen=True, array_like=True, tag=4):
    jobs: tuple[JobView, ...]
    total: int


class ResultPage(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """`segments` are in commit order from the asked position; parts of one share its position."""

    segments: tuple[Segment, ...]
    view: JobView
    next_position: int = -1  # where the next page starts; -1 (an older peer): `segments` further
    positions: tuple[int, ...] = ()  # of each segment; what was run again since leaves gaps


class FirstResults(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """The answer to a `Submit` that follows its job: accepted, and so much has ended. Segments from
    the start; not `ended`: `FetchResults` goes on at `next_position`."""

    segments: tuple[Segment, ...]
    next_position: int
    ended: bool


class ItemAnswer(msgspec.Struct, frozen=True, array_like=True, tag=6):
    state: str  # waiting, owned, unknown, succeeded, failed, cancelled
    cause: str  # of the last attempt, if one ended
    item: bytes | None
    owner: PeerId | None


class OutputPiece(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """`known` is False once the task is not running on its owner any more: fetch its item."""

    known: bool
    offset: int  # where the next piece starts
    data: bytes


class History(msgspec.Struct, frozen=True, array_like=True, tag=8):
    events: tuple[Stamped, ...]
    more: bool
    spec: JobSpec | None = None
    demotes: tuple[str, ...] = ()  # causes whose ends put a task of the job behind others


class ContactList(msgspec.Struct, frozen=True, array_like=True, tag=11):
    ages_ms: tuple[tuple[PeerId, int], ...]


class LedgerCompacted(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """What a peer's log and snapshots take on its disk."""

    before_bytes: int
    after_bytes: int
    snapshot_index: int  # the last entry that the newest snapshot stands for
    log_bytes: int  # of `after_bytes`
    snapshots: int  # files that are kept


ReadAnswer = (
    JobView | JobList | ResultPage | ItemAnswer | History | PeerList | KeyLookAnswer | LockList
)


class StaleAnswer(msgspec.Struct, frozen=True, array_like=True, tag=75):
    body: ReadAnswer
    staleness: Staleness


AnswerBody = (
    Done
    | JobAccepted
    | JobView
    | JobList
    | ResultPage
    | FirstResults
    | ItemAnswer
    | OutputPiece
    | History
    | PeerList
    | StatusAnswer
    | ContactList
    | LedgerCompacted
    | Sightings
    | StaleAnswer
    | BackupAnswer
    | BlobAnswer
    | MemberAnswer
    | EventAnswer
    | Following
    | KeptBlobs
    | ActCallAnswer
    | KeyLookAnswer
    | KeyChanges
    | LockNow
    | LockList
    | QueueCallAnswer
    | TaskAnswer
    | GossipAnswer
    | LoadTable
    | LogAnswer
    | CheckpointAnswer
    | SeparationAnswer
)


class Call(msgspec.Struct, frozen=True, array_like=True, tag=30):
    id: int  # chosen by the caller, unique on its connection while the call is open
    body: CallBody


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=31):
    id: int
    body: AnswerBody


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=32):
    id: int
    code: str  # of a class in `model.errors`
    message: str
    retry_after_ms: int = 0
    busy: bool = False  # see `model.errors.Busy`


PeerMessage = RaftMessage | Forward | FeedMessage | StealMessage | Carried  # one way
Message = Opening | PeerMessage | Call | Answer | Failure
