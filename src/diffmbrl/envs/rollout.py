"""Whole episodes of a functional environment."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl.envs.functional import Environment


def evaluate(
    env: Environment, act: Callable[[Array, Array], Array], key: PRNGKeyArray, episodes: int
) -> Float[Array, " episodes"]:
    """Undiscounted returns of `act(obs, noise)` without noise.

    Episodes that are over get actions that are not finite, which MuJoCo does not simulate.
    """
    still = jnp.zeros((episodes, env.action_dim), jnp.float32)

    def step(carry):
        t, states, going, totals = carry
        obs = jax.vmap(env.observe)(states).astype(jnp.float32)
        actions = jnp.where(going[:, None], jax.vmap(act)(obs, still), jnp.nan)
        after, rewards, ended = jax.vmap(env.step)(states, actions)
        totals = jnp.where(going, totals + rewards, totals)
        return t + 1, after.astype(states.dtype), going & (ended == 0), totals

    def go_on(carry):
        return (carry[0] < env.time_limit) & jnp.any(carry[2])

    states = jax.vmap(env.reset)(jax.random.split(key, episodes))
    start = (jnp.int32(0), states, jnp.ones(episodes, bool), jnp.zeros(episodes))
    return jax.lax.while_loop(go_on, step, start)[3]
