"""Large arguments, results, files and modules, from the caller through real peers and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from p2psched import Executor, File
from p2psched.client.client import Client
from p2psched.model.job import SentFile
from tests.cluster import LiveCluster

pytestmark = pytest.mark.process


def scaled(array: np.ndarray, factor: float) -> np.ndarray:
    array *= factor
    return array


def upper(file: File) -> File:
    with file.open() as source, Path("upper.txt").open("wb") as target:
        target.write(source.read().upper())
    return File("upper.txt")


def client_of(cluster: LiveCluster) -> Client:
    return Client(runtime_dir=cluster.runtime_dir)


def test_arrays_files_and_modules_go_through_two_peers_and_come_back(tmp_path: Path) -> None:
    array = np.arange(200_000.0)
    poem = tmp_path / "poem.txt"
    poem.write_text("all the better\n" * 10_000)

    async def story(cluster: LiveCluster) -> None:
        async with client_of(cluster) as client:
            job = await client.map(scaled, [array] * 6, range(6))
            async for result in job:
                value = result.value
                assert isinstance(value, np.ndarray)
                np.testing.assert_array_equal(value, array * result.index)
                value += 1
            np.testing.assert_array_equal(await client.submit(scaled, array, 2.0), array * 2)
            made = await client.submit(upper, File(poem))
            assert isinstance(made, File)
            made.save(tmp_path / "saved.txt")
            assert (tmp_path / "saved.txt").read_text() == poem.read_text().upper()
            again = await client.submit(upper, made)
            with again.open() as opened:
                assert opened.read() == (tmp_path / "saved.txt").read_bytes()

    with LiveCluster(tmp_path) as cluster:
        cluster.start("a")
        cluster.start("b")
        asyncio.run(story(cluster))


def test_a_result_outlives_the_peer_that_made_it_and_the_executor_takes_arrays(
    tmp_path: Path,
) -> None:
    with LiveCluster(tmp_path) as cluster:
        for name in "abc":
            cluster.start(name)

        async def run() -> str:
            async with client_of(cluster) as client:
                job = await client.map(np.full, [300_000] * 3, [1.0, 2.0, 3.0])
                await job.wait()
                return job.id

        async def read(job: str) -> None:
            async with client_of(cluster) as client:
                for index, value in enumerate(await (await client.job(job)).results()):
                    assert isinstance(value, np.ndarray)
                    assert (value.shape, value[0]) == ((300_000,), index + 1.0)

        job = asyncio.run(run())
        cluster.kill("c")
        asyncio.run(read(job))
        with Executor(runtime_dir=cluster.runtime_dir) as executor:
            future = executor.submit(scaled, np.ones(100_000), 3.0)
            assert future.result().sum() == 300_000


@pytest.mark.smoke
def test_files_of_programs_go_up_and_come_down(tmp_path: Path) -> None:
    async def story(cluster: LiveCluster) -> None:
        async with client_of(cluster) as client:
            job = await client.submit_program(
                ["sh", "-c", "tr a b < data > out; echo done"],
                files=[SentFile("data", 0o644, b"a" * 100_000)],
                outputs=["out"],
            )
            async for result in job:
                assert result.stdout == b"done\n"
                result.files["out"].save(tmp_path / "out")
                assert (tmp_path / "out").read_bytes() == b"b" * 100_000

    with LiveCluster(tmp_path) as cluster:
        cluster.start("a")
        asyncio.run(story(cluster))
