"""`submit-job --max-disconnect|--spool`: a job and peers that lose the majority."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import typer

from p2psched.cli.options import Target, duration
from p2psched.cli.spool import EXIT_SPOOLED, say_receipt
from p2psched.client.disconnected import Disconnected
from p2psched.client.functions import PackedJob
from p2psched.client.session import Session
from p2psched.model.errors import Unavailable
from p2psched.model.messages import Submit

_MaxDisconnect = Annotated[
    str | None,
    typer.Option(
        "--max-disconnect",
        metavar="DURATION",
        help="How long a peer that is cut off goes on with it. Default: as it was started.",
    ),
]
_Spool = Annotated[
    bool,
    typer.Option(
        "--spool",
        help="Without a majority, leave it with the peer that answers: exit 8, a receipt.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """The options of it."""

    max_disconnect: _MaxDisconnect = None
    spool: _Spool = False

    def noted_in(self, packed: PackedJob) -> PackedJob:
        """Raises UsageError."""
        if self.max_disconnect is None:
            return packed
        limit_ms = round(duration(self.max_disconnect, "--max-disconnect") * 1000)
        spec = msgspec.structs.replace(packed.spec, max_disconnect_ms=limit_ms)
        spec.__post_init__()
        return PackedJob(spec, packed.uploads)


async def leave_in_spool(
    session: Session, target: Target, submit: Submit, error: Unavailable
) -> None:
    """After nobody could accept it. Raises the error if nobody takes it, typer.Exit else."""
    try:
        receipt = await Disconnected(session).spool(submit.job, submit.spec)
    except Unavailable:
        raise error from None
    say_receipt(receipt, submit.spec.name, target.output)
    raise typer.Exit(EXIT_SPOOLED)
