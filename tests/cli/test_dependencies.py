"""`--after` as people type it: the commands of docs/dependencies.md run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import LiveCluster

pytestmark = pytest.mark.process

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs/dependencies.md").read_text()
BLOCKS: Final = dict(re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))

GOES_ON: Final = ("--on-parent-fail", "continue")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """A cluster of one peer."""
    with LiveCluster(tmp_path_factory.mktemp("dependencies")) as cluster:
        cluster.start("a", slots=2)
        yield cluster


def shown(cluster: LiveCluster, name: str) -> dict[str, object]:
    job: dict[str, object] = json.loads(cluster.ok("job", "show", name, "-o", "json"))["job"]
    return job


def waiting(cluster: LiveCluster, name: str) -> None:
    """A job that does not end by itself, and one after it."""
    cluster.ok("submit-job", "--name", f"{name}-first", "--", "sleep", "600")
    cluster.ok("submit-job", "--name", name, "--after", f"{name}-first", "--", "true")


def test_the_submits_of_the_page_run_in_their_order(one: LiveCluster) -> None:
    for command in BLOCKS["sh"].splitlines():
        done = one.run(*shlex.split(command)[1:])
        assert done.returncode == 0, done.stderr
    job = shown(one, "report")
    assert isinstance(job["after"], list)
    assert [parent["name"] for parent in job["after"]] == ["left", "right"]


def test_the_python_of_the_page_runs(one: LiveCluster) -> None:
    program = f"import asyncio\n{BLOCKS['python']}\nprint(asyncio.run(main()))\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=one.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "10.0\n", done.stderr


def test_a_job_says_what_it_waits_for(one: LiveCluster) -> None:
    waiting(one, "second")
    first = str(shown(one, "second-first")["id"])[:8]
    assert f"waits for {first}" in one.ok("jobs")
    assert f"waits for job {first} (second-first), which is running" in one.ok(
        "job", "show", "second"
    )
    assert f"waits for job {first}" in one.ok("explain", "second/0")
    assert shown(one, "second")["waits_for"] == 1
    one.ok("submit-job", "--name", "any", "--after", "second", *GOES_ON, "--", "true")
    one.ok("job", "cancel", "second-first")
    one.ok("job", "wait", "any")
    assert "released" in one.ok("job", "history", "any")
    assert "released: job " in one.ok("explain", "any/0")


def test_an_aborted_job_names_the_one_that_did_not_succeed(one: LiveCluster) -> None:
    waiting(one, "third")
    one.ok("submit-job", "--name", "fourth", "--after", "third", "--", "true")
    one.ok("job", "cancel", "third-first")
    done = one.run("job", "wait", "fourth")
    assert done.returncode == 1
    assert "(third-first) was cancelled, and this one comes after it" in done.stdout + done.stderr
    job = shown(one, "fourth")
    assert job["state"] == "aborted"
    assert isinstance(job["aborted_for"], dict)
    assert job["aborted_for"]["name"] == "third-first"
    assert "aborted" in one.ok("job", "history", "fourth")
    assert "aborted: job " in one.ok("explain", "fourth/0")
    told = one.ok("events", "export", "--job", str(job["id"]), "--kind", "job.aborted")
    assert json.loads(told)["ancestor_name"] == "third-first"
    refused = one.run("job", "retry", "fourth")
    assert refused.returncode != 0
    assert "submit it again" in refused.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--on-parent-fail", "continue"), "--on-parent-fail is for --after"),
        (("--after", "nobody"), "no job 'nobody'"),
        (
            ("--after", "report", "--on-parent-fail", "cry"),
            "--on-parent-fail is abort or continue, not 'cry'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_word(
    one: LiveCluster, options: tuple[str, ...], says: str
) -> None:
    done = one.run("submit-job", *options, "--", "true")
    assert done.returncode in {2, 3}
    assert says in done.stderr
    assert "Traceback" not in done.stderr
