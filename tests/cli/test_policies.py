"""Policies on the command line: side by side, one's own among them, and why a task is somewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2psched.cli.app import run
from p2psched.cli.complete import complete_policies
from p2psched.cli.detach import _arguments
from p2psched.core.policies.registry import POLICIES
from p2psched.model.config import Config
from p2psched.testing.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
OWN = 'NAME = "mine"\n\ndef score(ask, peer):\n    return peer.owned\n'


def test_the_table_in_the_docs_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["sim", "policy"]) == 0
    printed = capsys.readouterr().out.rstrip()
    page = (ROOT / "docs/policies.md").read_text(encoding="utf-8")
    assert page.split("made by")[1].split("```\n")[1].rstrip() == printed


def test_ones_own_policy_is_tried_beside_all_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN, encoding="utf-8")
    assert run(["sim", "policy", str(file), "-o", "json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert {(each["policy"], each["workload"]) for each in runs} == {
        (policy, workload) for policy in (*POLICIES, "mine") for workload in WORKLOADS
    }
    assert all(each["over_ideal"] >= 1 for each in runs)


@pytest.mark.parametrize("text", ["", "NAME = 1", "raise ValueError('no')", OWN.replace("m", "M")])
def test_a_file_that_is_no_policy_is_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text, encoding="utf-8")
    assert run(["sim", "policy", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_policies_are_offered_with_a_line_each() -> None:
    assert dict(complete_policies("")) == {p.name: p.summary for p in POLICIES.values()}
    assert [name for name, _ in complete_policies("power")] == ["power-of-two"]


def test_a_detached_peer_has_what_it_was_told_to_have() -> None:
    config = Config(
        name="a",
        data="a",
        listen="127.0.0.1:0",
        slots=1,
        python="python",
        runtime_dir="r",
        labels=(("arch", "arm"),),
        gpus=2,
        memory_mib=1_500,
        weight=2_500,
        policy_file="/etc/mine.py",
    )
    words = " ".join(_arguments(config))
    assert (
        "--label arch=arm --gpus 2 --memory 1500M --policy-file /etc/mine.py --weight 2.5" in words
    )
