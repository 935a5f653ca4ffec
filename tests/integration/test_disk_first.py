"""Nobody speaks before the disk has it (P2), seen from outside the process."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from p2psched.cli.demo_watch import statuses
from p2psched.client.functions import calls, pack
from p2psched.client.session import Session
from p2psched.model.ids import JobId
from p2psched.model.messages import Answer, GetStatus, JobAccepted, Submit
from p2psched.model.raft import AppendReply, VoteReply
from p2psched.model.status_messages import StatusAnswer
from p2psched.store.folder import read_secret_file
from tests.cluster import LiveCluster
from tests.integration import work
from tests.integration.rig import Rig
from tests.integration.trace import Durable, Sent, Step, steps, traced

SUBMITS: Final = 30

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="needs strace: apt-get install strace"
    ),
]


def test_no_ack_and_no_vote_leaves_a_process_before_its_sync(rig: Rig, tmp_path: Path) -> None:
    """Two followers are traced while jobs run, the leader dies, and one of them votes."""

    async def story() -> dict[str, Durable]:
        leader = await rig.leader()
        followers = [name for name in rig.cluster.peers if name != leader]
        with ExitStack() as stack:
            for name in followers:
                pid = rig.cluster.peers[name].pid
                try:
                    stack.enter_context(traced(pid, tmp_path / name))
                except PermissionError as error:
                    pytest.skip(f"this machine lets nobody trace: {error}")
            found = await statuses(rig.cluster)
            began = {
                name: Durable(index=found[name].last_index, term=found[name].term)
                for name in followers
            }
            async with rig.client(leader) as client:
                for _ in range(20):
                    await (await client.map(work.square, range(10))).results()
                rig.cluster.kill(leader)
                for _ in range(20):
                    await (await client.map(work.square, range(10))).results()
        return began

    began = asyncio.run(story())
    acks = votes = 0
    for name, durable in began.items():
        for step in steps(tmp_path / name):
            durable.see(step)
            acks += _judge_ack(step, durable)
            votes += _judge_vote(step, durable)
        assert durable.syncs > 0
    assert acks >= 20, "the trace must have seen what it judges"
    assert votes >= 1


def test_no_submit_is_answered_before_its_sync(live: LiveCluster, tmp_path: Path) -> None:
    """One peer that runs nothing, asked for one job after another: at the n-th answer the disk has
    n entries more than before the first question."""
    peer = live.start("a", slots=0)
    spec = pack(work.square, calls([1]), modules="none").spec
    secret = read_secret_file(peer.data / "secret")

    async def story() -> int:
        session = Session([peer.address], secret=secret)
        try:
            # The opening of the connection is no frame that could be read here.
            found = await session.call(GetStatus(), StatusAnswer)
            try:
                with traced(peer.pid, tmp_path / "trace"):
                    for number in range(SUBMITS):
                        job = JobId(f"{number:032x}")
                        await session.call(Submit(job, spec), JobAccepted)
            except PermissionError as error:
                pytest.skip(f"this machine lets nobody trace: {error}")
        finally:
            await session.__aexit__()
        return found.last_index

    began = asyncio.run(story())
    durable = Durable(index=began, term=0)
    answered: list[int] = []
    for step in steps(tmp_path / "trace"):
        durable.see(step)
        match step:
            case Sent(message=Answer(body=JobAccepted())):
                answered.append(durable.index)
    assert len(answered) == SUBMITS
    assert all(index > began + number for number, index in enumerate(answered)), answered


def _judge_ack(step: Step, durable: Durable) -> bool:
    match step:
        case Sent(message=AppendReply(ok=True, match=match)):
            assert match <= durable.index, f"acked {match}, the disk has {durable.index}"
            return True
        case _:
            return False


def _judge_vote(step: Step, durable: Durable) -> bool:
    match step:
        case Sent(message=VoteReply(granted=True, pre=False, term=term)):
            assert term <= durable.term, f"voted in {term}, the disk has {durable.term}"
            return True
        case _:
            return False
