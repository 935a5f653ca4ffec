"""Nobody speaks before the disk has it (P2), seen from outside the process."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2psched.cli.demo_watch import statuses
from p2psched.model.raft import AppendReply, VoteReply
from tests.integration import work
from tests.integration.rig import Rig
from tests.integration.trace import Durable, Sent, Step, steps, traced

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
