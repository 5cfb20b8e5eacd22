"""Spectral normalisation: power iteration against SVD, gradients, placements."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.nets import mlp as nets
from diffmbrl.nets import spectral


@pytest.fixture
def net():
    """A network whose layers have singular values of every size: uniform in +-1 / sqrt(fan-in)."""
    sizes = [5, 20, 20, 3]
    layers = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        key, bound = jax.random.fold_in(jax.random.key(0), i), n_in**-0.5
        weight = jax.random.uniform(key, (n_out, n_in), float, -bound, bound)
        layers.append(nets.Linear(weight, jnp.zeros(n_out)))
    return nets.MLP(tuple(layers))


def rescaled(net, layers, target):
    """The chosen weights divided by their largest singular value, found by SVD."""
    new = tuple(
        eqx.tree_at(lambda x: x.weight, layer, target * layer.weight / value) if choose else layer
        for layer, value, choose in zip(net.layers, spectral.exact(net), layers, strict=True)
    )
    return eqx.tree_at(lambda x: x.layers, net, new)


def test_power_iteration_finds_the_largest_singular_value(net):
    vectors = spectral.start(net, jax.random.key(1), iterations=300)
    found = [float(spectral.sigma(*pair)) for pair in zip(net.layers, vectors, strict=True)]
    expected = [np.linalg.svd(layer.weight, compute_uv=False)[0] for layer in net.layers]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(spectral.exact(net), expected, rtol=1e-12)


def test_tracking_follows_weights_that_change_at_once(net):
    """A new direction, nearly orthogonal to the old leading one, is found in one call."""
    vectors = spectral.start(net, jax.random.key(1), iterations=100)
    left = jnp.linalg.svd(net.layers[1].weight)[0][:, -1]
    right = jnp.linalg.svd(net.layers[1].weight)[2][-1]
    bump = 3 * jnp.outer(left, right) + 1e-3 * jax.random.normal(jax.random.key(2), (20, 20))
    changed = eqx.tree_at(lambda n: n.layers[1].weight, net, net.layers[1].weight + bump)
    found = spectral.track(changed, vectors, 200)
    np.testing.assert_allclose(
        spectral.sigma(changed.layers[1], found[1]), spectral.exact(changed)[1], rtol=1e-3
    )


@pytest.mark.parametrize("target", [0.5, 1.0, 3.0])
def test_normalised_layers_have_the_target_norm_and_others_are_untouched(net, target):
    vectors = spectral.start(net, jax.random.key(1), iterations=300)
    used = spectral.normalise(net, vectors, (True, True, False), target)
    np.testing.assert_allclose(spectral.exact(used)[:2], target, rtol=1e-6)
    np.testing.assert_array_equal(used.layers[2].weight, net.layers[2].weight)
    off = spectral.normalise(net, vectors, (jnp.asarray(False),) * 3, target)
    for one, other in zip(off.layers, net.layers, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)


def test_gradient_through_the_normalisation_agrees_with_svd(net):
    """d/dW f(target W / sigma(W)), sigma differentiated through, against the exact sigma's."""
    vectors = spectral.start(net, jax.random.key(1), iterations=2000)
    x, layers = jnp.arange(5.0), (True, True, True)
    ours = eqx.filter_grad(lambda n: jnp.sum(spectral.normalise(n, vectors, layers, 2.0)(x) ** 2))(
        net
    )
    exact = eqx.filter_grad(lambda n: jnp.sum(rescaled(n, layers, 2.0)(x) ** 2))(net)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)


def test_normalised_output_ignores_the_scale_of_the_weights(net):
    bigger = eqx.tree_at(lambda n: n.layers[1].weight, net, 7 * net.layers[1].weight)
    x = jnp.ones(5)
    out = [
        spectral.normalise(n, spectral.start(n, jax.random.key(1), 200), (True,) * 3)(x)
        for n in (net, bigger)
    ]
    np.testing.assert_allclose(out[0], out[1], rtol=1e-8)


def test_a_rescaled_plain_network_computes_what_the_normalised_one_does(net):
    layers = spectral.chosen(net, "model", "hidden")
    vectors = spectral.start(net, jax.random.key(1), iterations=300)
    x = jnp.linspace(-1, 1, 5)
    plain = rescaled(net, layers, 0.7)
    np.testing.assert_allclose(
        plain(x), spectral.normalise(net, vectors, layers, 0.7)(x), rtol=1e-6
    )


def test_chosen_layers_are_those_of_the_released_program(net):
    assert spectral.chosen(net, "policy", "hidden") == (False, True, False)
    assert spectral.chosen(net, "model", "hidden") == (True, True, False)
    assert spectral.chosen(net, "policy", "all") == (True, True, True)
    two = nets.mlp(jax.random.key(0), [5, 3])
    assert spectral.chosen(two, "model", "hidden") == (False,)


def test_placements_name_their_parts():
    table = {p: (spectral.covers(p, "model"), spectral.covers(p, "policy"))
             for p in spectral.PLACEMENTS}  # fmt: skip
    assert table == {
        "none": (False, False), "model": (True, False), "policy": (False, True),
        "both": (True, True),
    }  # fmt: skip


def test_unknown_choices_are_named(net):
    with pytest.raises(ValueError, match="critic"):
        spectral.covers("critic", "model")
    with pytest.raises(ValueError, match="first"):
        spectral.chosen(net, "model", "first")
