"""Scenario scripts: text in, text out, one event after another, on the real cores.

`language` reads a file of commands and the output that they had last time, and runs it on a
`stage`: peers with the real log on simulated disks, and messages that wait until the script says
what becomes of them. `consensus` is such a stage for Raft alone, `ledger` one for whole peers.
The words are in `docs/simulation.md`.
"""
