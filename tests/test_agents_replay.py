"""Replay: order, overwriting, uniform draws, and the transformations it must work under."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.agents import replay


def filled(count: int, capacity: int) -> replay.Buffer:
    def step(buffer, i):
        return replay.add(buffer, {"x": i, "y": 2.0 * i}), None

    start = replay.empty({"x": jnp.int32(0), "y": jnp.float64(0)}, capacity)
    return jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(count, dtype=jnp.int32))[0])()


def test_keeps_the_newest_items_in_order():
    buffer = filled(7, 5)
    assert (int(buffer.size), int(buffer.added)) == (5, 7)
    held = replay.take(buffer, jnp.arange(5))
    np.testing.assert_array_equal(held["x"], [2, 3, 4, 5, 6])
    np.testing.assert_array_equal(held["y"], [4, 6, 8, 10, 12])


def test_never_draws_an_empty_slot():
    batch = replay.sample(filled(3, 100), jax.random.key(0), 1000)
    assert set(np.asarray(batch["x"])) == {0, 1, 2}


def test_draws_with_replacement_are_uniform():
    ages = replay.draw(filled(10, 10), jax.random.key(1), 100_000)
    counts = np.bincount(ages, minlength=10)
    np.testing.assert_allclose(counts, 10_000, atol=4 * np.sqrt(9_000))


def test_draws_without_replacement_are_distinct_and_every_ordered_choice_is_equally_likely():
    buffer = filled(4, 8)
    keys = jax.random.split(jax.random.key(2), 24_000)
    ages = jax.vmap(lambda key: replay.draw(buffer, key, 3, replace=False))(keys)
    assert np.all(np.diff(np.sort(ages, axis=1), axis=1) > 0)
    counts = np.unique(np.asarray(ages) @ [16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    np.testing.assert_allclose(counts, 1000, atol=4.5 * np.sqrt(1000))


def test_without_replacement_more_than_held_still_ends():
    ages = replay.draw(filled(3, 8), jax.random.key(0), 5, replace=False)
    assert set(np.asarray(ages)) <= {0, 1, 2}


def test_a_lane_draws_the_same_alone_and_among_others():
    buffers = jax.vmap(lambda n: replay.Buffer({"x": jnp.arange(64)}, n))(jnp.array([20, 33, 64]))
    keys = jax.random.split(jax.random.key(3), 3)
    draw = jax.jit(lambda b, k: replay.draw(b, k, 16, replace=False))
    together = jax.jit(jax.vmap(lambda b, k: replay.draw(b, k, 16, replace=False)))(buffers, keys)
    for lane in range(3):
        alone = draw(jax.tree.map(lambda leaf, i=lane: leaf[i], buffers), keys[lane])
        np.testing.assert_array_equal(together[lane], alone)


def test_capacity_must_be_positive():
    with pytest.raises(ValueError, match="capacity"):
        replay.empty(jnp.zeros(2), 0)
