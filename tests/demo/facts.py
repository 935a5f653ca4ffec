"""Made-up outcomes of a demo, small enough to know by heart."""

from __future__ import annotations

from p2psched.demo.digits import Point, Score, reduce_scores
from p2psched.demo.facts import Check, Facts, Outage, PeerFacts, Rerun


def score(family: str, fold: int, *, correct: int = 9) -> Score:
    """Ten answers, `correct` of them right; the others take a 0 for a 1."""
    rows = [[0] * 10 for _ in range(10)]
    rows[1][1], rows[0][1] = correct, 10 - correct
    point = Point(family=family, settings=(("k", 1),), fold=fold)
    return Score(
        point=point, correct=correct, tested=10, confusion=tuple(map(tuple, rows)), fit_s=0.1
    )


SCORES = [score(family, fold) for family in ("one", "two") for fold in range(2)]


def outage(**changes: object) -> Outage:
    given: dict[str, object] = {
        "killed": "a",
        "pid": 101,
        "at_s": 3.0,
        "unfinished": 3,
        "leader": "b",
        "leaderless_ms": 700,
        "how_measured": "from outside",
        "seen_by_peers_ms": 90,
        "client_was_at_killed": True,
        "client_moved_to": "c",
        "restarted_at_s": 6.0,
        "restarted_while_running": True,
        "back_at_s": 7.0,
    }
    return Outage(**{**given, **changes})  # type: ignore[arg-type]  # checked at run time


def facts(*, checks: tuple[Check, ...] = (Check(text="it holds", ok=True),)) -> Facts:
    peers = tuple(
        PeerFacts(
            name=name,
            peer=name * 32,
            address=f"127.0.0.1:74{place}0",
            slots=1,
            pids=(101, 104) if name == "a" else (101 + place,),
            role="leader" if name == "b" else "voter",
            state="alive",
            tasks=place + 1,
        )
        for place, name in enumerate("abc")
    )
    return Facts(
        job="1" * 32,
        reduce_job="2" * 32,
        reduced_by="c",
        tasks=4,
        folds=2,
        images=20,
        winner=reduce_scores(SCORES),
        peers=peers,
        reruns=(Rerun(cause="peer-lost", peer="a", tasks="1-2", count=2, ended_by={"b": 2}),),
        attempts_lost=2,
        results_refused=0,
        outage=outage(),
        checks=checks,
        cluster_s=10.0,
        alone_s=12.0,
        total_s=20.0,
    )
