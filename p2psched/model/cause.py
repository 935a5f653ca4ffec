"""How attempts end."""

from __future__ import annotations

import enum


class Cause(enum.StrEnum):
    """How an attempt ended. One list for the whole product; retry rules are tables over it."""

    OK = "ok"
    EXIT = "exit"  # a program ended with another code than 0, or a function called os._exit
    EXCEPTION = "exception"  # a function raised
    SIGNAL = "signal"  # the process was ended by a signal that we didn't send
    TIMEOUT = "timeout"
    NOT_STARTABLE = "not-startable"  # no such program, module or function, or it can't be opened
    NOT_SERIALISABLE = "not-serialisable"  # the value returned can't be pickled
    TOO_LARGE = "too-large"  # the value returned is over BLOB_BYTES_MAX
    NO_SPACE = "no-space"  # the owner's disk is full: nothing that the task did
    CANCELLED = "cancelled"
    PEER_LOST = "peer-lost"
    OOM = "oom"  # it was ended because it took more memory than its limit
    LEASE_LOST = "lease-lost"  # it was exclusive, and its owner's lease on it lapsed
    STALLED = "stalled"  # it was silent, or its pace could not make its limit, and it was ended
    OVERTAKEN = "overtaken"  # it ran on another peer, too, and ended there first
