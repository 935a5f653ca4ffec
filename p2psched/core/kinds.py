"""What kind of work a job is: the same for jobs that call the same function, or run the same
command line."""

from __future__ import annotations

import hashlib
from typing import Final

from p2psched.model import digests
from p2psched.model.blob import BlobRef
from p2psched.model.job import FunctionWork, Work

_BYTES: Final = 4


def kind_name(work: Work) -> bytes:
    """Path, or digest."""
    if not isinstance(work, FunctionWork):
        return digests.digest_of("\0".join(work.argv).encode(errors="surrogatepass"))
    if work.path:
        return work.path.encode(errors="surrogatepass")
    return work.code.digest if isinstance(work.code, BlobRef) else digests.digest_of(work.code)


def kind_of(work: Work) -> int:
    """32 bits of it, as gossip has them; never 0, which stands for none."""
    return number_of(kind_name(work))


def number_of(name: bytes) -> int:
    found = hashlib.blake2b(name, digest_size=_BYTES).digest()
    return int.from_bytes(found, "big") or 1


def blob_key(ref: BlobRef) -> int:
    """32 bits of a blob's digest, as gossip names what is warm."""
    return int.from_bytes(ref.digest[:_BYTES], "big")
