"""Layer 3, what is seen of a running peer and of its machine: clock, log, how late its loop is,
sensors. Decides nothing."""
