"""Raft without I/O (Ongaro 2014): one shared state, one file for each family of messages.

`core.Raft.step(event) -> effects` is the whole interface. The driver performs effects in order:
what an effect promises to others is only emitted by the step that learns that it is on disk.
"""
