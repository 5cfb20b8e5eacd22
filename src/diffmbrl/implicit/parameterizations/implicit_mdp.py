"""Implicit MDP: theta solves the Bellman equation of a learned MDP of several pseudo-actions."""

from diffmbrl.implicit import solvers
from diffmbrl.implicit.values import Models

LABEL = "implicit MDP"
ORDER = 2
BACKUPS = {"max": {"LABEL": "max", "COLOR": 2}, "logsumexp": {"LABEL": "log-sum-exp", "COLOR": 4}}
SMOKE = {
    "etas": [0.95],
    "reward_offsets": [0, 1],
    "learning_rates": {"chain": [0.0078125], "four_rooms": [0.5], "mountain_car": [0.5]},
}


def models(n: int, backup: str = "max", temperature: float = 1.0) -> Models:
    """Implicit values of n features and several pseudo-actions.

    Newton's steps repeat here, and the next one takes away the error of float32 that a single
    round of refinement keeps (docs/implicit.md).
    """
    solved = solvers.models(n, backup, temperature, steps=20, rtol=1e-12, calm=solvers.ONCE)
    return solved._replace(has_backups=True)
