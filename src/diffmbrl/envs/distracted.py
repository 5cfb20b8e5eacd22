"""An environment whose observations end in numbers that tell nothing."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.envs.functional import Environment


class Distracted(eqx.Module):
    """An environment with `n` standard-normal numbers appended, drawn anew at every observation.

    Its state is the environment's with the two words of the key that the numbers are drawn with,
    so that it is as deterministic as any other. Other attributes are the environment's.
    """

    env: Environment
    n: int = eqx.field(static=True)

    @property
    def observation_dim(self) -> int:
        """The environment's, and the distractors."""
        return self.env.observation_dim + self.n

    @property
    def state_dim(self) -> int:
        """The environment's, and the key."""
        return (self.env.state_dim or self.env.observation_dim) + 2

    @property
    def action_dim(self) -> int:
        """The environment's."""
        return self.env.action_dim

    @property
    def time_limit(self) -> int:
        """The environment's."""
        return self.env.time_limit

    @property
    def terminates(self) -> bool:
        """The environment's."""
        return self.env.terminates

    @property
    def reward_scale(self) -> float:
        """The environment's."""
        return self.env.reward_scale

    def reset(self, key: PRNGKeyArray) -> Float[Array, " state"]:
        """A first state, float64."""
        return _join(self.env.reset(keys.fold(key, "state")), keys.fold(key, "distractors"))

    def observe(self, state: Float[Array, " state"]) -> Float[Array, " obs"]:
        """The environment's observation, then the distractors."""
        inner, key = _split(state)
        seen = self.env.observe(inner)
        return jnp.concatenate([seen, jax.random.normal(key, (self.n,), seen.dtype)])

    def step(self, state: Float[Array, " state"], action: Float[Array, " act"]):
        """Next state, reward, and 1 where the episode terminates."""
        inner, key = _split(state)
        following, reward, ends = self.env.step(inner, action)
        return _join(following, keys.fold(key, "next")), reward, ends


def _join(state: Array, key: Array) -> Float[Array, " state"]:
    """A float64 number holds a word of a key exactly."""
    return jnp.concatenate([state.astype(jnp.float64), key.astype(jnp.float64)])


def _split(state: Array) -> tuple[Array, Array]:
    return state[:-2], state[-2:].astype(jnp.uint32)
