"""Configuration of a peer: one frozen value, passed down by constructors. No environment variable
is read below `cli`."""

from __future__ import annotations

from typing import Final

import msgspec

from p2psched.model.isolation import SANDBOX_LABEL
from p2psched.model.limits import GIB, KEEP_MS_MAX, KIB, MIB, SLOTS_MAX, SNAPSHOT_LOG_BYTES
from p2psched.model.needs import (
    AVERAGE_WEIGHT,
    NAME_LABEL,
    ZONE_LABEL,
    Labels,
    Offers,
    is_label_value,
)
from p2psched.model.stalls import STALL_MS, STALL_MS_MIN

# What differs from the defaults, which are for one machine or a LAN. All peers of a cluster should
# have the same: a leader's heartbeat must be short beside the patience of the others.
TIMINGS: Final[dict[str, dict[str, int]]] = {
    "lan": {},
    "wan": {  # machines in several places
        "heartbeat_ms": 250,
        "election_ms_min": 1_500,
        "election_ms_max": 3_000,
        "detection_window_ms": 6_000,
        "probe_ms": 2_000,
        "probe_ack_ms": 1_000,
    },
    "edge": {  # slow disks and links that stall
        "heartbeat_ms": 500,
        "election_ms_min": 3_000,
        "election_ms_max": 6_000,
        "detection_window_ms": 15_000,
        "probe_ms": 5_000,
        "probe_ack_ms": 3_000,
    },
}

LEDGERS: Final = ("raft", "raftos")  # engines: the embedded one, and a lab engine (ADR 0038)


ZONE_LEN_MAX: Final = 64
MAX_DISCONNECT_MS: Final = 600_000


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Times are milliseconds. Defaults suit a LAN or one machine."""

    name: str
    data: str  # the data folder
    listen: str  # host:port; port 0 takes a free one
    slots: int  # tasks at a time; 0 runs nothing
    python: str  # interpreter of the workers
    runtime_dir: str  # where the records of local peers are
    join: tuple[str, ...] = ()  # addresses of peers of the cluster; empty: found one, or restart
    advertise: str | None = None  # address that others reach this peer at, if not `listen`
    secret_file: str | None = None
    insecure: bool = False  # allow to listen beyond loopback without transport security
    votes: bool | None = True  # False: never; None: only as the founder, who has to
    # Hold no ledger: follow a feed. None: once enough others hold it. Never who holds it already.
    follows: bool | None = None
    embedded: bool = False  # lives in another program's process
    timing: str = "lan"  # the preset that the next four came from: see `with_timing`
    heartbeat_ms: int = 100
    election_ms_min: int = 500
    election_ms_max: int = 1000
    detection_window_ms: int = 2500
    # While this peer coordinates: how long ended jobs are kept, and how much of results in all.
    keep_ms: int = 7 * 86_400_000
    keep_bytes: int = 16 * GIB
    leave_ms: int = 2000  # a clean stop waits so long for the ledger to take the tasks back
    grace_ms: int = 500  # between SIGTERM and SIGKILL of a task's process
    # Of entries; then a snapshot stands for them, and they leave the log.
    snapshot_log_bytes: int = SNAPSHOT_LOG_BYTES
    zone: str = ""  # the failure domain that it is in; empty: one of its own
    replace_ms: int = 300_000  # while it leads: a voter that is away for so long is replaced
    anew: bool = False  # if it was removed, set its folder aside and join as a new peer
    # Free on the disk of the data folder: with less the peer takes no jobs, tasks and data, and
    # doesn't lead. None: 64 MiB, or a sixteenth of a disk below 1 GiB.
    space_min: int | None = None
    ledger: str | None = None  # engine, one of LEDGERS; None: what the folder has, or `raft`
    group: tuple[str, ...] = ()  # of a raftos ledger: addresses of all its peers
    # Gossip: a peer is probed in so long, and others are asked to try after the second. Part of the
    # presets above.
    probe_ms: int = 1_000
    probe_ack_ms: int = 500
    ballast: int | None = None  # kept for when there is none: 16 MiB, or a 32nd of a small disk
    labels: Labels = ()  # for jobs that choose their peers; `name` and `zone` are there anyway
    gpus: int | None = None  # to share out among tasks; None: those that are found
    memory_mib: int | None = None  # likewise; None: all of the machine
    weight: int = AVERAGE_WEIGHT  # how much it can do, per mille of an average peer
    policy_file: str | None = None  # a placement policy of the user's own
    duty: int = 1_000  # per mille of the time that its slots may be in use
    battery_min: int = 10  # per cent: with less, and unplugged, the peer drains itself; 0: never
    checkpoint_budget: int = 256 * MIB  # bytes a minute that go to copies of checkpoints
    retry_percent: int = 10  # while it leads: of all slots, for retries beside healthy jobs
    # Without a majority: how long it goes on with its tasks, of jobs that don't say.
    max_disconnect_ms: int = MAX_DISCONNECT_MS
    stall_ms: int = STALL_MS  # work that could run and does not is a fault after so long
    # Folders where it may make control groups; none: its own group, if that was delegated to it.
    cgroups: tuple[str, ...] = ()
    pass_env: tuple[str, ...] = ()  # variables of its environment that tasks see besides

    def __post_init__(self) -> None:
        if self.ledger not in (None, *LEDGERS):
            raise ValueError(f"a ledger is one of {', '.join(LEDGERS)}, not {self.ledger!r}")
        if not 0 <= self.slots <= SLOTS_MAX:
            raise ValueError(f"slots are 0 to {SLOTS_MAX}, not {self.slots}")
        if not 0 <= self.keep_ms <= KEEP_MS_MAX or self.keep_bytes < 0:
            raise ValueError("results are kept for up to ten years, and for 0 bytes or more")
        self._check_patience()
        if (self.space_min or 0) < 0 or (self.ballast or 0) < 0 or self.checkpoint_budget < 0:
            raise ValueError("space to keep free, ballast and budgets are 0 bytes or more")
        if self.replace_ms < 1 or len(self.zone) > ZONE_LEN_MAX or not _is_word(self.zone):
            raise ValueError(
                f"a zone has up to {ZONE_LEN_MAX} printable characters and no spaces, and a voter "
                "is replaced after some time"
            )
        if not 0 < self.probe_ack_ms < self.probe_ms:
            raise ValueError("a probe takes longer than the wait before others are asked")
        if self.snapshot_log_bytes < KIB:
            raise ValueError("a snapshot is worth 1 KiB of the log at least")
        self._check_offers()
        if self.detection_window_ms < 2 * self.election_ms_min:
            raise ValueError("the detection window must be at least two election timeouts")

    def _check_offers(self) -> None:
        """Raises ValueError."""
        if SANDBOX_LABEL in dict(self.labels):
            raise ValueError(f"whether the label {SANDBOX_LABEL!r} is true a peer finds out itself")
        self.offers(gpus=self.gpus or 0, memory_mib=self.memory_mib or 0).__post_init__()

    def _check_patience(self) -> None:
        if not 0 <= self.max_disconnect_ms <= KEEP_MS_MAX:
            raise ValueError("a peer that is cut off goes on with its tasks for up to ten years")
        if not (0 <= self.retry_percent <= 100 and 0 <= self.battery_min <= 100):
            raise ValueError(
                "the budget for retries is 0 to 100 percent of all slots, and the least charge of "
                "a battery 0 to 100 percent"
            )
        if not 0 < self.duty <= 1_000:
            raise ValueError("a duty cycle is more than none of the time, and at most all of it")
        if self.stall_ms < STALL_MS_MIN:
            raise ValueError(f"nothing stands still before {STALL_MS_MIN} ms have passed")

    def offers(self, *, gpus: int, memory_mib: int, sandboxes: tuple[str, ...] = ()) -> Offers:
        """What it has beside slots, where nobody says otherwise."""
        own = {NAME_LABEL: self.name, ZONE_LABEL: self.zone}
        if sandboxes:
            own[SANDBOX_LABEL] = sandboxes[0]
        labels = {key: value for key, value in own.items() if is_label_value(value)}
        return Offers(
            labels=tuple(sorted((labels | dict(self.labels)).items())),
            gpus=gpus if self.gpus is None else self.gpus,
            memory_mib=memory_mib if self.memory_mib is None else self.memory_mib,
            weight=self.weight,
        )

    def with_timing(self, timing: str) -> Config:
        """With the timers of a preset. Raises ValueError if there is none of that name."""
        if timing not in TIMINGS:
            raise ValueError(f"timing is one of {', '.join(TIMINGS)}, not {timing!r}")
        return msgspec.structs.replace(self, timing=timing, **TIMINGS[timing])


def _is_word(text: str) -> bool:
    return text.isprintable() and " " not in text
