"""Layer 3, run: where tasks run. The pool lives in the peer, everything in `host/` outside it."""
