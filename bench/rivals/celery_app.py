"""What workers of Celery load: one task, which calls any function of the benchmark."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import celery

URL: Final = os.environ["P2PSCHED_BENCH_REDIS"]

app: Final = celery.Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_serializer="pickle",
    result_serializer="pickle",
    accept_content=["pickle"],
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.call")  # type: ignore[untyped-decorator]  # celery has no types
def call(function: Callable[..., object], arguments: tuple[object, ...]) -> object:
    return function(*arguments)
