"""Load reports as bytes: MessagePack arrays, and zstandard with a dictionary where that is shorter.

What is short enough for a datagram has nothing in it that repeats, and without a dictionary only
grows by the frame around it. The dictionary ships with the program and has a number, which stands
in front: a version that has a newer one still reads what the older wrote (ADR 0050). It is made
again by `bench/load_dictionary.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import zstandard

from p2psched.model.limits import KIB
from p2psched.model.load_news import LoadNews

INFLATED_MAX: Final = 256 * KIB
DICTIONARY: Final = 1  # the newest: what is written with
_PLAIN_MIN: Final = 0x80  # an array of MessagePack begins above, a dictionary's number is below
_LEVEL: Final = 9  # of a hundred bytes: 20 us. 19 takes 0.2 MiB more, and saves 2 bytes of 1,000
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder[LoadNews](LoadNews)


def dictionary_path(number: int) -> Path:
    return Path(__file__).with_name(f"load-{number}.dict")


class LoadCodec:
    """Keep one: it holds the tables made from the dictionary. Not for several threads."""

    def __init__(self) -> None:
        data = zstandard.ZstdCompressionDict(dictionary_path(DICTIONARY).read_bytes())
        self._compressor = compressor(data)
        self._decompressors = {DICTIONARY: decompressor(data)}

    def encode(self, news: LoadNews) -> bytes:
        plain = _ENCODER.encode(news)
        packed = self._compressor.compress(plain)
        return bytes((DICTIONARY,)) + packed if len(packed) + 1 < len(plain) else plain

    def decode(self, data: bytes) -> LoadNews:
        """Raises ValueError for whatever is no load report."""
        if not data:
            raise ValueError("an empty load report")
        plain = data if data[0] >= _PLAIN_MIN else self._inflated(data[0], data[1:])
        try:
            news: LoadNews = _DECODER.decode(plain)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError(f"no load report: {error}") from error
        return news

    def _inflated(self, form: int, body: bytes) -> bytes:
        decompressor = self._decompressors.get(form)
        if decompressor is None:
            raise ValueError(f"a load report of a form that is not known here: {form}")
        try:
            # A frame may say how long it is, and lie: what is inflated is counted instead.
            with decompressor.stream_reader(body) as reader:
                plain = reader.read(INFLATED_MAX + 1)
        except zstandard.ZstdError as error:
            raise ValueError(f"a damaged load report: {error}") from error
        if len(plain) > INFLATED_MAX:
            raise ValueError(f"a load report of more than {INFLATED_MAX:,} bytes")
        return plain


def compressor(data: zstandard.ZstdCompressionDict | None) -> zstandard.ZstdCompressor:
    """With nothing around a frame that the receiver knows anyway."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    return zstandard.ZstdCompressor(dict_data=data, compression_params=parameters)


def decompressor(data: zstandard.ZstdCompressionDict | None) -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(dict_data=data, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
