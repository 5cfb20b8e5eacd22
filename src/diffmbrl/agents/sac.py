"""Soft actor-critic: tanh-Gaussian policy, twin critics, learned temperature.

The actor's objective is an argument, so that model-based estimators take the place of SAC's own
(Q(s, a) - alpha log pi(a|s) at a fresh action) and share everything else.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from diffmbrl import keys
from diffmbrl.agents.replay import Transition
from diffmbrl.nets import mlp as nets

PyTree = Any


class TanhGaussian(eqx.Module):
    """a = tanh(mu(s) + std(s) eps), log std squashed into [low, high]."""

    net: nets.MLP
    low: float = eqx.field(static=True, default=-5.0)
    high: float = eqx.field(static=True, default=2.0)

    @property
    def noise_dim(self) -> int:
        """How many numbers drive one action."""
        return self.net.layers[-1].bias.shape[0] // 2

    def moments(self, s: Float[Array, " s"]) -> tuple[Array, Array]:
        """Mu and log std before the tanh."""
        mu, raw = jnp.split(self.net(s), 2)
        return mu, self.low + 0.5 * (self.high - self.low) * (jnp.tanh(raw) + 1)

    def sample(self, s: Float[Array, " s"], noise: Float[Array, " a"]) -> tuple[Array, Array]:
        """The action that a noise gives, and its log-probability."""
        mu, log_std = self.moments(s)
        before = mu + jnp.exp(log_std) * noise
        return jnp.tanh(before), _log_prob(noise, log_std, before)

    def log_density(self, s: Float[Array, " s"], noise: Float[Array, " a"]) -> Float[Array, ""]:
        """Log-density at the action that a noise gives, that action held fixed.

        Held fixed before the tanh, since near +-1 an action no longer tells what it came from.
        """
        mu, log_std = self.moments(s)
        before = jax.lax.stop_gradient(mu + jnp.exp(log_std) * noise)
        return _log_prob((before - mu) * jnp.exp(-log_std), log_std, before)

    def infer(self, s: Float[Array, " s"], a: Float[Array, " a"]) -> Float[Array, " a"]:
        """The noise with which `sample` gives a."""
        mu, log_std = self.moments(s)
        return (_arctanh(a) - mu) * jnp.exp(-log_std)


class Twin(eqx.Module):
    """Two critics; the value is the smaller one."""

    first: nets.MLP
    second: nets.MLP

    def both(self, s: Float[Array, " s"], a: Float[Array, " a"]) -> tuple[Array, Array]:
        """Either critic's value."""
        x = jnp.concatenate([s, a])
        return self.first(x)[0], self.second(x)[0]

    def __call__(self, s: Float[Array, " s"], a: Float[Array, " a"]) -> Float[Array, ""]:
        """min(Q1, Q2)."""
        return jnp.minimum(*self.both(s, a))


class State(NamedTuple):
    """All that SAC changes."""

    policy: TanhGaussian
    critics: Twin
    targets: Twin
    log_alpha: Float[Array, ""]
    optimisers: tuple[PyTree, PyTree, PyTree]


def _same(policy: TanhGaussian) -> TanhGaussian:
    return policy


class SAC(eqx.Module):
    """Hyperparameters, and the verbs `init`, `update`.

    Attributes:
        obs_dim: length of an observation.
        action_dim: length of an action.
        width: of each hidden layer.
        depth: number of hidden layers.
        entropy: minus the target entropy, for each number of an action.
        log_std_low: least log standard deviation before the tanh.
        gamma: discount.
        tau: step of the target critics towards the critics.
        learning_rate: Adam's, of critics and temperature.
        actor_learning_rate: Adam's, of the actor.
        alpha: temperature at the start.
        clip: largest norm of the actor's gradient; infinite for none. As the actor's rate, it may
            be traced, so that the runs of one program can differ.
    """

    obs_dim: int = eqx.field(static=True)
    action_dim: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=64)
    depth: int = eqx.field(static=True, default=2)
    entropy: float = eqx.field(static=True, default=1.0)
    log_std_low: float = eqx.field(static=True, default=-5.0)
    gamma: float = eqx.field(static=True, default=0.99)
    tau: float = eqx.field(static=True, default=0.005)
    learning_rate: float = eqx.field(static=True, default=1e-3)
    actor_learning_rate: Float[Array, ""] | float = 1e-3
    alpha: float = eqx.field(static=True, default=0.1)
    clip: Float[Array, ""] | float = math.inf

    def init(self, key: PRNGKeyArray) -> State:
        """Fresh networks, orthogonal, in float32."""
        hidden = [self.width] * self.depth
        policy = TanhGaussian(
            nets.mlp(
                keys.fold(key, "policy"),
                [self.obs_dim, *hidden, 2 * self.action_dim],
                gain=1.0,
                last_gain=0.1,
                dtype=jnp.float32,
            ),
            low=self.log_std_low,
        )
        sizes = [self.obs_dim + self.action_dim, *hidden, 1]
        critics = Twin(
            *(
                nets.mlp(keys.fold(key, name), sizes, dtype=jnp.float32)
                for name in ("critic 1", "critic 2")
            )
        )
        log_alpha = jnp.full((), math.log(self.alpha), jnp.float32)
        optimisers = tuple(
            optax.adam(rate).init(part)
            for rate, part in zip(self._rates, (policy, critics, log_alpha), strict=True)
        )
        return State(policy, critics, critics, log_alpha, optimisers)

    def update(
        self,
        state: State,
        batch: Transition,
        key: PRNGKeyArray,
        *,
        surrogate: Callable[[TanhGaussian, State], tuple[Array, Array]] | None = None,
        used: Callable[[TanhGaussian], TanhGaussian] = _same,
    ) -> State:
        """One step of critics, actor, temperature and targets, in that order.

        Args:
            state: before.
            batch: transitions, leading axis batch.
            key: random key.
            surrogate: `(used policy, state) -> (scalar, mean log-probability)`; the actor ascends
                the scalar's gradient. SAC's own by default.
            used: from the policy's raw weights to those in use (spectral normalisation).
        """
        optimisers = state.optimisers
        grads = eqx.filter_grad(self.critic_loss)(
            state.critics, state, used(state.policy), batch, keys.fold(key, "target")
        )
        critics, o_critics = self._descend(1, state.critics, grads, optimisers)
        state = state._replace(critics=critics)
        objective = surrogate or (lambda policy, now: self.objective(policy, now, batch.obs, key))
        grads, log_prob = eqx.filter_grad(
            lambda raw: _minus_first(objective(used(raw), state)), has_aux=True
        )(state.policy)
        shrink = jnp.minimum(1, self.clip / jnp.maximum(optax.tree.norm(grads), 1e-12))
        grads = jax.tree.map(lambda g: (shrink * g).astype(g.dtype), grads)
        policy, o_policy = self._descend(0, state.policy, grads, optimisers)
        slope = self.entropy * self.action_dim - log_prob  # of the dual
        slope = (jnp.exp(state.log_alpha) * slope).astype(jnp.float32)
        log_alpha, o_alpha = self._descend(2, state.log_alpha, slope, optimisers)
        targets = jax.tree.map(lambda t, q: t + self.tau * (q - t), state.targets, critics)
        return State(policy, critics, targets, log_alpha, (o_policy, o_critics, o_alpha))

    def critic_loss(self, critics, state: State, policy, batch: Transition, key):
        """Half the mean of (Q_k(s, a) - y)^2 summed over k = 1, 2.

        y = r + gamma (1 - terminated) (min Q'(s', a') - alpha log pi(a'|s')); a time limit does
        not stop the bootstrap.
        """
        noise = jax.random.normal(key, batch.action.shape, batch.action.dtype)
        alpha = jnp.exp(state.log_alpha)

        def target(step: Transition, eps):
            a, log_prob = policy.sample(step.obs_next, eps)
            soft = state.targets(step.obs_next, a) - alpha * log_prob
            return step.reward + self.gamma * (1 - step.terminated) * soft

        y = jax.vmap(target)(batch, noise)
        first, second = jax.vmap(critics.both)(batch.obs, batch.action)
        return 0.5 * jnp.mean((first - y) ** 2 + (second - y) ** 2)

    def objective(self, policy, state: State, obs, key) -> tuple[Array, Array]:
        """Mean of min Q(s, a) - alpha log pi(a|s), and mean log-probability."""
        shape = (obs.shape[0], self.action_dim)
        noise = jax.random.normal(keys.fold(key, "actor"), shape, obs.dtype)
        a, log_prob = jax.vmap(policy.sample)(obs, noise)
        soft = jax.vmap(state.critics)(obs, a) - jnp.exp(state.log_alpha) * log_prob
        return jnp.mean(soft), jnp.mean(log_prob)

    @property
    def _rates(self) -> tuple[Float[Array, ""] | float, ...]:
        return self.actor_learning_rate, self.learning_rate, self.learning_rate

    def _descend(self, part: int, params, grads, optimisers):
        updates, state = optax.adam(self._rates[part]).update(grads, optimisers[part])
        return optax.apply_updates(params, updates), state


def _minus_first(pair: tuple[Array, Array]) -> tuple[Array, Array]:
    return -pair[0], pair[1]


def _arctanh(a: Array) -> Array:
    limit = 1 - 4 * jnp.finfo(a.dtype).eps
    return jnp.arctanh(jnp.clip(a, -limit, limit))


def _log_prob(noise: Array, log_std: Array, before: Array) -> Float[Array, ""]:
    """Log N(noise; 0, 1) - log std - log(1 - tanh^2), the last in a form that cannot overflow."""
    squash = 2 * (math.log(2) - before - jax.nn.softplus(-2 * before))
    return jnp.sum(-0.5 * noise**2 - 0.5 * math.log(2 * math.pi) - log_std - squash)
