"""Callers of a simulated cluster: when they ask again, and when they have heard enough."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from p2psched.model.commands import Acknowledged, Cancel, Command, Outcome, Rejected, SubmitJob
from p2psched.model.ids import JobId
from p2psched.model.taskset import TaskSet
from p2psched.testing.sim import SimCluster
from p2psched.testing.sim_callers import Callers
from p2psched.testing.sim_items import AskedHere, Item
from p2psched.testing.sim_jobs import sim_job
from p2psched.testing.sim_peer import SimPeer

JOB = JobId("a" * 32)
NOT_THERE = Rejected("not-found", "there is no such job")
SUBMIT = SubmitJob(JOB, sim_job(TaskSet.of(0, 1), mean_us=1_000))


class Hall:
    """Peers that say what the test says."""

    def __init__(self, peers: list[SimPeer]) -> None:
        self.rng = random.Random(0)
        self.peers = peers
        self.asked: list[int] = []  # tags
        self._later: list[Callable[[], None]] = []

    def after(self, delay_ms: float, act: Callable[[], None]) -> None:
        self._later.append(act)

    def bring(self, delay_us: int, number: int, process: int, item: Item) -> None:
        if isinstance(item, AskedHere):
            self.asked.append(item.tag)

    def pass_time(self) -> None:
        later, self._later = self._later, []
        for act in later:
            act()


class Asked:
    def __init__(self) -> None:
        self.hall = Hall(SimCluster(seed=0, peers=1).peers)
        self.callers = Callers(self.hall)
        self.heard: list[Outcome] = []

    def ask(self, command: Command, *answers: Outcome) -> None:
        self.callers.ask(command, self.heard.append)
        for answer in answers:
            call = self.callers.on_answered(self.hall.asked[-1])
            assert call is not None, "somebody waits for it"
            call[1](answer)
            self.hall.pass_time()


def test_who_asks_for_a_job_that_is_not_there_asks_again() -> None:
    asked = Asked()
    asked.ask(Cancel(JOB), NOT_THERE, NOT_THERE, Acknowledged())
    assert (asked.heard, asked.callers.waiting) == ([Acknowledged()], 0)


def test_a_job_that_was_forgotten_does_not_come_back() -> None:
    asked = Asked()
    gone = Rejected("not-found", "it was forgotten")
    asked.ask(Cancel(JOB), gone)
    assert (asked.heard, asked.callers.waiting) == ([gone], 0)


def test_a_job_that_was_refused_is_not_waited_for() -> None:
    asked = Asked()
    refusal = Rejected("refused", "no peer can run this job, now or later")
    asked.ask(SUBMIT, refusal)
    asked.ask(Cancel(JOB), NOT_THERE)
    assert (asked.heard, asked.callers.waiting) == ([refusal, NOT_THERE], 0)


@pytest.mark.parametrize("command", [SUBMIT, Cancel(JOB)])
def test_a_refused_job_does_not_keep_callers_from_asking_a_peer_without_a_ledger(
    command: Command,
) -> None:
    asked = Asked()
    asked.ask(SUBMIT, Rejected("refused", "not this one"))
    asked.ask(command, Rejected("unavailable", "no leader"), Acknowledged())
    assert (asked.heard[1:], asked.callers.waiting) == ([Acknowledged()], 0)
