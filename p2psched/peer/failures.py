"""Why a peer stops, in words for whoever runs it."""

from __future__ import annotations

import errno
import logging

from p2psched.model.errors import Damaged, InternalError, P2PSchedError, Refused, Removed
from p2psched.model.ids import PeerId, short
from p2psched.store.folder import DataFolder

log = logging.getLogger(__name__)


def failure_of(error: BaseException) -> P2PSchedError:
    """An error of ours as it is; any other is a bug, and is logged as one."""
    if isinstance(error, P2PSchedError):
        return error
    log.critical("bug", exc_info=error)
    return InternalError(
        f"a bug in p2psched ({type(error).__name__}: {error}): this peer stops, its tasks run "
        "elsewhere; please report the log above"
    )


def write_failure(folder: DataFolder, error: OSError) -> P2PSchedError:
    """Why a peer stops whose ledger can't be written or read (fsync is never tried again)."""
    where = folder.ledger_path
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(f"no space left for {where}: free some, then start this peer again")
    return Damaged(
        f"{where} can't be written or read ({error.strerror}): repair the disk, then start this "
        "peer again"
    )


def was_removed(name: str, peer: PeerId, data: str = "") -> Removed:
    folder = f"its folder {data}" if data else "its folder"
    return Removed(
        f"peer {name} ({short(peer)}) was removed from its cluster, and nobody takes it back under "
        f"this identity: start it with --anew, which sets {folder} aside and joins as a new peer, "
        "or with another --data and --join"
    )
