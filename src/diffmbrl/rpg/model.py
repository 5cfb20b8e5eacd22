"""Learned models of environments and their training, and what estimators step through: worlds."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.envs.functional import Environment
from diffmbrl.nets import mlp as nets

PyTree = Any


class Normaliser(NamedTuple):
    """Running mean and variance of observations (Welford)."""

    seen: Float[Array, ""]
    mean: Float[Array, " s"]
    squares: Float[Array, " s"]

    def apply(self, obs: Float[Array, "*b s"]) -> Float[Array, "*b s"]:
        """Observations with mean 0 and standard deviation 1."""
        return (obs - self.mean) / self._std

    def undo(self, s: Float[Array, "*b s"]) -> Float[Array, "*b s"]:
        """Back to the environment's units."""
        return s * self._std + self.mean

    def add(self, obs: Float[Array, " s"]) -> "Normaliser":
        """With one more observation."""
        seen = self.seen + 1
        mean = self.mean + (obs - self.mean) / seen
        return Normaliser(seen, mean, self.squares + (obs - self.mean) * (obs - mean))

    @property
    def _std(self) -> Float[Array, " s"]:
        return jnp.sqrt(jnp.maximum(self.squares / jnp.maximum(self.seen, 1), 1e-6))


def normaliser(obs_dim: int) -> Normaliser:
    """A normaliser that has seen nothing."""
    return Normaliser(
        jnp.zeros((), jnp.float32), jnp.zeros(obs_dim, jnp.float32), jnp.zeros(obs_dim, jnp.float32)
    )


class Model(eqx.Module):
    """Networks for the change of the (normalised) observation, the reward, and termination."""

    dynamics: nets.MLP
    reward: nets.MLP
    ends: nets.MLP | None


class Segments(NamedTuple):
    """Real steps in a row, leading axes (batch, step); states are one longer than the rest.

    `valid` is 0 for a segment that runs over the end of an episode.
    """

    states: Float[Array, "b n+1 s"]
    actions: Float[Array, "b n a"]
    rewards: Float[Array, "b n"]
    terminated: Float[Array, "b n"]
    valid: Float[Array, " b"]


class LearnedWorld(eqx.Module):
    """s' = s + f(s, a) + noise in normalised observations; see rpg.estimators for the verbs."""

    model: Model
    noise_scale: Float[Array, " s"]

    def step(self, s, a, noise):
        """Next state."""
        return s + self.model.dynamics(jnp.concatenate([s, a])) + noise

    def infer(self, s, a, s_next):
        """The noise with which the model arrives at s_next: its residual."""
        return s_next - s - self.model.dynamics(jnp.concatenate([s, a]))

    def reward(self, s, a):
        """Learned reward."""
        return self.model.reward(jnp.concatenate([s, a]))[0]

    def terminates(self, s, a, s_next):
        """Learned probability of termination; 0 where the environment never terminates."""
        if self.model.ends is None:
            return jnp.zeros((), s.dtype)
        return jax.nn.sigmoid(self.model.ends(jnp.concatenate([s, a]))[0])


class TrueWorld(eqx.Module):
    """The environment itself, in the same normalised observations and scaled rewards."""

    env: Environment
    normaliser: Normaliser
    noise_scale: Float[Array, " s"]

    def step(self, s, a, noise):
        """Next state."""
        return self.normaliser.apply(self.env.step(self.normaliser.undo(s), a)[0]) + noise

    def infer(self, s, a, s_next):
        """The residual: 0 on the environment's own segments."""
        return s_next - self.normaliser.apply(self.env.step(self.normaliser.undo(s), a)[0])

    def reward(self, s, a):
        """True reward, scaled."""
        return self.env.reward_scale * self.env.step(self.normaliser.undo(s), a)[1]

    def terminates(self, s, a, s_next):
        """1 where the environment terminates."""
        return self.env.step(self.normaliser.undo(s), a)[2]


def init(
    key: PRNGKeyArray, obs_dim: int, action_dim: int, terminates: bool, width: int, depth: int
) -> Model:
    """Fresh networks with `depth` hidden layers of `width`, in float32."""
    sizes = [obs_dim + action_dim, *[width] * depth]

    def head(name: str, out: int, last_gain: float) -> nets.MLP:
        return nets.mlp(keys.fold(key, name), [*sizes, out], gain=1.0, last_gain=last_gain,
                        dtype=jnp.float32)  # fmt: skip

    return Model(
        head("dynamics", obs_dim, 0.1), head("reward", 1, 0.1),
        head("ends", 1, 0.1) if terminates else None,
    )  # fmt: skip


def loss(model: Model, segments: Segments) -> Float[Array, ""]:
    """Multi-step squared error of states, plus reward and termination errors, over valid segments.

    sum_k |s_k + f(s^_k, a_k) - s_{k+1}|^2 with s^_{k+1} the prediction, detached between steps
    (so that each step's error trains that step alone).
    """
    world = LearnedWorld(model, jnp.zeros(segments.states.shape[-1], segments.states.dtype))

    def one(states, actions, rewards, terminated):
        def step(s, row):
            a, s_real, s_next, r, d = row
            predicted = s + model.dynamics(jnp.concatenate([s, a]))
            error = jnp.sum((predicted - s_next) ** 2) + (world.reward(s_real, a) - r) ** 2
            if model.ends is not None:
                logit = model.ends(jnp.concatenate([s_real, a]))[0]
                error += jax.nn.softplus(logit) - d * logit
            return jax.lax.stop_gradient(predicted), error

        rows = (actions, states[:-1], states[1:], rewards, terminated)
        return jnp.mean(jax.lax.scan(step, states[0], rows)[1])

    errors = jax.vmap(one)(*segments[:4])
    return jnp.sum(errors * segments.valid) / jnp.maximum(jnp.sum(segments.valid), 1)
