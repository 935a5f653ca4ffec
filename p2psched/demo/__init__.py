"""Layer 5, the demo: a real workload for `p2psched demo`, and the processes that it is shown on.

`digits` and `models` run in workers and import no adapter and no peer.
"""
