"""Placement policies, one file each: see `base` for what they are, `registry` for which."""
