"""The published random schedule of the `implicit` experiments, key by key.

With it each of our runs has a published counterpart that saw the same data, the same initial
parameters and the same batches. Keys here are split by position because the schedule fixes it.
It holds under Threefry that is not partitionable (`diffmbrl.sweep.device.configure`).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

Key = UInt32[np.ndarray, "2"]


class RunKeys(NamedTuple):
    """Raw keys of one seed: initial parameters, batches, and data."""

    init: Key
    batch: Key
    data: Key


class SetKeys(NamedTuple):
    """What one set of trajectories draws from: the environment's seed and the policy's key."""

    environment: int
    policy: Key


def run_keys(seed: int) -> RunKeys:
    """The three keys of a run, from the children of SeedSequence(seed)."""
    children = np.random.SeedSequence(seed).spawn(3)
    return RunKeys(*(child.generate_state(2) for child in children))


def set_keys(seed: int) -> tuple[SetKeys, SetKeys]:
    """Keys of a seed's training and evaluation sets."""
    sets = []
    for child in np.random.SeedSequence(run_keys(seed).data.tolist()).spawn(2):
        words = child.generate_state(2)
        environment, policy = np.random.SeedSequence(words.tolist()).spawn(2)
        sets.append(SetKeys(int(environment.generate_state(1)[0]), policy.generate_state(2)))
    return sets[0], sets[1]


def sample_action(key: Array, probabilities: Float[Array, " a"]) -> Int[Array, ""]:
    """First action whose cumulative probability is at least a uniform draw."""
    u = jax.random.uniform(key, (1,))
    return jnp.argmax(jnp.cumsum(probabilities) >= u)


@partial(jax.jit, static_argnames=("updates", "size"))
def batch_indices(
    key: Array, n: Int[Array, ""] | int, updates: int, size: int
) -> Int[Array, "updates size"]:
    """Indices of every update's batch, drawn with replacement from n points.

    The first batch of the stream is passed over: in the published runs it only served to
    initialise the parameters' shapes.
    """

    def draw(key, _):
        key, use = jax.random.split(key)
        return key, jax.random.randint(use, (size,), 0, n)

    _, indices = jax.lax.scan(draw, key, None, length=updates + 1)
    return indices[1:]


def initial_parameters(
    key: Array, n: int, actions: int = 1
) -> tuple[Float[Array, "n actions"], Float[Array, "n actions n"]]:
    """Rewards w = 0.1 normal, and logits F = log(Dirichlet(1) + 2 I), each row's maximum 0."""
    rewards_key, logits_key, _ = jax.random.split(key, 3)
    w = 0.1 * jax.random.normal(rewards_key, (n, actions))
    rows = jax.random.dirichlet(logits_key, jnp.ones(n), (n, actions))
    logits = jnp.log(rows + 2 * jnp.eye(n)[:, None, :])
    return w, logits - logits.max(axis=-1, keepdims=True)
