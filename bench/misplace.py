"""Work that is placed badly on purpose: a job and its placement, all on one peer, in one entry of
the ledger, as if a scheduler had been wrong.
"""

from __future__ import annotations

import asyncio
import random

from p2psched.client.client import Client
from p2psched.client.job import Job
from p2psched.model.commands import Command, Envelope, Place, SubmitJob
from p2psched.model.errors import P2PSchedError, Unavailable
from p2psched.model.ids import JobId, PeerId, new_id
from p2psched.model.job import JobSpec
from p2psched.model.messages import Forward
from p2psched.net.auth import Identity
from p2psched.net.dial import connect
from p2psched.net.link import Handlers

PATIENCE_S = 5.0


async def submit_on(client: Client, secret: bytes, spec: JobSpec, name: str) -> Job:
    """Submit a job all of whose tasks belong to the peer of that name. Raises Unavailable if the
    leader doesn't take it."""
    rng = random.SystemRandom()
    job = JobId(new_id(rng))
    views = await client.peers()
    leader = next(view.info for view in views if view.role == "leader")
    victim = next(view.info for view in views if view.info.name == name)
    commands: tuple[Command, ...] = (
        SubmitJob(job, spec),
        Place(job, spec.tasks, victim.peer, victim.incarnation),
    )
    me = PeerId(new_id(rng))
    identity = Identity(peer=me, address="127.0.0.1:1", cluster=(await client.status()).cluster)
    connection = await connect(
        leader.address,
        identity=identity,
        secret=secret,
        handlers=Handlers(on_message=lambda *_: None),
    )
    try:
        envelopes = tuple(Envelope(me, number, c) for number, c in enumerate(commands, 1))
        connection.send_nowait(Forward(envelopes))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await client.job(job)
                except P2PSchedError:
                    await asyncio.sleep(0.005)
    except TimeoutError:
        raise Unavailable("the leader did not take a job that was placed badly") from None
    finally:
        connection.close()
