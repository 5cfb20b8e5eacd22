"""MDPs from the literature, small enough to know everything about."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmbrl.mdp.dense import DenseMDP


def two_state() -> DenseMDP:
    """Two states, two actions, gamma 0.9 (Dadashi et al. 2019, appendix A, case d).

    The MDP of the tabular experiments of Nikishin et al. 2022.
    """
    P = [[[0.7, 0.3], [0.2, 0.8]], [[0.99, 0.01], [0.99, 0.01]]]
    r = [[-0.45, -0.1], [0.5, 0.5]]
    return DenseMDP(jnp.array(P), jnp.array(r), 0.9)


def uniform_start(mdp: DenseMDP) -> Float[Array, " s"]:
    """Every state equally likely."""
    return jnp.full(mdp.n_states, 1 / mdp.n_states)
