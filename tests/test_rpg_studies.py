"""The studies: exact references, rows of the tables, and the theory's slopes where known."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.agents import sac
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.envs.hybrid import Hybrid
from diffmbrl.nets import mlp as nets
from diffmbrl.nets import spectral
from diffmbrl.rpg import (
    convergence,
    fitting,
    gradients,
    horizon,
    landscape,
    linear,
    theory,
    train,
)
from diffmbrl.rpg import model as models
from diffmbrl.rpg.schedule import Schedule


def test_full_gradient_is_the_limit_of_long_horizons():
    cover, gamma = jnp.diag(jnp.array([1.0, 2.0, 0.5])), 0.95

    @jax.jit
    def both(key):
        system, policy = lq.random_system(key, 3, 2, radius=0.9, ends=0.02)
        critic = lq.true_critic(system, policy, gamma)
        long = lq.gradient(system, policy, critic, cover, h=400, gamma=gamma)
        return horizon.full_gradient(system, policy, gamma, cover), long.K

    np.testing.assert_allclose(*both(jax.random.key(0)), rtol=1e-8)


def test_full_gradient_is_the_derivative_of_the_whole_return():
    cover, gamma = jnp.diag(jnp.array([1.0, 2.0, 0.5])), 0.95

    @jax.jit
    def both(key):
        system, policy = lq.random_system(key, 3, 2, radius=0.9, ends=0.02)
        ours = horizon.full_gradient(system, policy, gamma, cover)
        return ours, jax.grad(lambda p: horizon.whole_return(system, p, gamma, cover))(policy).K

    np.testing.assert_allclose(*both(jax.random.key(5)), rtol=1e-8)


def test_whole_return_is_the_limit_of_long_sums():
    cover, nothing = jnp.eye(3), lq.QuadraticCritic(jnp.zeros((5, 5)))

    @jax.jit
    def both(key):
        system, policy = lq.random_system(key, 3, 2, radius=0.9)
        total = lq.objective(system, policy, nothing, cover, h=150, gamma=0.8)
        return horizon.whole_return(system, policy, 0.8, cover), total

    np.testing.assert_allclose(*both(jax.random.key(6)), rtol=1e-10)


def test_true_critic_solves_the_bellman_equation():
    """Q(s, a) - g Q(s', pi(s')) - r is constant where nothing is random."""
    system, policy = lq.random_system(jax.random.key(1), 3, 2, radius=0.9, noise=0.0)
    critic = lq.true_critic(system, policy, 0.9)
    rng = np.random.default_rng(0)
    for _ in range(5):
        s, a = jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=2))
        s_next = system.step(s, a, jnp.zeros(3))
        target = system.reward(s, a) + 0.9 * critic(s_next, policy.K @ s_next)
        np.testing.assert_allclose(critic(s, a), target, rtol=1e-10)


def test_injected_errors_have_the_sizes_asked_for():
    key = jax.random.key(2)
    system, policy = lq.random_system(key, 3, 2, radius=0.9)
    critic = lq.true_critic(system, policy, 0.9)
    wrong, off = linear.disturb(key, system, critic, 0.2, 0.3)
    np.testing.assert_allclose(jnp.linalg.norm(wrong.A - system.A, 2), 0.2, rtol=1e-10)
    relative = jnp.linalg.norm(off.H - critic.H, 2) / jnp.linalg.norm(critic.H, 2)
    np.testing.assert_allclose(relative, 0.3, rtol=1e-10)


def test_best_horizon_moves_the_way_the_formula_says():
    cases = jax.jit(jax.vmap(partial(horizon.case, 0, 0.9, 0.95)))
    given = cases(jnp.array([0.3, 0.01]), jnp.array([0.01, 1.0]))  # errors of model, of critic

    one = jax.jit(jax.vmap(partial(horizon.measure, longest=15, samples=2), (0, None)))

    def biases(h):
        return one(given, h)["bias_same"]

    best = np.argmin([biases(h) for h in range(0, 16, 3)], axis=0)
    assert best[0] < best[1]


@pytest.mark.parametrize("h", [2, 8])
def test_bias_is_linear_in_small_model_errors_and_absent_without(h):
    bias = jax.jit(lambda error: theory.bias(theory.wrong_model(0, error), h, h)[0])
    found = [float(bias(error)) for error in (0.0, 1e-4, 2e-4)]
    assert found[0] < 1e-12
    np.testing.assert_allclose(found[2] / found[1], 2, rtol=0.01)


def test_variance_grows_with_the_lipschitz_constant_as_predicted():
    """d log tr / d h at large h is 4 log L, up to powers of h; at L < 1 the trace levels off."""
    given = jax.jit(jax.vmap(partial(theory.growing, 0)))(jnp.array([1.2, 0.7]))

    def traces(h):
        return jax.jit(jax.vmap(partial(theory.trace, h=h, longest=60, samples=400)))(given)

    steep, flat = np.transpose([traces(40), traces(60)])
    slope = np.log(steep[1] / steep[0]) / 20
    assert 4 * np.log(1.2) < slope < 4 * np.log(1.2) + 4 * np.log(60 / 40) / 20 + 0.05
    assert flat[1] / flat[0] < 4


def test_horizons_up_to_the_longest_share_one_program():
    given = jax.jit(theory.growing)(0, 1.1)
    key = jax.random.key(0)
    exact, sampled = (
        jax.jit(gradient, static_argnums=2)
        for gradient in (linear.exact_gradient, linear.sampled_gradient)
    )
    for h in (0, 2, 5):
        short, long = (exact(given.right, h, longest) for longest in (h, 7))
        np.testing.assert_allclose(short, long, rtol=1e-12)
    found, alone = (sampled(given.right, 0, longest, key) for longest in (7, 0))
    np.testing.assert_allclose(found, 0 * alone, atol=1e-12)  # no step, and the critic is 0


def test_joined_segments_drop_the_repeated_entry():
    values = np.array([[[0, 1, 2], [2, 3, 4]]])
    np.testing.assert_array_equal(train.join(values), [[0, 1, 2, 3, 4]])


def test_training_table_has_a_row_for_each_evaluation_and_marks_divergence():
    schedule = Schedule(500, 100, 10, 200, 2, 1, 4, 5)
    runs = [{"sn": "none", "init": "orthogonal", "seed": s} for s in (0, 1)]
    returns = np.array([[[[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]]], [[[1.0, np.nan]] * 3]])
    what = {"task": "pendulum", "estimator": "sac", "horizon": 0}
    table = train.table(what, runs, {"returns": returns}, schedule)
    assert table["step"].tolist() == [100, 300, 500] * 2
    assert table["return_mean"][:3].tolist() == [2, 2, 2]
    np.testing.assert_allclose(table["return_sd"][:3], [2**0.5, 0, 8**0.5])
    assert table["diverged"].tolist() == [False] * 3 + [True] * 3


def test_directions_have_the_norms_of_what_they_change():
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.full((2, 2), 0.5)}
    found = landscape.direction(params, jax.random.PRNGKey(0))
    np.testing.assert_allclose([jnp.linalg.norm(found["a"]), jnp.linalg.norm(found["b"])], [5, 1])


def test_segments_of_the_dial_are_the_environments():
    env = Hybrid(20.0)
    data = jax.device_get(jax.jit(lambda key: fitting.collect(env, key, 6))(jax.random.PRNGKey(0)))
    step = jax.jit(env.step)
    for i in range(6):
        for t in range(4):
            following, reward, _ = step(data.states[i, t], data.actions[i, t])
            np.testing.assert_allclose(data.states[i, t + 1], following, atol=1e-5)
            np.testing.assert_allclose(data.rewards[i, t], reward, atol=1e-5)


@pytest.mark.parametrize(
    ("sigma", "every", "normalised"), [(1.5, True, 3), (1.5, False, 2), (0.0, False, 0)]
)
def test_fitted_models_are_normalised_only_where_asked(sigma, every, normalised):
    plan = {"width": 8, "depth": 2, "batch": 8, "learning_rate": 0.01, "model_updates": 30}
    target = fitting.Target(jnp.float32(sigma), jnp.asarray(every))

    @jax.jit
    def study(target):
        data = fitting.collect(Hybrid(5.0), jax.random.PRNGKey(0), 50)
        data = data._replace(states=fitting.statistics(data.states).apply(data.states))
        fitted = fitting.fit(plan, data, target, jax.random.PRNGKey(1))
        norms = spectral.exact(fitting.used(fitted, target).dynamics)
        return norms, models.loss(fitted.model, data)

    norms, error = study(target)
    assert np.sum(np.isclose(norms, 1.5, rtol=0.01)) == normalised
    assert np.isfinite(error)


def test_ascent_on_a_quadratic_measures_what_the_corollary_is_made_of():
    """J = -|x|^2 / 2 in 3 dimensions; gradients are off by (0.1, 0, 0) and noise of variance 4."""
    bias, scale = jnp.array([0.1, 0.0, 0.0]), 2.0

    def look(x, key):
        return {"grad_square": jnp.sum(x**2), "bias_square": jnp.sum(bias**2),
                "trace": jnp.asarray(3 * scale**2), "value": -0.5 * jnp.sum(x**2)}  # fmt: skip

    problem = convergence.Problem(
        jnp.array([2.0, 0.0, 0.0]),
        lambda x, key: bias - x + scale * jax.random.normal(key, (3,)),
        look,
        lambda x, key: -x,
    )
    plan = {"updates": 200, "look_every": 10}
    found = convergence.ascend(plan, problem, 100, 0.1, jax.random.key(0))
    np.testing.assert_allclose(found["smoothness"], 1, rtol=1e-6)
    np.testing.assert_allclose(found["noise"], 0.12, rtol=1e-6)
    np.testing.assert_allclose(found["rate"] * 2.1, 0.1, rtol=0.2)
    gained = found["return_end"] - found["return_start"]
    np.testing.assert_allclose(found["progress"], gained / (200 * found["rate"]), rtol=1e-6)
    assert found["return_end"] > -0.05


def test_convergence_problems_are_unbiased_without_normalisation():
    """A plain model is the system itself: the samples' mean is their expectation, bias is small."""
    plan = {"gamma": 0.9, "horizons": [2, 30], "samples": 4000}
    plain = fitting.Target(jnp.asarray(0.0), jnp.asarray(False))
    problem = convergence.linear(plan, plain, jnp.asarray(30), jax.random.key(0))
    found = jax.jit(problem.look)(problem.start, jax.random.key(1))
    assert found["bias_square"] < 1e-3 * found["grad_square"]
    draw = jax.jit(jax.vmap(lambda key: problem.sample(problem.start, key)))
    draws = draw(jax.random.split(jax.random.key(2), 4000))
    off = draws.mean(0) - jax.jit(problem.slope)(problem.start, None)
    assert jnp.sum(off**2) < 4 * found["trace"] / 4000
    short = convergence.linear(plan, plain, jnp.asarray(2), jax.random.key(0))
    assert jax.jit(short.look)(short.start, jax.random.key(1))["bias_square"] > found["bias_square"]


def test_open_loop_errors_use_segments_that_last():
    class World:
        def step(self, s, a, noise):
            return s + 2 * a

    states = jnp.array([[[0.0], [1.0], [2.0]], [[0.0], [1.0], [50.0]]])
    stored = models.Segments(states, jnp.ones((2, 2, 1)), jnp.zeros((2, 2)), jnp.zeros((2, 2)),
                             jnp.array([[1.0, 1.0], [1.0, 0.0]]))  # fmt: skip
    assert gradients.open_loop_error(World(), stored, 1) == 1
    assert gradients.open_loop_error(World(), stored, 2) == 2
    assert np.isnan(gradients.open_loop_error(World(), stored, 3))


def test_nudges_move_the_action_before_the_tanh():
    net = nets.mlp(jax.random.key(0), [2, 4, 2])
    policy = sac.TanhGaussian(net)
    s, eps, nudge = jnp.ones(2), jnp.array([0.4]), jnp.array([0.25])
    moved, log_prob = gradients.Nudged(policy).sample(s, jnp.concatenate([eps, nudge]))
    before = jnp.arctanh(policy.sample(s, eps)[0])
    np.testing.assert_allclose(moved, jnp.tanh(before + nudge), rtol=1e-6)
    assert log_prob == 0


def test_a_models_jacobian_is_held_against_the_true_one_in_observations():
    class World(NamedTuple):
        slope: float
        scale: float
        noise_scale: jax.Array = jnp.zeros(1)

        def observe(self, s):
            return self.scale * s[:1]  # of the true state the observation is a part

        def step(self, s, a, noise):
            return s + self.slope * a[0] * jnp.ones(s.shape)

    actions = jnp.arange(3.0)[:, None]
    one, two = jnp.zeros((3, 1)), jnp.ones((3, 2))
    right = gradients.jacobian_error(World(6.0, 1.0), World(2.0, 3.0), one, two, actions)
    assert right == 0
    assert gradients.jacobian_error(World(9.0, 1.0), World(2.0, 3.0), one, two, actions) == 0.5
