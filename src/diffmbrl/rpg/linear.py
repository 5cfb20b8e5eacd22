"""Problems on linear-Gaussian systems: a model and a critic that are off by known amounts."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmbrl import keys
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.rpg.objective import Ends, Objective, unroll

N_STATES, N_ACTIONS = 3, 2


class Problem(NamedTuple):
    """A system and policy, the right critic, and a model and critic that are off."""

    key: Array
    gamma: Float[Array, ""]
    system: lq.System
    policy: lq.LinearPolicy
    critic: lq.QuadraticCritic
    wrong: tuple[lq.System, lq.QuadraticCritic]

    @property
    def right(self) -> Objective:
        """The objective through the system itself."""
        return Objective(self.policy, self.system, self.critic, self.gamma)

    @property
    def off(self) -> Objective:
        """The objective through the wrong model with the wrong critic."""
        return Objective(self.policy, *self.wrong, self.gamma)


def exact_gradient(objective: Objective, h, longest: int) -> Float[Array, "a s"]:
    """The exact gradient of J by the gain, from standard normal starts; h may be traced."""
    policy, system, critic, gamma, _ = objective
    start = jnp.eye(N_STATES)
    return lq.gradient(system, policy, critic, start, h=h, gamma=gamma, longest=longest).K


def sampled_gradient(objective: Objective, h, longest: int, key: Array) -> Float[Array, "a s"]:
    """One sample of it by RP-DP; h may be traced, up to `longest`."""
    s0 = jax.random.normal(keys.fold(key, "start"), (N_STATES,))
    eps = jax.random.normal(keys.fold(key, "policy"), (longest + 1, N_ACTIONS))
    xi = jax.random.normal(keys.fold(key, "model"), (longest, N_STATES))
    ends = Ends(jnp.zeros(longest), (jnp.arange(longest) < h).astype(float))
    return objective.gradient(unroll, s0, eps, objective.world.noise_scale * xi, ends).K


def disturb(
    key: Array, system: lq.System, critic: lq.QuadraticCritic, model_error, critic_error
) -> tuple[lq.System, lq.QuadraticCritic]:
    """Model and critic whose derivatives are off by given amounts.

    Args:
        key: its random key.
        system: the right model.
        critic: the right critic.
        model_error: spectral norm of the error of the model's Jacobian.
        critic_error: spectral norm of the error of the critic's matrix, over that matrix's norm.
    """
    off = jax.random.normal(keys.fold(key, "model error"), system.A.shape)
    half = jax.random.normal(keys.fold(key, "critic error"), critic.H.shape)
    wrong = half + half.T
    A = system.A + model_error * off / jnp.linalg.norm(off, 2)
    scale = critic_error * jnp.linalg.norm(critic.H, 2) / jnp.linalg.norm(wrong, 2)
    return eqx.tree_at(lambda x: x.A, system, A), lq.QuadraticCritic(critic.H + scale * wrong)
