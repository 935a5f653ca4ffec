"""Every bound on what the outside may send or ask for, and what happens at it."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

# Wire. A longer frame closes the connection before anything is allocated for it.
FRAME_BYTES_MAX: Final = 1 * MIB
# Inflated size of a compressed frame. A frame that claims or yields more closes the connection.
INFLATED_BYTES_MAX: Final = 1 * MIB
NESTING_MAX: Final = 16
CONNECTIONS_MAX: Final = 256
HANDSHAKE_TIMEOUT_S: Final = 5.0
# From the first byte of a frame to its last. A slower sender is disconnected.
FRAME_TIMEOUT_S: Final = 10.0
# Bytes waiting to be written on one link. Peers drop (consensus repeats itself), clients wait.
LINK_BACKLOG_BYTES_MAX: Final = 4 * MIB
CALLS_IN_FLIGHT_MAX: Final = 256  # on one connection; further calls are answered `busy`

# Jobs. Beyond these a submit is refused with a message that names the limit.
JOB_TASKS_MAX: Final = 1_000_000
# Code, arguments and sent files of one job that travel inside its entry; more travels as blobs.
JOB_ARGUMENT_BYTES_MAX: Final = 512 * KIB
# A single argument or file from this size on is a blob of its own.
ARGUMENT_INLINE_BYTES_MAX: Final = 64 * KIB
JOB_NAME_LEN_MAX: Final = 128
JOB_RANGES_MAX: Final = 4096  # of task indices: `0-9,20-29` are two
SUBMITTER_LEN_MAX: Final = 256
COMMAND_LEN_MAX: Final = 200  # of a job's command line as it is shown
CWD_LEN_MAX: Final = 4096
RETRIES_MAX: Final = 100
TASK_INDEX_MAX: Final = 2**32 - 1
ENV_VARS_MAX: Final = 256
SLOTS_MAX: Final = 1024

# Blobs. Larger ones are refused where they are made; a list of their chunks must fit one frame.
BLOB_BYTES_MAX: Final = 8 * GIB
# What a disk and a link are expected to do at least: who waits for a whole blob waits that long.
BLOB_BYTES_PER_S_MIN: Final = 8 * MIB
BLOBS_PER_JOB_MAX: Final = 4096  # code, modules, files and large arguments of one job
OUTPUTS_PER_TASK_MAX: Final = 64  # files that a program's task hands over
COPIES_MAX: Final = 7  # disks that a job may ask its large results to be on
# After a job has ended. It may ask to be kept for longer or shorter; forgotten, it leaves no trace
# but its id.
KEEP_MS_MAX: Final = 3650 * 86_400_000

# Results. A larger value travels as a blob.
RESULT_BYTES_MAX: Final = 64 * KIB
# Captured output that travels with a result: the first and the last bytes of each stream are kept.
OUTPUT_BYTES_MAX: Final = 24 * KIB
# Output of a task on its owner's disk, each stream. The middle is dropped beyond it.
OUTPUT_FILE_BYTES_MAX: Final = 1 * MIB
# Of attempts that printed more than travels, or that told nothing: what a peer's disk keeps of a
# job and in all. The oldest go first.
OUTPUTS_JOB_BYTES_MAX: Final = 64 * MIB
OUTPUTS_BYTES_MAX: Final = 256 * MIB
OUTPUTS_FILES_MAX: Final = 4096  # streams; and never more than a quarter of the free disk

# Jobs that have ended and are remembered; the oldest are forgotten beyond it. Pinned ones stay.
ENDED_JOBS_MAX: Final = 100_000
# Ids of forgotten jobs that stay taken, and for how long: a repeated submit starts nothing new.
FORGOTTEN_IDS_MAX: Final = 1_000_000
FORGOTTEN_MS: Final = 24 * 3600 * 1000

# Ledger. Proposals that don't fit one entry travel in the next. What the coordinator adds to them
# is left out where it would go over: an entry must fit one frame together with its heads.
ENTRY_BYTES_MAX: Final = 640 * KIB
ENTRY_BYTES_WITH_PLACES_MAX: Final = 900 * KIB
# Of the results in one segment, unless one task alone has more.
SEGMENT_BYTES_MAX: Final = 256 * KIB
# Ranges of tasks that a peer may keep over a new incarnation; what is beyond runs again.
KEPT_RANGES_MAX: Final = 4096
# Proposals of one peer that wait for their outcome. Beyond it a submit is answered `busy`.
PENDING_PROPOSALS_MAX: Final = 20_000
# Of commands that wait for a place in an entry: what comes then is dropped, and proposed again.
PROPOSED_BYTES_MAX: Final = 64 * MIB
# Jobs that have not ended, and what their specs take in memory: beyond them a submit is answered
# `busy`. Each peer looks for itself, so a few more may come in at once.
RUNNING_JOBS_MAX: Final = 100_000
RUNNING_BYTES_MAX: Final = 256 * MIB
# Of entries since the last snapshot: then the next one stands for them, and they leave the log.
SNAPSHOT_LOG_BYTES: Final = 16 * MIB
