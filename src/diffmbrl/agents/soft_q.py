"""Soft (maximum-entropy) Q-learning with a clipped pair of networks, for discrete actions.

Batches are transitions in columns, actions one-hot (`diffmbrl.nets.ensemble` says why).
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmbrl.agents.replay import Transition
from diffmbrl.nets import ensemble
from diffmbrl.nets.ensemble import Params


def soft_value(q: Float[Array, "n_actions batch"], alpha: float) -> Float[Array, " batch"]:
    """V(s) = alpha log sum_a exp(Q(s, a) / alpha) (Nikishin et al. 2022, eq. 3)."""
    return alpha * reduce(jnp.logaddexp, list(q / alpha))


@dataclass(frozen=True)
class SoftQ:
    """Soft double Q-learning.

    Attributes:
        n_obs: size of an observation.
        n_actions: number of actions.
        hidden: units in each of the two hidden layers.
        double: two networks, their minimum in targets, their mean when acting.
        alpha: temperature of the policy and of the soft maximum.
        gamma: discount.
        dtype: of parameters and of the computation.
    """

    n_obs: int
    n_actions: int
    hidden: int = 32
    double: bool = True
    alpha: float = 0.01
    gamma: float = 0.99
    dtype: Any = jnp.float64

    def init(self, key: jax.Array) -> Params:
        """Fresh networks."""
        sizes = (self.n_obs, self.hidden, self.hidden, self.n_actions)
        return ensemble.init(key, sizes, 2 if self.double else 1, self.dtype)

    def logits(
        self, params: Params, obs: Float[Array, "n_obs batch"]
    ) -> Float[Array, "n_actions batch"]:
        """Scores log pi(a|s), up to a constant: the networks' mean over alpha (eq. 3)."""
        return ensemble.apply(params, obs).mean(0) / self.alpha

    def act(
        self,
        params: Params,
        obs: Float[Array, "n_obs batch"],
        gumbel: Float[Array, "n_actions batch"],
    ) -> Array:
        """An action of the softmax policy from standard Gumbel noise."""
        return jnp.argmax(self.logits(params, obs) + gumbel, axis=0)

    def target(self, target_params: Params, batch: Transition) -> Float[Array, " batch"]:
        """B Q(s, a) = r + gamma V(s'), V of the least network, 0 where the task ended (eq. 3)."""
        value = soft_value(ensemble.apply(target_params, batch.obs_next).min(0), self.alpha)
        return batch.reward + self.gamma * (1 - batch.terminated) * value

    def loss(self, params: Params, target_params: Params, batch: Transition) -> tuple[Array, Array]:
        """L(w) = E (Q_w(s, a) - B Q_wbar(s, a))^2, mean over networks (eqs. 10 and 11).

        Returns:
            The loss and the mean value of the actions taken.
        """
        q = jnp.sum(ensemble.apply(params, batch.obs) * batch.action[None], axis=1)
        error = q - self.target(target_params, batch)[None]
        return jnp.mean(error**2), jnp.mean(q)
