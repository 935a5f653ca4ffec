"""Layer 3, what is seen of a running peer: clock, log, how late its loop is. Decides nothing."""
