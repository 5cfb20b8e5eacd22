from collections import Counter
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.omd import replay


def draw(key, n, k):
    drawn = replay.ordered_draws(key, jnp.array([n], jnp.int32), k)[0]
    return replay.distinct(drawn, jax.random.fold_in(key, 1), jnp.int32(n))


@pytest.mark.parametrize(("n", "k"), [(256, 256), (300, 256), (1000, 256), (200_000, 256)])
def test_numbers_are_different_and_in_range(n, k):
    chosen = jax.jit(jax.vmap(lambda key: draw(key, n, k)))(jax.random.split(jax.random.key(0), 20))
    for row in np.asarray(chosen):
        assert len(set(row.tolist())) == k
        assert row.min() >= 0
        assert row.max() < n


def test_every_choice_is_equally_likely():
    """All 10 pairs below 5: a chi-square of 9 degrees stays below its 0.9999 quantile, 33.7."""
    keys = jax.random.split(jax.random.key(3), 20_000)
    pairs = np.sort(jax.jit(jax.vmap(lambda key: draw(key, 5, 2)))(keys), axis=1)
    counts = Counter(map(tuple, pairs.tolist()))
    assert set(counts) == set(combinations(range(5), 2))
    expected = len(keys) / 10
    assert sum((c - expected) ** 2 / expected for c in counts.values()) < 33.7


def test_first_draws_are_uniform_order_statistics():
    drawn = replay.ordered_draws(jax.random.key(0), jnp.full(4000, 1000, jnp.int32), 3)
    assert np.all(np.diff(drawn, axis=1) >= 0)
    np.testing.assert_allclose(drawn.mean(axis=0) / 1000, [0.25, 0.5, 0.75], atol=0.02)


def test_a_transition_comes_back_from_its_row():
    obs, after = jnp.arange(3.0), jnp.arange(3.0) + 10
    row = replay.pack(obs, jnp.int32(1), jnp.float64(0.5), after, jnp.float64(0.0))
    rows = replay.write(jnp.zeros((4, 9)), jnp.int32(2), row)
    assert not np.any(rows[jnp.array([0, 1, 3])])
    batch = replay.unpack(rows[jnp.array([2, 2])], 2)
    np.testing.assert_array_equal(batch.obs, jnp.stack([obs, obs], axis=1))
    np.testing.assert_array_equal(batch.next_obs, jnp.stack([after, after], axis=1))
    np.testing.assert_array_equal(batch.action, [[0, 0], [1, 1]])
    assert batch.reward.tolist() == [0.5, 0.5]
    assert batch.continues.tolist() == [0, 0]
