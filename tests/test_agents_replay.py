"""Replay: order, overwriting, batches without replacement, and the rows of transitions."""

from collections import Counter
from itertools import combinations

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


def test_capacity_must_be_positive():
    with pytest.raises(ValueError, match="capacity"):
        replay.empty(jnp.zeros(2), 0)


def draw(key, n, k):
    drawn = replay.ordered_draws(key, n[None], k)[0]
    return replay.distinct(drawn, jax.random.fold_in(key, 1), n)


def test_never_draws_an_empty_slot():
    buffer = filled(3, 100)
    keys = jax.random.split(jax.random.key(0), 200)
    ages = jax.vmap(lambda key: draw(key, buffer.size, 2))(keys)
    assert set(np.asarray(replay.take(buffer, ages)["x"]).ravel().tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("n", "k"), [(256, 256), (300, 256), (1000, 256), (200_000, 256)])
def test_numbers_are_different_and_in_range(n, k):
    keys = jax.random.split(jax.random.key(0), 20)
    chosen = jax.jit(jax.vmap(lambda key: draw(key, jnp.int32(n), k)))(keys)
    for row in np.asarray(chosen):
        assert len(set(row.tolist())) == k
        assert row.min() >= 0
        assert row.max() < n


def test_every_choice_is_equally_likely():
    """All 10 pairs below 5: a chi-square of 9 degrees stays below its 0.9999 quantile, 33.7."""
    keys = jax.random.split(jax.random.key(3), 20_000)
    pairs = np.sort(jax.jit(jax.vmap(lambda key: draw(key, jnp.int32(5), 2)))(keys), axis=1)
    counts = Counter(map(tuple, pairs.tolist()))
    assert set(counts) == set(combinations(range(5), 2))
    expected = len(keys) / 10
    assert sum((c - expected) ** 2 / expected for c in counts.values()) < 33.7


def test_each_number_is_drawn_equally_often():
    keys = jax.random.split(jax.random.key(1), 33_334)
    ages = jax.jit(jax.vmap(lambda key: draw(key, jnp.int32(10), 3)))(keys)
    counts = np.bincount(np.asarray(ages).ravel(), minlength=10)
    np.testing.assert_allclose(counts, ages.size / 10, atol=4 * np.sqrt(9_000))


def test_first_draws_are_uniform_order_statistics():
    drawn = replay.ordered_draws(jax.random.key(0), jnp.full(4000, 1000, jnp.int32), 3)
    assert np.all(np.diff(drawn, axis=1) >= 0)
    np.testing.assert_allclose(drawn.mean(axis=0) / 1000, [0.25, 0.5, 0.75], atol=0.02)


@pytest.mark.usefixtures("compiled_as_results")
def test_a_lane_draws_the_same_alone_and_among_others():
    sizes = jnp.array([20, 33, 64], jnp.int32)
    keys = jax.random.split(jax.random.key(3), 3)
    one = jax.jit(lambda key, n: draw(key, n, 16))
    together = jax.jit(jax.vmap(lambda key, n: draw(key, n, 16)))(keys, sizes)
    for lane in range(3):
        np.testing.assert_array_equal(together[lane], one(keys[lane], sizes[lane]))


def test_a_transition_comes_back_from_its_row():
    obs, after = jnp.arange(3.0), jnp.arange(3.0) + 10
    row = replay.pack(replay.Transition(obs, jnp.int32(1), jnp.float64(0.5), after, jnp.ones(())))
    buffer = replay.empty(jnp.zeros(9), 4)
    for item in (jnp.zeros(9), jnp.zeros(9), row):
        buffer = replay.add(buffer, item)
    assert not np.any(buffer.data[jnp.array([0, 1, 3])])
    batch = replay.unpack(replay.take(buffer, jnp.array([2, 2])), 2)
    np.testing.assert_array_equal(batch.obs, jnp.stack([obs, obs], axis=1))
    np.testing.assert_array_equal(batch.obs_next, jnp.stack([after, after], axis=1))
    np.testing.assert_array_equal(batch.action, [[0, 0], [1, 1]])
    assert batch.reward.tolist() == [0.5, 0.5]
    assert batch.terminated.tolist() == [1, 1]
