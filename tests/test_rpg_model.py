"""Models: normalisation, the multi-step loss by hand, training on a known system, heads."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffmbrl.envs.hybrid import Hybrid
from diffmbrl.envs.pendulum import Pendulum
from diffmbrl.nets import mlp as nets
from diffmbrl.rpg import model as models


def test_normaliser_agrees_with_numpy():
    data = np.random.default_rng(0).normal(3, 2, (500, 2)).astype(np.float32)
    found = jax.lax.scan(lambda n, x: (n.add(x), None), models.normaliser(2), jnp.asarray(data))[0]
    expected = (data - data.mean(0)) / data.std(0)
    np.testing.assert_allclose(found.apply(data), expected, atol=1e-4)
    np.testing.assert_allclose(found.undo(found.apply(data)), data, rtol=1e-4, atol=1e-5)


def _affine(weight, bias):
    return nets.MLP((nets.Linear(jnp.array(weight), jnp.array(bias)),))


def test_loss_by_hand_unrolls_its_own_predictions():
    """f(s, a) = a + 1, from 0 with a = 1, 1: predicts 2, 4; real 1, 4; reward off by 3."""
    model = models.Model(_affine([[0.0, 1.0]], [1.0]), _affine([[0.0, 0.0]], [3.0]), None)
    segments = models.Segments(
        jnp.array([[[0.0], [1.0], [4.0]]] * 2), jnp.ones((2, 2, 1)), jnp.zeros((2, 2)),
        jnp.zeros((2, 2)), jnp.array([[1.0, 1.0], [0.0, 0.0]]),
    )  # fmt: skip
    np.testing.assert_allclose(models.loss(model, segments), (1 + 0) / 2 + 9, rtol=1e-6)
    ended = segments._replace(within=jnp.array([[1.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(models.loss(model, ended), (1 + 1 + 0) / 3 + 9, rtol=1e-6)
    broken = ended._replace(states=ended.states.at[0, 2].set(jnp.inf))  # after the end
    np.testing.assert_allclose(models.loss(model, broken), (1 + 1 + 0) / 3 + 9, rtol=1e-6)
    nothing = segments._replace(within=jnp.zeros((2, 2)))
    assert models.loss(model, nothing) == 0


def test_no_gradient_flows_from_one_step_to_the_one_before():
    """With f = w (constant), step 2's error is (2w - 4) but its derivative by w counts once."""
    model = models.Model(_affine([[0.0, 0.0]], [1.0]), _affine([[0.0, 0.0]], [0.0]), None)
    segments = models.Segments(
        jnp.array([[[0.0], [1.0], [4.0]]]), jnp.ones((1, 2, 1)), jnp.zeros((1, 2)),
        jnp.zeros((1, 2)), jnp.ones((1, 2)),
    )  # fmt: skip
    grad = jax.grad(lambda m: models.loss(m, segments))(model)
    np.testing.assert_allclose(grad.dynamics.layers[0].bias, [0.5 * 2 * (2 - 4)], rtol=1e-6)


def test_termination_head_learns_where_episodes_end():
    key = jax.random.key(0)
    model = models.init(key, 1, 1, True, 16, 1, 1)
    s = jax.random.uniform(key, (512, 1), jnp.float32, -1, 1)
    batch = s, jnp.zeros((512, 1), jnp.float32), (s[:, 0] > 0.3) * 1.0, jnp.ones(512, jnp.float32)
    adam = optax.adam(0.03)

    def step(carry, _):
        ends, state = carry
        updates, state = adam.update(jax.grad(models.ends_loss)(ends, *batch), state)
        return (optax.apply_updates(ends, updates), state), None

    ends = jax.lax.scan(step, (model.ends, adam.init(model.ends)), None, 300)[0][0]
    world = models.LearnedWorld(eqx.tree_at(lambda m: m.ends, model, ends), jnp.zeros(1))
    odds = [float(world.terminates(jnp.array([x], jnp.float32), jnp.zeros(1, jnp.float32), None))
            for x in (-0.5, 0.8)]  # fmt: skip
    assert odds[0] < 0.05
    assert odds[1] > 0.95


def test_true_world_is_the_environment_in_normalised_units():
    env = Pendulum()
    norm = models.Normaliser(
        jnp.float32(4), jnp.array([0.1, 0.2, 1.0]), jnp.array([4.0, 1.0, 16.0])
    )
    world = models.TrueWorld(env, norm, jnp.zeros(3))
    obs, a = jnp.array([jnp.cos(0.5), jnp.sin(0.5), 1.0]), jnp.array([0.3])
    following, reward, _ = env.step(obs, a)
    s, s_next = norm.apply(obs), norm.apply(following)
    found, scaled, ends = world.transition(s, a, jnp.zeros(3))
    np.testing.assert_allclose(found, s_next, rtol=1e-5)
    np.testing.assert_allclose(scaled, 0.1 * reward, rtol=1e-5)
    assert ends == 0
    np.testing.assert_array_equal(world.step(s, a, jnp.zeros(3)), found)
    np.testing.assert_allclose(world.infer(s, a, s_next), 0, atol=1e-6)


def test_noise_is_added_and_inferred():
    model = models.init(jax.random.key(0), 2, 1, False, 8, 1, 1)
    world = models.LearnedWorld(model, jnp.full(2, 0.1))
    s, a, noise = jnp.ones(2), jnp.zeros(1), jnp.array([0.3, -0.2])
    moved = world.step(s, a, noise) - world.step(s, a, jnp.zeros(2))
    np.testing.assert_allclose(moved, noise, rtol=1e-5)
    np.testing.assert_allclose(world.infer(s, a, world.step(s, a, noise)), noise, rtol=1e-5)
    assert eqx.tree_equal(world.terminates(s, a, s), jnp.zeros(()))
    assert Hybrid().terminates is False
