"""Networks: shapes, initial singular values, hand-computed outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.nets import mlp as nets


def test_hand_computed_output():
    net = nets.MLP(
        (
            nets.Linear(jnp.array([[1.0, -1.0], [2.0, 0.0]]), jnp.array([0.0, -5.0])),
            nets.Linear(jnp.array([[3.0, 4.0]]), jnp.array([0.5])),
        )
    )
    # hidden = relu([1 - (-2), 2 - 5]) = [3, 0]; output = 9 + 0 + 0.5
    np.testing.assert_allclose(net(jnp.array([1.0, -2.0])), [9.5])


def test_orthogonal_init_has_equal_singular_values():
    net = nets.mlp(jax.random.key(0), [3, 16, 16, 2], gain=1.5, last_gain=0.01)
    for layer, gain in zip(net.layers, (1.5, 1.5, 0.01), strict=True):
        values = np.linalg.svd(layer.weight, compute_uv=False)
        np.testing.assert_allclose(values, gain, rtol=1e-6)
        np.testing.assert_array_equal(layer.bias, 0)


def test_dtype_is_kept():
    net = nets.mlp(jax.random.key(0), [2, 4, 1], dtype=jnp.float32)
    assert net(jnp.ones(2, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"sizes": [3]}, "sizes"),
        ({"activation": "swoosh"}, "swoosh"),
    ],
)
def test_bad_arguments_are_named(kwargs, word):
    with pytest.raises(ValueError, match=word):
        nets.mlp(jax.random.key(0), **{"sizes": [2, 2], **kwargs})
