"""Layer 3, the wire: frames, the opening of a connection, links between processes.

It moves messages between processes that know the cluster's secret. It refuses to decide anything:
what a message means is the business of the layers above.
"""
