"""Learned models of environments and their training, and what estimators step through: worlds."""

import math
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
    """Real steps in a row, leading axes (batch, step).

    Attributes:
        states: the first state, then the state that each step led to.
        actions: of each step.
        rewards: of each step.
        terminated: 1 where a step ended its episode by itself.
        within: 1 for the steps of the first one's episode, 0 for those after its end.
        physics: (b, n, d), the environment's states before each step, left out where the
            observation is the state.
    """

    states: Float[Array, "b n+1 s"]
    actions: Float[Array, "b n a"]
    rewards: Float[Array, "b n"]
    terminated: Float[Array, "b n"]
    within: Float[Array, "b n"]
    physics: PyTree = ()


class LearnedWorld(eqx.Module):
    """s' = s + f(s, a) + noise in normalised observations; see rpg.objective for the verbs."""

    model: Model
    noise_scale: Float[Array, " s"]

    def observe(self, s):
        """The state itself."""
        return s

    def transition(self, s, a, noise):
        """Next state, reward, probability of termination."""
        s_next = self.step(s, a, noise)
        return s_next, self.reward(s, a), self.terminates(s, a, s_next)

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
    """The environment itself, with normalised observations and scaled rewards.

    Its states are normalised observations where the environment's state is the observation,
    else the environment's states, to which no noise is added.
    """

    env: Environment
    normaliser: Normaliser
    noise_scale: Float[Array, " s"]

    def observe(self, s):
        """The normalised observation."""
        if not self.env.state_dim:
            return s
        return self.normaliser.apply(self.env.observe(s).astype(self._dtype))

    def transition(self, s, a, noise):
        """Next state, scaled reward, and 1 where the environment terminates."""
        s_next, reward, ends = self._env_step(s, a)
        reward = self.env.reward_scale * reward
        if not self.env.state_dim:
            return self.normaliser.apply(s_next) + noise, reward, ends
        return s_next, reward.astype(self._dtype), ends.astype(self._dtype)

    def step(self, s, a, noise):
        """Next state."""
        return self.transition(s, a, noise)[0]

    def infer(self, s, a, s_next):
        """The residual: 0 on the environment's own segments."""
        if self.env.state_dim:
            return jnp.zeros_like(self.noise_scale)
        return s_next - self.normaliser.apply(self._env_step(s, a)[0])

    def segment(self, segments: Segments) -> tuple[Array, Array]:
        """This world's states along real segments, and the actions; leading axes (batch, step)."""
        if not self.env.state_dim:
            return segments.states, segments.actions
        states, actions = segments.physics, segments.actions
        last = jax.vmap(self.env.step)(states[:, -1], actions[:, -1])[0]
        return jnp.concatenate([states, last[:, None]], axis=1), actions

    def _env_step(self, s, a):
        return self.env.step(s if self.env.state_dim else self.normaliser.undo(s), a)

    @property
    def _dtype(self):
        return self.normaliser.mean.dtype


def init(
    key: PRNGKeyArray,
    obs_dim: int,
    action_dim: int,
    terminates: bool,
    width: int,
    depth: int,
    head_depth: int,
) -> Model:
    """Fresh networks in float32.

    Args:
        key: their random key.
        obs_dim: length of an observation.
        action_dim: length of an action.
        terminates: whether there is a termination head.
        width: of every hidden layer.
        depth: hidden layers of the dynamics.
        head_depth: hidden layers of the heads for reward and termination.
    """

    def net(name: str, out: int, depth: int, gain: float) -> nets.MLP:
        sizes = [obs_dim + action_dim, *[width] * depth, out]
        return nets.mlp(keys.fold(key, name), sizes, gain=gain, last_gain=0.1, dtype=jnp.float32)

    return Model(
        net("dynamics", obs_dim, depth, 1.0),
        net("reward", 1, head_depth, math.sqrt(2)),
        net("ends", 1, head_depth, math.sqrt(2)) if terminates else None,
    )


def loss(model: Model, segments: Segments) -> Float[Array, ""]:
    """Multi-step squared error of states, plus that of rewards; mean over steps within episodes.

    sum_k |s_k + f(s^_k, a_k) - s_{k+1}|^2 with s^_{k+1} the prediction, detached between steps
    (so that each step's error trains that step alone).
    """
    world = LearnedWorld(model, jnp.zeros(segments.states.shape[-1], segments.states.dtype))

    def one(states, actions, rewards):
        def step(s, row):
            a, s_real, s_next, r = row
            predicted = s + model.dynamics(jnp.concatenate([s, a]))
            error = jnp.sum((predicted - s_next) ** 2) + (world.reward(s_real, a) - r) ** 2
            return jax.lax.stop_gradient(predicted), error

        return jax.lax.scan(step, states[0], (actions, states[:-1], states[1:], rewards))[1]

    errors = jax.vmap(one)(segments.states, segments.actions, segments.rewards)
    # What lies after an end can have diverged, and 0 times infinity is no number.
    errors = jnp.where(segments.within > 0, errors, 0)
    return jnp.sum(errors) / jnp.maximum(jnp.sum(segments.within), 1)


def ends_loss(
    ends: nets.MLP,
    s: Float[Array, "b s"],
    a: Float[Array, "b a"],
    ended: Float[Array, " b"],
    weight: Float[Array, " b"],
) -> Float[Array, ""]:
    """Weighted mean cross-entropy of the termination head on single steps."""
    logit = jax.vmap(lambda s, a: ends(jnp.concatenate([s, a]))[0])(s, a)
    each = jax.nn.softplus(logit) - ended * logit
    return jnp.sum(each * weight) / jnp.maximum(jnp.sum(weight), 1)
