"""Replay as a pure pytree: works under jit, scan and vmap, and can be checkpointed."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

PyTree = Any


class Transition(NamedTuple):
    """One step, or many: in rows of arrays for `sac`, in columns for `soft_q`.

    `terminated` is 1 only where the episode ended by itself, not by a time limit.
    """

    obs: Float[Array, "..."]
    action: Float[Array, "..."]
    reward: Float[Array, "..."]
    obs_next: Float[Array, "..."]
    terminated: Float[Array, "..."]


class Buffer(eqx.Module):
    """The last `capacity` items added, oldest overwritten first.

    Attributes:
        data: the items, leaves with a leading axis of length capacity.
        added: how many items were ever added.
    """

    data: PyTree
    added: Int[Array, ""]

    @property
    def capacity(self) -> int:
        """How many items it can hold."""
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def size(self) -> Int[Array, ""]:
        """How many items it holds."""
        return jnp.minimum(self.added, self.capacity)


def empty(example: PyTree, capacity: int) -> Buffer:
    """A buffer for items shaped like `example` (arrays or shape-dtype structs).

    Raises:
        ValueError: capacity below 1.
    """
    if capacity < 1:
        raise ValueError(f"capacity: {capacity} must be at least 1")
    data = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example)
    return Buffer(data, jnp.zeros((), jnp.int32))


def add(buffer: Buffer, item: PyTree) -> Buffer:
    """The buffer with one more item, written in place where the compiler may."""
    slot = buffer.added % buffer.capacity

    def write(store, x):
        return jax.lax.dynamic_update_index_in_dim(store, jnp.asarray(x, store.dtype), slot, 0)

    return Buffer(jax.tree.map(write, buffer.data, item), buffer.added + 1)


def take(buffer: Buffer, ages: Int[Array, "*n"]) -> PyTree:
    """Items by age, 0 the oldest one held; shape `ages.shape` leads each leaf."""
    first = jnp.maximum(buffer.added - buffer.capacity, 0)
    return jax.tree.map(lambda store: store[(first + ages) % buffer.capacity], buffer.data)


def pack(transition: Transition) -> Float[Array, " width"]:
    """One transition with a discrete action as a row, which is read in one piece."""
    obs, action, reward, obs_next, terminated = transition
    scalars = [jnp.asarray(x, obs.dtype)[None] for x in (action, reward, terminated)]
    return jnp.concatenate([obs, obs_next, *scalars])


def unpack(rows: Float[Array, "batch width"], n_actions: int) -> Transition:
    """Rows as a batch in columns, actions one-hot."""
    columns = rows.T
    n = (len(columns) - 3) // 2
    action, reward, terminated = columns[2 * n :]
    kinds = jnp.arange(n_actions, dtype=rows.dtype)
    one_hot = (action[None] == kinds[:, None]).astype(rows.dtype)
    return Transition(columns[:n], one_hot, reward, columns[n : 2 * n], terminated)


def ordered_draws(key: PRNGKeyArray, n: Int[Array, " steps"], k: int) -> Int[Array, "steps k"]:
    """For each step k independent uniform numbers below its n, in rising order.

    Order statistics of uniforms are the partial sums of k + 1 exponentials over their total;
    so they come sorted without a sort, for all steps of a segment at once.
    """
    gaps = jax.random.exponential(key, (k + 1, len(n)), jnp.float64)
    total, sums = jax.lax.scan(lambda total, gap: (total + gap,) * 2, jnp.zeros(len(n)), gaps)
    below = jnp.floor(sums[:-1] / total[None] * n[None]).astype(jnp.int32)
    return jnp.minimum(below, n.astype(jnp.int32)[None] - 1).T


def distinct(drawn: Int[Array, " k"], key: PRNGKeyArray, n: Int[Array, ""]) -> Int[Array, " k"]:
    """Different numbers below n, every choice of k equally likely; n must be at least k.

    What repeats in `drawn` is drawn again, one number at a time, until it is new. The result
    is the first k distinct numbers of a uniform sequence, whose set is uniform by symmetry;
    the cost does not grow with n, and once n is above about k^2 most batches need no second draw.

    Args:
        drawn: independent uniform numbers below n, in rising order (`ordered_draws`).
        key: of the further draws.
        n: how many numbers there are to choose from.
    """

    def fill(carry):
        attempt, chosen, open_ = carry
        fresh = jax.random.randint(jax.random.fold_in(key, attempt), (), 0, n, jnp.int32)
        slot = jnp.argmax(open_)
        new = ~jnp.any((chosen == fresh) & ~open_)
        chosen = chosen.at[slot].set(jnp.where(new, fresh, chosen[slot]))
        return attempt + 1, chosen, open_.at[slot].set(~new)

    repeats = jnp.concatenate([jnp.zeros(1, bool), drawn[1:] == drawn[:-1]])
    start = (jnp.int32(0), drawn, repeats)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[2]), fill, start)[1]
