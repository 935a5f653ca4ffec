"""What `p2psched demo` does, in order: start, submit, kill, restart, reduce, compare.

It talks to the cluster only through the public client, and to the processes only by pid. It
collects facts and checks; whether they make a success is for the reader of `Facts.ok`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from p2psched.cli.demo_checks import checks_of, reruns_of
from p2psched.cli.demo_watch import HOW_MEASURED, wait_agreement, wait_leader
from p2psched.client.client import Client, Job
from p2psched.client.results import results_of
from p2psched.demo import alone
from p2psched.demo.cluster import LocalCluster
from p2psched.demo.digits import Point, Score, Winner, grid, reduce_scores, train
from p2psched.demo.facts import Facts, Outage, PeerFacts
from p2psched.demo.progress import Stage
from p2psched.model.commands import Stamped
from p2psched.model.errors import TaskFailed, Unavailable
from p2psched.model.ids import short
from p2psched.model.job import JobState
from p2psched.model.messages import JobView
from p2psched.model.peer_messages import PeerView

NAMES: Final = "abcdefghi"
VOTERS: Final = 3  # of a cluster of three or more peers
KILL_SHARE: Final = 0.15  # of the tasks is done when the leader is killed
POLL_S: Final = 0.1
PATIENCE_S: Final = 60.0  # for anything but the tasks themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for."""

    peers: int
    slots: int  # of each peer
    kill: bool
    short: bool


class Story:
    """Made once, told once."""

    def __init__(self, plan: Plan, cluster: LocalCluster, stage: Stage) -> None:
        self._plan = plan
        self._cluster = cluster
        self._stage = stage
        self._points: list[Point] = grid(short=plan.short)
        self._scores: dict[int, Score] = {}
        self._seen: Counter[int] = Counter()  # index of a task -> results of it that came
        self._alone: list[Score] = []
        self._outage: Outage | None = None
        self._cluster_s = self._alone_s = 0.0

    async def tell(self) -> Facts:
        """Raises P2PSchedError if the story can't go on."""
        await self._start_peers()
        first = self._cluster.peers[NAMES[0]]
        async with Client(first.address, runtime_dir=self._cluster.runtime_dir) as client:
            await self._wait_voters(client)
            job = await client.map(train, self._points, name="digits")
            total = len(self._points)
            self._stage.tell(f"{total} tasks submitted through {first.name}: job {short(job.id)}")
            async with asyncio.TaskGroup() as group:
                searching = group.create_task(self._search(client, job))
                group.create_task(self._run_alone())
                if self._plan.kill:
                    group.create_task(self._disturb(client, job))
            return await self._collect(client, job, *searching.result())

    # --- the cluster ------------------------------------------------------------------------------

    async def _start_peers(self) -> None:
        names, slots = NAMES[: self._plan.peers], self._plan.slots
        self._stage.tell(f"starting {len(names)} peers on loopback in {self._cluster.folder}")
        self._cluster.start(names[0], slots=slots)
        await self._cluster.wait_listening()
        for name in names[1:]:
            self._cluster.start(name, slots=slots)
        await self._cluster.wait_listening()

    async def _wait_voters(self, client: Client) -> None:
        wanted = self._plan.peers

        async def ready() -> bool:
            peers = await client.peers()
            voters = sum(view.role in ("leader", "voter") for view in peers)
            return len(peers) == wanted and (wanted < VOTERS or voters >= VOTERS)

        await _wait(ready, what="the peers to find each other")
        leader, _ = await wait_leader(self._cluster)
        pids = ", ".join(f"{p.name} (pid {p.pid})" for p in self._cluster.peers.values())
        self._stage.tell(f"{pids}: {leader} leads")

    # --- the work ---------------------------------------------------------------------------------

    async def _search(self, client: Client, job: Job) -> tuple[JobView, Winner]:
        began_s = self._stage.elapsed_s
        async for page in job.pages():
            for segment in page.segments:
                for result in results_of(job.id, segment):
                    self._seen[result.index] += 1
                    if result.error is not None:
                        raise TaskFailed(f"a task of the demo failed: {result.error}")
                    assert isinstance(result.value, Score)
                    self._scores[result.index] = result.value
            self._stage.count("cluster", len(self._scores), len(self._points))
        self._cluster_s = self._stage.elapsed_s - began_s
        self._stage.tell(f"the cluster is done after {self._cluster_s:.1f} s")
        return await self._reduce(client)

    async def _run_alone(self) -> None:
        """The same grid in one process, beside the cluster: after it, the demo would take twice as
        long."""
        began_s = self._stage.elapsed_s
        argv = [sys.executable, "-m", alone.__name__, *(["--short"] if self._plan.short else [])]
        with (self._cluster.folder / "alone.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                self._alone.append(alone.decode(line))
                self._stage.count("one process", len(self._alone), len(self._points))
            if await process.wait() != 0:
                text = (self._cluster.folder / "alone.log").read_text(errors="replace")
                raise TaskFailed(f"the comparison in one process failed:\n{text.strip()[-500:]}")
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()  # else its pipe is open when the loop closes
        self._alone_s = self._stage.elapsed_s - began_s
        self._stage.tell(f"one process is done after {self._alone_s:.1f} s")

    async def _reduce(self, client: Client) -> tuple[JobView, Winner]:
        scores = [self._scores[index] for index in range(len(self._points))]
        task = client.submit(reduce_scores, scores)
        winner = await task
        assert isinstance(winner, Winner)
        self._stage.tell(f"the reduce task chose {winner.best.candidate}")
        return await task.job.show(), winner

    # --- the disturbance --------------------------------------------------------------------------

    async def _disturb(self, client: Client, job: Job) -> None:
        victim, view = await self._choose(client, job)
        unfinished = view.tasks - view.succeeded
        was_here = client.session.address == self._cluster.peers[victim].address
        at_s = self._stage.elapsed_s
        pid = self._cluster.kill(victim)
        self._stage.tell(
            f"kill -9 {pid}: {victim}, the leader, while {unfinished} tasks are unfinished",
            important=True,
        )
        leader, status = await wait_leader(self._cluster, but=victim)
        leaderless_ms = round((self._stage.elapsed_s - at_s) * 1000)
        self._stage.tell(f"{leader} leads after {leaderless_ms} ms")

        async def granted_anew() -> bool:
            view = await job.show()
            return view.attempts_lost > 0 or view.state is not JobState.RUNNING

        await _wait(granted_anew, what=f"the tasks of {victim} to be granted to others")
        view = await job.show()
        lost = _tasks(view.attempts_lost)
        self._stage.tell(f"{lost} of {victim} granted to others; restarting {victim}")
        restarted_s = self._stage.elapsed_s
        self._cluster.restart(victim)
        back_s = await self._wait_back(client, victim)
        self._outage = Outage(
            killed=victim,
            pid=pid,
            at_s=at_s,
            unfinished=unfinished,
            leader=leader,
            leaderless_ms=leaderless_ms,
            how_measured=HOW_MEASURED,
            seen_by_peers_ms=status.leaderless_ms,
            client_was_at_killed=was_here,
            client_moved_to=self._name_at(client.session.address),
            restarted_at_s=restarted_s,
            restarted_while_running=view.state is JobState.RUNNING,
            back_at_s=back_s,
        )

    async def _choose(self, client: Client, job: Job) -> tuple[str, JobView]:
        """The leader, once some tasks are done and it owns others."""
        enough = round(KILL_SHARE * len(self._points))
        while True:
            name, _ = await wait_leader(self._cluster)
            peers = {view.info.name: view for view in await client.peers()}
            view = await job.show()
            if view.succeeded >= enough and dict(view.owners).get(peers[name].info.peer):
                return name, view
            if view.state is not JobState.RUNNING:
                raise Unavailable("the tasks were over before the leader could be killed")
            await asyncio.sleep(POLL_S)

    async def _wait_back(self, client: Client, name: str) -> float:
        """Until the ledger knows the new process."""
        await self._cluster.wait_listening(name)
        peer = self._cluster.peers[name]

        async def back() -> bool:
            views = {view.info.pid: view for view in await client.peers()}
            return peer.pid in views and views[peer.pid].state == "alive"

        await _wait(back, what=f"{name} to come back")
        self._stage.tell(f"{name} is back as pid {peer.pid}, and follows")
        return self._stage.elapsed_s

    def _name_at(self, address: str) -> str:
        return next(name for name, p in self._cluster.peers.items() if p.address == address)

    # --- the end ----------------------------------------------------------------------------------

    async def _collect(
        self, client: Client, job: Job, reduce_job: JobView, winner: Winner
    ) -> Facts:
        view = await job.show()
        events = await _whole_history(job)
        agreed = await wait_agreement(self._cluster)
        peers = await client.peers()
        names = {peer.info.peer: peer.info.name for peer in peers}
        done_by = dict(view.finished_by)
        reruns = reruns_of([stamped.event for stamped in events], names)
        checks = checks_of(
            view=view,
            seen=self._seen,
            scores=[self._scores[index] for index in range(len(self._points))],
            alone=self._alone,
            winner=winner,
            reruns=reruns,
            outage=self._outage,
            agreed=agreed,
        )
        return Facts(
            job=job.id,
            reduce_job=reduce_job.job,
            reduced_by=", ".join(names[peer] for peer, _ in reduce_job.finished_by),
            tasks=view.tasks,
            folds=winner.best.folds,
            images=sum(map(sum, winner.confusion)),
            winner=winner,
            peers=tuple(self._peer_facts(peer, done_by.get(peer.info.peer, 0)) for peer in peers),
            reruns=reruns,
            attempts_lost=view.attempts_lost,
            results_refused=view.results_refused,
            outage=self._outage,
            checks=checks,
            cluster_s=self._cluster_s,
            alone_s=self._alone_s,
            total_s=self._stage.elapsed_s,
        )

    def _peer_facts(self, view: PeerView, tasks: int) -> PeerFacts:
        return PeerFacts(
            name=view.info.name,
            peer=view.info.peer,
            address=view.info.address,
            slots=view.info.slots,
            pids=tuple(self._cluster.peers[view.info.name].pids),
            role=view.role,
            state=view.state,
            tasks=tasks,
        )


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


async def _whole_history(job: Job) -> list[Stamped]:
    events: list[Stamped] = []
    while True:
        page = await job.history(after=events[-1].index if events else 0)
        events += page.events
        if not page.more:
            return events


async def _wait(condition: Callable[[], Awaitable[bool]], *, what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await condition():  # noqa: ASYNC110 (other processes set no event)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise Unavailable(f"waited {PATIENCE_S:.0f} s for {what}, in vain") from None
