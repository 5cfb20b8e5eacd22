"""A ball to be bounced to a height, on a floor so hard that gradients explode."""

from diffmbrl.envs.hybrid import Hybrid

LABEL = "Bouncing ball"
COLOR = 1
ORDER = 1
SOLVED = None  # no return is agreed on


def environment() -> Hybrid:
    """The environment, at a stiffness of 100/m."""
    return Hybrid(100.0)
