"""Layer 5, the demo: a real workload for `p2psched demo`. Imports no adapter and no peer."""
