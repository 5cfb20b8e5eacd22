"""Models fitted to a fixed set of segments, plain or normalised, and random data of the ball."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from diffmbrl import keys
from diffmbrl.envs.hybrid import Hybrid
from diffmbrl.nets import spectral
from diffmbrl.rpg import model as models

EPISODE, STEPS = 24, 4  # steps of an episode, and of the segment that is cut out of it
POWER_ITERATIONS = 5  # after each update


class Target(NamedTuple):
    """How a model is normalised; leaves may be traced.

    Attributes:
        sigma: largest singular value of a normalised layer; 0 or less: no layer is.
        every: whether all layers are normalised, else all but the last.
    """

    sigma: Float[Array, ""]
    every: Bool[Array, ""]


class Fit(NamedTuple):
    """A model's raw weights and their power-iteration state."""

    model: models.Model
    vectors: tuple[spectral.Vectors, ...]


def collect(env: Hybrid, key: Array, n: int) -> models.Segments:
    """`n` segments of 4 steps with uniform actions, from restarts and further along."""

    def one(key):
        shape = (EPISODE, 1)
        actions = jax.random.uniform(keys.fold(key, "actions"), shape, jnp.float32, -1, 1)

        def step(obs, action):
            following, reward, _ = env.step(obs, action)
            return following, (obs, reward)

        last, (states, rewards) = jax.lax.scan(step, env.reset(keys.fold(key, "reset")), actions)
        states = jnp.concatenate([states, last[None]])
        first = jax.random.randint(keys.fold(key, "first"), (), 0, EPISODE - STEPS + 1)
        states, actions, rewards = (
            jax.lax.dynamic_slice_in_dim(x, first, k)
            for x, k in ((states, STEPS + 1), (actions, STEPS), (rewards, STEPS))
        )
        zeros = jnp.zeros(STEPS, jnp.float32)
        return models.Segments(states, actions, rewards, zeros, 1 - zeros)

    return jax.vmap(one)(jax.random.split(key, n))


def statistics(states: Float[Array, "*b s"]) -> models.Normaliser:
    """The normaliser that has seen some states."""
    flat = states.reshape(-1, states.shape[-1])
    return models.Normaliser(jnp.float32(len(flat)), flat.mean(0), flat.var(0) * len(flat))


def fit(plan: Mapping[str, Any], data: models.Segments, target: Target, key: Array) -> Fit:
    """A model of normalised segments.

    Args:
        plan: width, depth, batch, learning_rate and model_updates.
        data: segments; those of a batch are drawn with replacement.
        target: how its dynamics are normalised.
        key: of first weights and batches, which are the same for every target.
    """
    dims = data.states.shape[-1], data.actions.shape[-1]
    size = plan["width"], plan["depth"], 1  # who fits has rewards of its own
    raw = models.init(keys.fold(key, "init"), *dims, False, *size)
    vectors = spectral.start(raw.dynamics, keys.fold(key, "vectors"))
    rate = optax.cosine_decay_schedule(plan["learning_rate"], plan["model_updates"])
    optimiser = optax.adam(rate)

    def update(carry, key):
        fitted, state = carry
        rows = jax.random.randint(key, (plan["batch"],), 0, data.states.shape[0])
        batch = jax.tree.map(lambda x: x[rows], data)
        grads = jax.grad(lambda raw: models.loss(used(fitted._replace(model=raw), target), batch))(
            fitted.model
        )
        updates, state = optimiser.update(grads, state)
        model = optax.apply_updates(fitted.model, updates)
        vectors = spectral.iterate(model.dynamics, fitted.vectors, POWER_ITERATIONS)
        return (Fit(model, vectors), state), None

    start = (Fit(raw, vectors), optimiser.init(raw))
    steps = jax.random.split(keys.fold(key, "batches"), plan["model_updates"])
    return jax.lax.scan(update, start, steps)[0][0]


def used(fitted: Fit, target: Target) -> models.Model:
    """The model in use."""
    net, on = fitted.model.dynamics, target.sigma > 0
    layers = [on & (target.every | hidden) for hidden in spectral.chosen(net, "model", "hidden")]
    sigma = jnp.where(on, target.sigma, 1.0)
    net = spectral.normalise(net, fitted.vectors, layers, sigma)
    return models.Model(net, fitted.model.reward, fitted.model.ends)
