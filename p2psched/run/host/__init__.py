"""What runs outside the peer's process, with the user's interpreter: standard library only.

Loaded by `starter.py` under a private name, so this file and those above it import nothing.
"""
