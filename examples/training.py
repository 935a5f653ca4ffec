"""A training loop that survives its peers: it goes on from its last checkpoint, on any of them.

    python examples/training.py --steps 1000 [--every 5] [--log FILE]

Logistic regression by gradient descent, in plain Python. Kill the peer that runs it, or all of
them: the loss goes on falling from where it was. The same function runs here and now if it is
called: then nothing is saved.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import time
from pathlib import Path
from typing import Any

from p2psched import Client, checkpoint, task

Row = tuple[tuple[float, ...], int]


def points(seed: int, count: int = 64) -> list[Row]:
    """Two clouds, each with its label."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        label = number % 2
        rows.append(((1.0, *(rng.gauss(2.0 * label - 1.0, 1.0) for _ in range(3))), label))
    return rows


def step_of(weights: list[float], rows: list[Row], rate: float) -> tuple[list[float], float]:
    """One step down the slope, and the loss before it."""
    slope, loss = [0.0] * len(weights), 0.0
    for inputs, label in rows:
        said = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weights, inputs, strict=True))))
        loss -= math.log(said if label else 1 - said)
        slope = [s + (said - label) * x for s, x in zip(slope, inputs, strict=True)]
    return [w - rate * s / len(rows) for w, s in zip(weights, slope, strict=True)], loss / len(rows)


@task(checkpoint=True)
def train(
    steps: int, every: int = 5, log: str | None = None, pause_s: float = 0.0
) -> dict[str, Any]:
    """`log`: a file that gets a line for each step."""
    start: dict[str, Any] = {"step": 0, "weights": [0.0] * 4, "loss": 0.0}
    saved = checkpoint.load(default=start)
    step, weights, loss = saved["step"], saved["weights"], saved["loss"]
    rows, first = points(1), step
    while step < steps:
        weights, loss = step_of(weights, rows, 0.5)
        step += 1
        if step % every == 0:
            checkpoint.save({"step": step, "weights": weights, "loss": loss})
        if log:
            with Path(log).open("a") as file:
                file.write(f"{os.environ.get('P2P_PEER', '-')} {first} {step}\n")
        time.sleep(pause_s)
    return {"from": first, "step": step, "weights": weights, "loss": loss}


async def main() -> None:
    parser = argparse.ArgumentParser(description="A training loop that survives its peers.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=5, help="steps between two checkpoints")
    parser.add_argument("--log", help="a file that gets a line for each step")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds after each step")
    given = parser.parse_args()
    async with Client() as client:
        done = await client.submit(train, given.steps, given.every, given.log, given.pause)
    print(f"began at step {done['from']}, ended at {done['step']}, loss {done['loss']:.4f}")


if __name__ == "__main__":
    asyncio.run(main())
