"""Reads the segments of a log and says what they hold and what a crash left behind them.

For: `LogStore.open`. It only reads: nothing on the disk changes here, so a log that is damaged, or
of a newer format, is left exactly as it was found.

The state of the log is the fold of its records: a later hard state replaces the earlier one, a
truncation voids a suffix, entries follow each other without a gap. What happens at the first bad
record depends on where it is:

- not in the last segment: Damaged. A segment is synced whole before the next one is made.
- in the last segment, with a valid record of a later group behind it: Damaged. The bad bytes were
  synced before that record was written.
- before the synced end that the marker tells (`store.marker`): Damaged, and so is a log that just
  ends before it, or lacks the segment that it is in.
- in the last group, behind the marker: a torn tail, which is cut. Nobody can tell a write that
  power cut short from a group that was synced after the marker and damaged later; the bytes cut are
  reported, never hidden.
- in the header: Damaged if records can have followed it (headers are synced alone), otherwise the
  segment was being made when the power went, and is removed.

A marker that is missing though the log says that there was one, or that is damaged, can't be the
work of a crash. The log is judged without it, as those of older versions are, which had none; but
then a torn tail is damage too, for it may be any part of the last group.

The first segment may have a number above 1, if a snapshot stands for what was in the ones before:
`store.snapshots` judges that. One that is missing between two others is damage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NoReturn

from p2psched.model.errors import Damaged, Refused
from p2psched.model.raft import Entry, HardState
from p2psched.ports.disk import Disk
from p2psched.store.marker import MARKER, Mark, Marked, MarkerState, read_marked
from p2psched.store.segments import (
    FORMAT,
    HEADER_BYTES,
    MARKED,
    Header,
    HeaderFault,
    Record,
    RecordType,
    decode_entry,
    decode_hard_state,
    decode_header,
    decode_record,
    find_later_group,
    segment_name,
)

_NAME: Final = re.compile(r"log-(\d{8})\.seg")
ADVICE: Final = (
    "Nothing was changed. A peer that knows others asks them for what it lost when it starts; one "
    "that is alone needs an intact copy of the file"
)


@dataclass(slots=True, kw_only=True)
class Findings:
    """What the segments hold, and what to do before appending to the last of them."""

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    first: int = 1  # index of the first of `entries`; a snapshot must stand for those before
    starts: dict[int, int] = field(default_factory=dict)  # segment number: last index before it
    sizes: dict[int, int] = field(default_factory=dict)  # segment number: bytes that are valid
    previous: int = 0  # checksum of the last record, or of the header of a segment without any
    seed: int = 0  # checksum of the last segment's header
    remove: str | None = None  # the segment that was being made when the power went
    torn_bytes: int = 0  # bytes behind the last valid record, in the last segment or in `remove`
    marked: Marked | None = None  # what the marker tells
    marker: MarkerState = MarkerState.NONE
    says_marked: bool = False  # a record says that there is a marker

    @property
    def mark(self) -> Mark | None:
        """The synced end, if it is known."""
        return self.marked.mark if self.marked is not None else None

    @property
    def last_index(self) -> int:
        return self.first + len(self.entries) - 1


def read_segments(disk: Disk) -> Findings:
    """Raises Damaged or Refused. Cost: reads every segment, at most two at a time in memory."""
    numbers = segment_numbers(disk)
    marked, marker = read_marked(disk)
    found = Findings(marked=marked, marker=marker)
    if not numbers:
        if marker is not MarkerState.NONE:
            name = segment_name(marked.mark.segment) if marked is not None else MARKER
            raise Damaged(f"there is {MARKER} and no log beside it. {ADVICE}", file=name)
        return found
    newest = disk.read(segment_name(numbers[-1]))
    # A newer program that changed the format went on in a new segment: ask that one before the
    # others are judged by the rules of today.
    if decode_header(newest) is HeaderFault.NEWER_FORMAT:
        _refuse(segment_name(numbers[-1]))
    for number in numbers[:-1]:
        _read_segment(number, disk.read(segment_name(number)), found, is_last=False)
    _read_segment(numbers[-1], newest, found, is_last=True)
    _judge_marker(numbers, found)
    return found


def check_end(disk: Disk, end: Mark) -> None:
    """Raises Damaged if the log on the disk does not end there."""
    found = read_segments(disk)
    number = max(found.sizes, default=0)
    held = Mark(number, found.sizes.get(number, 0), found.previous, found.last_index)
    if held != end or found.torn_bytes:
        raise _damaged(segment_name(end.segment), end.offset, "it is not as it was synced")


def _judge_marker(numbers: list[int], found: Findings) -> None:
    mark = found.mark
    if mark is not None and mark.segment > numbers[-1]:
        name = segment_name(mark.segment)
        raise Damaged(
            f"the log has no file {name}, which was synced up to byte {mark.offset}. {ADVICE}",
            file=name,
            offset=0,
        )
    if mark is not None and mark.segment < numbers[0]:
        # Ours never let go of the segment that the marker is in: an older version ran since.
        found.marked, found.marker = None, MarkerState.NONE
    if found.marker is MarkerState.NONE and found.says_marked and mark is None:
        found.marker = MarkerState.MISSING
    lost = found.marker in (MarkerState.MISSING, MarkerState.DAMAGED)
    if lost and (found.torn_bytes or found.remove is not None):
        name = found.remove or segment_name(max(found.sizes))
        offset = 0 if found.remove is not None else found.sizes[max(found.sizes)]
        raise _damaged(name, offset, f"a torn end, and {MARKER} is {found.marker}")


def segment_numbers(disk: Disk) -> list[int]:
    numbers = sorted(int(match[1]) for name in disk.names() if (match := _NAME.fullmatch(name)))
    for position, number in enumerate(numbers, start=numbers[0] if numbers else 1):
        if number != position:
            missing = segment_name(position)
            raise Damaged(
                f"the log has no file {missing}, but {segment_name(numbers[-1])}. {ADVICE}",
                file=missing,
            )
    return numbers


def _refuse(name: str) -> NoReturn:
    raise Refused(
        f"{name} is of a newer format than {FORMAT}, the last that this program reads. Nothing "
        f"was changed. Start the newer p2psched that wrote it"
    )


def _read_segment(number: int, data: bytes, found: Findings, *, is_last: bool) -> None:
    name = segment_name(number)
    header = decode_header(data)
    if not isinstance(header, Header):
        if header is HeaderFault.NEWER_FORMAT:
            _refuse(name)
        if not is_last or not _was_being_made(number, data, found):
            raise _damaged(name, 0, "the header is bad")
        found.remove, found.torn_bytes = name, len(data)
        return
    if header.number != number:
        raise _damaged(name, 0, f"its header says it is segment {header.number}")
    is_first = not found.sizes
    if header.previous != found.previous and (number == 1 or not is_first):
        raise _damaged(name, 0, "it does not continue the segment before it")
    found.seed = found.previous = header.checksum
    end = _fold_records(number, data, found)
    found.sizes[number] = end
    if is_first and number > 1 and number not in found.starts:
        raise _damaged(name, end, "it is the first, and does not say where the log starts")
    _judge_end(number, end, data, found, is_last=is_last)


def _judge_end(number: int, end: int, data: bytes, found: Findings, *, is_last: bool) -> None:
    """What is behind the last good record, or should be."""
    name = segment_name(number)
    mark = found.mark
    if mark is not None and mark.segment == number and end < mark.offset:
        what = "a bad record" if end < len(data) else "it ends"
        raise _damaged(name, end, f"{what}, and it was synced up to byte {mark.offset}")
    if end == len(data):
        return
    if not is_last:
        raise _damaged(name, end, "a bad record, with a segment behind it")
    later = find_later_group(data, end, found.seed)
    if later is not None:
        raise _damaged(name, end, f"a bad record, with a good one of later at byte {later}")
    found.torn_bytes = len(data) - end


def _was_being_made(number: int, data: bytes, found: Findings) -> bool:
    """A last segment whose header is bad: nothing in it can have been synced."""
    is_synced = found.mark is not None and found.mark.segment == number
    is_first = number > 1 and not found.sizes
    return len(data) <= HEADER_BYTES and not is_synced and not is_first


def _fold_records(number: int, data: bytes, found: Findings) -> int:
    """Apply records up to the first bad one. Returns its offset, or the size if all are good."""
    name = segment_name(number)
    view = memoryview(data)
    at = HEADER_BYTES
    mark = found.mark if found.mark is not None and found.mark.segment == number else None
    while at < len(data):
        if mark is not None and at >= mark.offset:
            _meet_mark(name, at, mark, found)
            mark = None
        record = decode_record(view, at, found.seed)
        if record is None or record.previous != found.previous:
            break
        try:
            if record.type in (RecordType.START, RecordType.RESET):
                _start(record, found, number)
            else:
                _fold(record, found)
        except ValueError as error:
            # Its checksum holds, so no crash made this: it was written wrong, or by who knows whom.
            raise _damaged(name, at, str(error)) from error
        found.previous = record.checksum
        at = record.end
    if mark is not None and at >= mark.offset:
        _meet_mark(name, at, mark, found)
    return at


def _meet_mark(name: str, at: int, mark: Mark, found: Findings) -> None:
    """The log must say there what it said when it was synced."""
    if (at, found.previous, found.last_index) != (mark.offset, mark.checksum, mark.index):
        raise _damaged(name, at, f"it is not what was synced up to byte {mark.offset}")


def _fold(record: Record, found: Findings) -> None:
    entries = found.entries
    match record.type:
        case RecordType.ENTRY:
            if record.index != found.last_index + 1:
                raise ValueError(f"entry {record.index} follows entry {found.last_index}")
            entries.append(decode_entry(record))
        case RecordType.HARD_STATE:
            found.hard_state = decode_hard_state(record)
            found.says_marked |= record.kind == MARKED
        case RecordType.TRUNCATE:
            if not 1 <= record.index <= found.last_index:
                raise ValueError(f"entry {record.index} is void, of {found.last_index}")
            # In a log that was cut, what is void may begin before it: see `LogStore.compact`.
            found.first = min(found.first, record.index)
            del entries[record.index - found.first :]
        case unknown:
            raise ValueError(f"a record of unknown type {unknown}")


def _start(record: Record, found: Findings, number: int) -> None:
    """Where the log stands as this segment begins."""
    if record.type == RecordType.RESET or not found.sizes:
        found.entries.clear()
        found.first = record.index + 1
    elif record.index != found.last_index:
        raise ValueError(f"it starts behind entry {record.index}, not {found.last_index}")
    found.starts[number] = record.index


def _damaged(name: str, offset: int, what: str) -> Damaged:
    text = f"{name} is damaged at byte {offset}: {what}. {ADVICE}"
    return Damaged(text, file=name, offset=offset)
