"""Benchmarks: `make bench`. Each measure is taken against a limit or a rival in the same run."""
