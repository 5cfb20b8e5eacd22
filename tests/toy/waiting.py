"""Waiting for something to become so."""

import time
from collections.abc import Callable


def wait_for(condition: Callable, seconds: float = 60.0, every: float = 0.05, what: str = "it"):
    """Returns once a condition holds; fails when it does not in time."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited for {what} in vain"
        time.sleep(every)
    return found
