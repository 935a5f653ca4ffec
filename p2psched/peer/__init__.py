"""Layer 4, the peer: the asyncio loops that drive the cores, and `node`, the one place that picks
adapters."""
