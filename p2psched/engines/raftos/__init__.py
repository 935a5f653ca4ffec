"""The package raftos 0.2.6 as a ledger: a lab engine for a static group in a trusted network.

Kept of it: its node, its encrypted UDP transport, its timers, and its shell around the three
roles. Replaced, because as released it loses and invents commits (`tests/raftos`): storage, log,
quorum, the rules of terms, and what the roles do. It has no snapshots, so the log only grows, no
change of members, no pre-vote and no TLS.
"""
