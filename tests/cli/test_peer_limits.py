"""What a peer may use to bound its tasks is looked at before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2psched.cli.peer_limits import control_groups
from p2psched.model.errors import UsageError


def test_a_folder_that_is_no_control_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no control group: there is no .*cgroup\.procs"):
        control_groups([tmp_path])
    (tmp_path / "cgroup.procs").touch()
    assert control_groups([tmp_path]) == (str(tmp_path),)
    assert control_groups(None) == ()
