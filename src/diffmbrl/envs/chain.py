"""The chain of Gehring et al. 2021, section 4: ten states to walk, one transient state."""

import jax.numpy as jnp
import numpy as np

from diffmbrl.mdp.dense import DenseMDP

ADVANCE, GIVE_UP = 0, 1
END, TRANSIENT = 9, 10
GAMMA = 0.9


def chain() -> DenseMDP:
    """11 states, two actions (advance, give up), gamma 0.9.

    Advance moves from i to i + 1; from the end it pays 10 and returns to the start. Give up
    moves to the transient state, whence any action returns to the start; giving up there
    pays 1.
    """
    P, r = np.zeros((2, 11, 11)), np.zeros((11, 2))
    for state in range(END):
        P[ADVANCE, state, state + 1] = 1
    P[ADVANCE, END, 0] = 1
    P[GIVE_UP, : END + 1, TRANSIENT] = 1
    P[:, TRANSIENT, 0] = 1
    r[END, ADVANCE] = 10
    r[TRANSIENT, GIVE_UP] = 1
    return DenseMDP(jnp.asarray(P), jnp.asarray(r), GAMMA)


def policy() -> np.ndarray:
    """The policy that always advances, shape (11, 2)."""
    return np.eye(2)[np.zeros(11, dtype=int)]
