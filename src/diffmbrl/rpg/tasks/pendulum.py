"""Pendulum swing-up."""

from diffmbrl.envs.pendulum import Pendulum

LABEL = "Pendulum"
COLOR = 0
ORDER = 0
SOLVED = -200.0  # return of an episode from which on the pendulum counts as swung up


def environment() -> Pendulum:
    """The environment."""
    return Pendulum()
