"""Files that a program leaves in its folder and hands over with its result."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence

from ...model import items  # noqa: TID252 - see shared.py
from . import frames, large


def take(
    folder: str, names: Sequence[str], spill: large.Spill | None, header: items.Header
) -> tuple[int, items.Header]:
    """How a program that ended well ends with its files: all of them are taken over, or it fails.

    A file that is missing is the program's fault like another exit code than 0, so it ends as EXIT
    (the code 0 stands beside the message). Links are not followed.
    """
    for name in names:  # before any is moved
        try:
            regular = stat.S_ISREG(os.lstat(f"{folder}/{name}").st_mode)
        except OSError:
            text = f"the program ended well and left no file {name!r} in its folder"
            return frames.EXIT, {**header, "message": text}
        if not regular:
            text = f"the program ended well, and its output {name!r} is no regular file"
            return frames.EXIT, {**header, "message": text}
    taken: list[tuple[str, str, int]] = []
    for name in names:
        try:
            if spill is None:
                raise large.TooLarge("this peer keeps no files")
            digest, size = spill.take(f"{folder}/{name}", own_folder=folder)
        except (OSError, ValueError) as error:
            text = f"the program ended well, and its output {name!r} can't be read: {error}"
            return frames.EXIT, {**header, "message": text}
        except large.NoSpace as error:
            text = f"the program ended well, and of its output {name!r}: {error}"
            return frames.NO_SPACE, {**header, "message": text}
        except large.TooLarge as error:
            text = f"the output {name!r} is too large: {error}"
            return frames.TOO_LARGE, {**header, "message": text}
        taken.append((name, digest.hex(), size))
    return frames.OK_WITH_BLOBS, {**header, "outputs": json.dumps(taken)}
