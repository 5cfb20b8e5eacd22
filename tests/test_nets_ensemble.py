"""Networks side by side: initial weights, and each member by hand."""

import jax
import numpy as np

from diffmbrl.nets import ensemble


def test_hidden_weights_are_orthogonal_and_the_last_layer_small():
    (first, bias), (second, _), (last, _) = ensemble.init(
        jax.random.key(0), (4, 32, 32, 2), 2, float
    )
    np.testing.assert_allclose(first[0].T @ first[0], 2 * np.eye(4), atol=1e-12)
    np.testing.assert_allclose(second[1] @ second[1].T, 2 * np.eye(32), atol=1e-12)
    np.testing.assert_allclose(last[0] @ last[0].T, 1e-4 * np.eye(2), atol=1e-12)
    assert not np.any(bias)
    assert not np.allclose(first[0], first[1])


def test_an_ensemble_is_its_members_one_by_one():
    params = ensemble.init(jax.random.key(1), (3, 5, 5, 2), 2, float)
    x = jax.random.normal(jax.random.key(2), (3, 7))
    together = ensemble.apply(params, x)
    for i in range(2):
        h = np.asarray(x)
        for j, (w, b) in enumerate(params):
            h = np.asarray(w[i]) @ h + np.asarray(b[i])
            h = np.maximum(h, 0) if j < 2 else h
        np.testing.assert_allclose(together[i], h, atol=1e-12)


def test_leaky_units_pass_a_hundredth_and_dead_units_are_those_that_are_never_positive():
    one, minus = np.ones((1, 1, 1)), -np.ones((1, 1, 1))
    zero = np.zeros((1, 1, 1))
    params = ((one, zero), (minus, zero), (one, zero))
    x = np.array([[1.0, 2.0]])
    np.testing.assert_allclose(ensemble.apply(params, x)[0, 0], [0, 0])
    leaky = ensemble.apply(params, x, jax.nn.leaky_relu)[0, 0]
    np.testing.assert_allclose(leaky, [-0.01, -0.02])
    assert ensemble.dead(params, x) == 0.5  # the first unit is active, the second nowhere
    assert ensemble.dead(params, np.array([[1.0, -2.0]]), jax.nn.leaky_relu) == 0
