"""What a peer has to offer, and what a job needs of the peers that run its tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from p2psched.model.ids import JobId, PeerId, is_id

Labels = tuple[tuple[str, str], ...]  # key and value, sorted by key

LABELS_MAX: Final = 32
GPUS_MAX: Final = 1_024
MEMORY_MIB_MAX: Final = 1 << 30
WEIGHT_MAX: Final = 1_000_000
AVERAGE_WEIGHT: Final = 1_000
APART_MAX: Final = 16
NAME_LABEL: Final = "name"  # every peer has it, and `zone` if it was told one
ZONE_LABEL: Final = "zone"
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_VALUE: Final = re.compile(r"[A-Za-z0-9._/:@+-]{0,63}")
_POLICY: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")


def check_labels(labels: Labels) -> None:
    """Raises ValueError."""
    if not labels:  # nearly always, and at each decode
        return
    if len(labels) > LABELS_MAX:
        raise ValueError(f"labels are {LABELS_MAX} at most, not {len(labels)}")
    if len({key for key, _ in labels}) != len(labels):
        raise ValueError("a label has one value")
    for key, value in labels:
        check_label_key(key)
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"the value of a label has up to 63 of letters, digits and ._/:@+-, and "
                f"{value[:64]!r} has not"
            )


def is_label_value(text: str) -> bool:
    return bool(text) and _VALUE.fullmatch(text) is not None


def check_label_key(key: str) -> None:
    """Raises ValueError."""
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"the key of a label has 1 to 63 of letters, digits and ._/-, and begins with a letter "
            f"or a digit: {key[:64]!r} has not"
        )


def check_policy(name: str) -> None:
    """Raises ValueError."""
    if name and not _POLICY.fullmatch(name):
        raise ValueError(
            f"the name of a policy has small letters, digits and '-', not {name[:64]!r}"
        )


def parse_labels(texts: Iterable[str]) -> Labels:
    """Of `key=value` each. Raises ValueError."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text[:64]!r} is no label: write KEY=VALUE")
        if found.setdefault(key, value) != value:
            raise ValueError(
                f"label {key[:64]!r} has one value, not {found[key][:64]!r} and {value[:64]!r}"
            )
    labels = tuple(sorted(found.items()))
    check_labels(labels)
    return labels


class Offers(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a peer has beside slots."""

    labels: Labels = ()
    gpus: int = 0
    memory_mib: int = 0
    weight: int = AVERAGE_WEIGHT  # how much it can do, per mille of an average peer

    def __post_init__(self) -> None:
        check_labels(self.labels)
        for field, value, low, high in (
            ("GPUs", self.gpus, 0, GPUS_MAX),
            ("MiB of memory", self.memory_mib, 0, MEMORY_MIB_MAX),
            ("thousandths of a weight", self.weight, 1, WEIGHT_MAX),
        ):
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{field} are {low} to {high:,}, not {value!r}")

    def label(self, key: str) -> str:
        """Empty: it has none."""
        return next((value for known, value in self.labels if known == key), "")


NOTHING: Final = Offers()


class Offer(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=118):
    """What a peer has beside slots, as its process says. It counts for as long as that lives."""

    peer: PeerId
    incarnation: int
    offers: Offers


class Needs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What each task of a job needs, beside slots.

    `gpus` and `memory_mib` of a peer are shared out like locks: what it owns at any time needs no
    more than it has. `apart`: not on a peer that owns tasks of these jobs, nor theirs beside ours;
    the job's own id: one task a peer."""

    require: Labels = ()
    prefer: Labels = ()
    spread: str = ""  # the key of a label: as many tasks for each of its values as can be
    apart: tuple[JobId, ...] = ()
    gpus: int = 0
    memory_mib: int = 0
    steal: bool = True  # False: tasks stay where they were placed, as long as that peer lives

    def __post_init__(self) -> None:
        check_labels(self.require)
        check_labels(self.prefer)
        if self.spread:
            check_label_key(self.spread)
        if len(self.apart) > APART_MAX or not all(map(is_id, self.apart)):
            raise ValueError(f"a job stays apart from up to {APART_MAX} jobs, named by their ids")
        for field, value, high in (
            ("GPUs", self.gpus, GPUS_MAX),
            ("MiB of memory", self.memory_mib, MEMORY_MIB_MAX),
        ):
            if type(value) is not int or not 0 <= value <= high:
                raise ValueError(f"a task needs 0 to {high:,} {field}, not {value!r}")
