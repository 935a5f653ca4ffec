"""Pages of history, however its events were stored together."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2psched.model.commands import (
    Event,
    Granted,
    JobAdded,
    JobEnded,
    JobForgotten,
    PeerWentDown,
    ResultRefused,
    Stamped,
)
from p2psched.model.history_events import HistoryCut
from p2psched.model.ids import JobId
from p2psched.model.job import JobState
from p2psched.model.taskset import TaskSet
from p2psched.store import results_cut
from p2psched.store.results import SqliteResults
from p2psched.store.results_rows import HISTORY_ROW_EVENTS
from p2psched.testing.sim_results import MemoryResults
from tests.store_results.test_results_contract import JOB, OTHER, PEER, stamped

PEERS = JobId("")
KINDS: tuple[Event, ...] = (
    ResultRefused(JOB, 7, TaskSet.of(0, 3)),
    ResultRefused(OTHER, 7, TaskSet.of(0, 3)),
    PeerWentDown(PEER, 1, "silent"),
    JobForgotten(OTHER),
    JobEnded(JOB, JobState.FAILED),
)
# A store: commands, each of some events, each of one of the kinds.
COMMANDS = st.lists(st.lists(st.sampled_from(KINDS), max_size=5), max_size=30)
PAGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=4)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(COMMANDS, max_size=4), PAGES)
def test_any_page_of_history_is_that_of_single_events(
    tmp_path: Path, stores: list[list[list[Event]]], pages: list[tuple[int, int]]
) -> None:
    path = tmp_path / "any.db"
    for file in tmp_path.glob("any.db*"):
        file.unlink()
    with closing(SqliteResults(path)) as on_disk, closing(MemoryResults()) as in_memory:
        index = 0
        for entry, commands in enumerate(stores, start=1):
            events: list[Stamped] = []
            for command in commands:
                index += 1
                events += (stamped(index, event) for event in command)
            on_disk.store(events, entry)
            in_memory.store(events, entry)
        for job in (JOB, OTHER, PEERS):
            for after, limit in pages:
                expected = in_memory.history(job, after, limit)
                assert on_disk.history(job, after, limit) == expected


def test_a_long_history_is_read_in_pages_of_any_size(tmp_path: Path) -> None:
    """One command has more events than a row usually holds."""
    count = 5 * HISTORY_ROW_EVENTS
    given = [stamped(1, JobAdded(JOB))]
    given += [stamped(2, _granted(number)) for number in range(count)]
    given += [stamped(3 + number, _granted(number)) for number in range(count)]
    with closing(SqliteResults(tmp_path / "results.db")) as results:
        results.store(given, 1)
        for limit in (1, 7, HISTORY_ROW_EVENTS, 10 * count):
            found: list[Stamped] = []
            while page := results.history(JOB, found[-1].index if found else 0, limit):
                found += page
            assert found == given
        (rows,) = results._db.execute("SELECT count(*) FROM history").fetchone()
        assert rows <= 2 + count // HISTORY_ROW_EVENTS


def _granted(number: int) -> Event:
    return Granted(JOB, number, PEER, 1, TaskSet.of(number, number + 1))


def test_a_long_history_loses_its_middle_and_says_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("JOB_BYTES_MAX", 60_000), ("HEAD_BYTES", 5_000), ("LOOK_BYTES", 10_000)):
        monkeypatch.setattr(results_cut, name, size)
    store = SqliteResults(tmp_path / "results.db")
    count = 3_000
    for index in range(1, count + 1):
        grant = Granted(JOB, index, PEER, 1, TaskSet.of(index, index + 1))
        store.store([Stamped(index, index, index, grant)], index)
    found: list[Stamped] = []
    while page := store.history(JOB, found[-1].index if found else 0, 100):
        found += page
    cuts = [one.event for one in found if isinstance(one.event, HistoryCut)]
    assert len(cuts) == 1
    assert len(found) - 1 + cuts[0].events == count
    assert [found[0].index, found[-1].index] == [1, count]
    assert len(found) < count // 2
    place = next(n for n, one in enumerate(found) if one.event == cuts[0])
    assert found[place].index - found[place - 1].index == cuts[0].events
    assert found[place + 1].index == found[place].index + 1
    store.close()
