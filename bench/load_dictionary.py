"""Train the dictionary of load reports again, from what simulated peers say of themselves:

    python -m bench.load_dictionary --write p2psched/net/load-2.dict

A dictionary that has shipped never changes: versions that have it read what is written with it. A
new one gets the next number, and `LoadCodec` writes with it once all peers know it. Without
`--write` it shows what the one in use saves, on seeds that it was not trained on.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from p2psched.model.load_news import LoadNews
from p2psched.net import load_codec
from p2psched.testing.sim_load import SimPeerLoad, recorded, said

SIZE: Final = 4_096
TRAINED_ON: Final = range(40)
SHOWN_ON: Final = range(1_000, 1_010)
CLUSTER_S: Final = 30
PEER_S: Final = 600
BYTES_S: Final = 60.0
TAGS: Final = (110, 111)  # of whole ones and of deltas: what they begin with, behind a length
_plain: Final = msgspec.msgpack.Encoder().encode


def reports(seeds: range, encode: Callable[[LoadNews], bytes] = _plain) -> Iterator[bytes]:
    """Of peers in simulated clusters, and of such that only have work."""
    for seed in seeds:
        yield from recorded(seed, encode, seconds=CLUSTER_S)
        for number in range(4):
            rng = random.Random(f"{seed} {number}")
            peer = SimPeerLoad(rng, jobs_per_min=rng.choice((0.0, 1.0, 6.0, 30.0)))
            for _, _, news in said(peer, encode, seconds=PEER_S, bytes_s=BYTES_S):
                if news is not None:
                    yield news.data


def train(seeds: range) -> bytes:
    """On as many whole ones as deltas: of these there are many more, and little to gain."""
    found = list(reports(seeds))
    whole, deltas = ([data for data in found if data[1] == tag] for tag in TAGS)
    chosen: list[bytes | bytearray | memoryview] = [*whole]
    chosen += random.Random(0).sample(deltas, min(len(whole), len(deltas)))
    return zstandard.train_dictionary(SIZE, chosen, level=19).as_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.write is not None:
        options.write.write_bytes(train(TRAINED_ON))
        print(f"{options.write}: {options.write.stat().st_size:,} bytes")
        return
    codec = load_codec.LoadCodec()
    without = load_codec.compressor(None)
    found = list(reports(SHOWN_ON))
    for tag, name in zip(TAGS, ("whole", "delta"), strict=True):
        samples = [data for data in found if data[1] == tag]
        plain = sum(map(len, samples))
        alone = sum(len(without.compress(sample)) for sample in samples)
        packed = sum(len(codec.encode(msgspec.msgpack.decode(s, type=LoadNews))) for s in samples)
        print(
            f"{name}: {len(samples):,}, {plain / len(samples):.0f} bytes each as MessagePack; "
            f"zstandard without a dictionary {alone / plain:.0%} of it, with {packed / plain:.0%}"
        )


if __name__ == "__main__":
    main()
