"""`File`: a file among the arguments of a task, or in what it returns.

    job = await client.map(count_words, [p2psched.File(path) for path in paths])

In the task `file.path` is a readable file and `file.open()` opens it. A task returns `File(path)`
of what it has written, and the caller does `result.value.save("here")`.
"""

from __future__ import annotations

from p2psched.run.host.files import File

__all__ = ["File"]
