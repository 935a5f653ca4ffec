"""Settings of the property tests: the same examples at every run, unless more are asked for."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a loaded machine must not fail a test. `long` looks at new examples every time.
settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
