"""A client in a process of its own: a million tasks, iterated as they end; its memory is the point.

Arguments: address, runtime folder, count. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

from bench.memory import peak_mib
from bench.work import work
from p2psched import Client
from p2psched.model.errors import P2PSchedError
from p2psched.peer.process import loop_factory


async def run(address: str, runtime_dir: str, count: int) -> dict[str, float]:
    seen = bytearray(count)
    async with Client(address, runtime_dir=runtime_dir) as client:
        before_mib = peak_mib()
        started = time.perf_counter()
        job = await client.map("bench.work:work", range(count))
        submitted_mib = peak_mib()
        async for result in job.as_completed():
            assert result.value == work(result.index)
            assert not seen[result.index], "a result came twice"
            seen[result.index] = 1
        took_s = time.perf_counter() - started
    assert all(seen), "a result is missing"
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "per_s": count / took_s,
        "cpu_us": (usage.ru_utime + usage.ru_stime) / count * 1e6,
        "client_start_mib": before_mib,
        "client_submit_mib": submitted_mib,
        "client_peak_mib": peak_mib(),
    }


def main() -> None:
    address, runtime_dir, count = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            found = runner.run(run(address, runtime_dir, int(count)))
        except P2PSchedError as error:
            sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
