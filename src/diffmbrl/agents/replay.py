"""Uniform replay as a pure pytree: works under jit, scan and vmap, and can be checkpointed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

PyTree = Any


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
    """The buffer with one more item."""
    slot = buffer.added % buffer.capacity
    data = jax.tree.map(lambda store, x: store.at[slot].set(x), buffer.data, item)
    return Buffer(data, buffer.added + 1)


def take(buffer: Buffer, ages: Int[Array, "*n"]) -> PyTree:
    """Items by age, 0 the oldest one held; shape `ages.shape` leads each leaf."""
    first = jnp.maximum(buffer.added - buffer.capacity, 0)
    return jax.tree.map(lambda store: store[(first + ages) % buffer.capacity], buffer.data)


def draw(buffer: Buffer, key: PRNGKeyArray, n: int, *, replace: bool = True) -> Int[Array, " n"]:
    """Ages of `n` items drawn uniformly from those held.

    Without replacement, repeats are redrawn until none is left: by symmetry over items, every
    ordered choice of distinct items is then equally likely. Fewer items than `n` cannot be
    told apart; then repeats stay.
    """
    first = jax.random.randint(key, (n,), 0, buffer.size)
    if replace:
        return first

    def redraw(state):
        ages, key = state
        key, use = jax.random.split(key)
        fresh = jax.random.randint(use, (n,), 0, buffer.size)
        return jnp.where(_repeats(ages), fresh, ages), key

    def unfinished(state):
        return jnp.any(_repeats(state[0])) & (buffer.size >= n)

    return jax.lax.while_loop(unfinished, redraw, (first, jax.random.fold_in(key, 1)))[0]


def sample(buffer: Buffer, key: PRNGKeyArray, n: int, *, replace: bool = True) -> PyTree:
    """A batch of `n` items drawn uniformly; the buffer must hold at least one."""
    return take(buffer, draw(buffer, key, n, replace=replace))


def _repeats(ages: Int[Array, " n"]) -> Bool[Array, " n"]:
    """Which entries equal an earlier one."""
    order = jnp.argsort(ages, stable=True)
    ranked = ages[order]
    same = jnp.concatenate([jnp.zeros(1, bool), ranked[1:] == ranked[:-1]])
    return jnp.zeros_like(same).at[order].set(same)
