"""Implicit: theta solves the Bellman equation of a learned Markov reward chain (eq. 2)."""

from diffmbrl.implicit import solvers
from diffmbrl.implicit.values import Models

LABEL = "implicit"
ORDER = 1
COLOR = 1
SMOKE = {
    "etas": [0.9, 0.95],
    "reward_offsets": [0, 0.5, 1],
    "learning_rates": {
        "chain": [0.015625, 0.0078125],
        "four_rooms": [1, 0.5],
        "mountain_car": [1, 0.5],
    },
}


def models(n: int, backup: str = "max", temperature: float = 1.0) -> Models:
    """Implicit values of n features and one pseudo-action, whose backups are all the same.

    The equation is affine, so that one step solves it; no further step would take away the
    error of float32 that a single round of refinement keeps, hence two (docs/implicit.md).
    """
    return solvers.models(n, backup, temperature, steps=1, rtol=0.0, calm=solvers.TWICE)
