"""The chain, of which the published data are the trajectories' first states only (deviation 3)."""

import jax.numpy as jnp

from diffmbrl.envs import chain
from diffmbrl.implicit.dense import DenseDomain

LABEL = "Chain"
ORDER = 0
GAMMA = 0.9
LIMITS = (0.0, 15.0)  # of the final residual norm, figure A1

DOMAIN = DenseDomain(
    chain.chain(), lambda: jnp.asarray(chain.policy()), n_features=11, first_states_only=True
)
