"""Why a peer stops, in words for whoever runs it."""

from __future__ import annotations

import logging

from p2psched.model.errors import InternalError, P2PSchedError

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
