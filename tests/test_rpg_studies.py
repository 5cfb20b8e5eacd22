"""The studies: exact references, rows of the tables, and the theory's slopes where known."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.envs.hybrid import Hybrid
from diffmbrl.nets import spectral
from diffmbrl.rpg import aggregate, gradients, horizon, landscape, smoothness, theory, train
from diffmbrl.rpg import model as models
from diffmbrl.rpg.training import Schedule


def test_full_gradient_is_the_limit_of_long_horizons():
    key = jax.random.key(0)
    system, policy = lq.random_system(key, 3, 2, radius=0.9, ends=0.02)
    cover, gamma = jnp.diag(jnp.array([1.0, 2.0, 0.5])), 0.95
    critic = lq.true_critic(system, policy, gamma)
    long = lq.gradient(system, policy, critic, cover, h=400, gamma=gamma)
    np.testing.assert_allclose(
        horizon.full_gradient(system, policy, gamma, cover), long.K, rtol=1e-8
    )


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
    wrong, off = horizon.disturb(key, system, critic, 0.2, 0.3)
    np.testing.assert_allclose(jnp.linalg.norm(wrong.A - system.A, 2), 0.2, rtol=1e-10)
    relative = jnp.linalg.norm(off.H - critic.H, 2) / jnp.linalg.norm(critic.H, 2)
    np.testing.assert_allclose(relative, 0.3, rtol=1e-10)


def test_best_horizon_moves_the_way_the_formula_says():
    def best(model_error, critic_error):
        given = horizon.problem(0.9, 0, 0.95, model_error, critic_error)
        biases = [
            float(horizon.measure(given, h=h, samples=2)["bias_same"]) for h in range(0, 16, 3)
        ]
        return int(np.argmin(biases))

    assert best(0.3, 0.01) < best(0.01, 1.0)


@pytest.mark.parametrize("h", [2, 8])
def test_bias_is_linear_in_small_model_errors_and_absent_without(h):
    found = [float(theory.bias(theory.wrong_model(0, e), h=h)[0]) for e in (0.0, 1e-4, 2e-4)]
    assert found[0] < 1e-12
    np.testing.assert_allclose(found[2] / found[1], 2, rtol=0.01)


def test_variance_grows_with_the_lipschitz_constant_as_predicted():
    """d log tr / d h at large h is 4 log L, up to powers of h; at L < 1 the trace levels off."""
    steep, flat = (
        [float(theory.trace(theory.growing(0, L), h=h, samples=400)) for h in (40, 60)]
        for L in (1.2, 0.7)
    )
    slope = np.log(steep[1] / steep[0]) / 20
    assert 4 * np.log(1.2) < slope < 4 * np.log(1.2) + 4 * np.log(60 / 40) / 20 + 0.05
    assert flat[1] / flat[0] < 4


def test_variance_of_a_mean_is_one_nth():
    given = theory.wrong_critic(0, 0.9)
    one, many = (float(theory.trace(given, h=2, samples=2000, batch=n)) for n in (1, 10))
    np.testing.assert_allclose(one / many, 10, rtol=0.2)


def test_joined_segments_drop_the_repeated_entry():
    values = np.array([[[0, 1, 2], [2, 3, 4]]])
    np.testing.assert_array_equal(train.join(values), [[0, 1, 2, 3, 4]])


def test_training_table_has_a_row_for_each_evaluation_and_marks_divergence():
    schedule = Schedule(500, 100, 10, 200, 2, 1, 4, 5)
    runs = [{"sn": "none", "init": "orthogonal", "seed": s} for s in (0, 1)]
    returns = np.array([[[[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]]], [[[1.0, np.nan]] * 3]])
    table = train.table(runs, {"returns": returns}, schedule, "pendulum", "sac", 0)
    assert table["step"].tolist() == [100, 300, 500] * 2
    assert table["return_mean"][:3].tolist() == [2, 2, 2]
    np.testing.assert_allclose(table["return_sd"][:3], [2**0.5, 0, 8**0.5])
    assert table["diverged"].tolist() == [False] * 3 + [True] * 3


def test_stratified_moments_by_hand():
    """Two states with means 1 and 3, two samples each: mean 2, noise (2/2 + 2/2)/4 = 0.5."""
    each = gradients.Moments(
        jnp.array([2.0, 2.0]), jnp.array([[2.0], [6.0]]), jnp.array([4.0, 20.0])
    )
    np.testing.assert_allclose(each.trace, [2, 2])
    np.testing.assert_allclose(gradients._stratified_square(each), 4 - 0.5)
    other = gradients.Moments(jnp.array([2.0, 2.0]), jnp.zeros((2, 1)), jnp.zeros(2))
    np.testing.assert_allclose(gradients._stratified_distance(each, other), 4 - 0.5)


def test_directions_have_the_norms_of_what_they_change():
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.full((2, 2), 0.5)}
    found = landscape.direction(params, jax.random.PRNGKey(0))
    np.testing.assert_allclose([jnp.linalg.norm(found["a"]), jnp.linalg.norm(found["b"])], [5, 1])


def test_segments_of_the_dial_are_the_environments():
    env = Hybrid(20.0)
    data = smoothness.collect(env, jax.random.PRNGKey(0), 6)
    for i in range(6):
        for t in range(4):
            following, reward, _ = env.step(data.states[i, t], data.actions[i, t])
            np.testing.assert_allclose(data.states[i, t + 1], following, atol=1e-5)
            np.testing.assert_allclose(data.rewards[i, t], reward, atol=1e-5)


def test_fitted_models_are_normalised_only_where_asked():
    plan = {"width": 8, "depth": 2, "batch": 8, "learning_rate": 0.01, "model_updates": 30}
    data = smoothness.collect(Hybrid(5.0), jax.random.PRNGKey(0), 50)
    for target, close in ((1.5, True), (0.0, False)):
        fitted = smoothness.fit(plan, data, jnp.float32(target), jax.random.PRNGKey(1))
        norms = np.asarray(spectral.exact(smoothness.used(fitted, jnp.float32(target)).dynamics))
        assert np.allclose(norms, 1.5, rtol=0.01) == close
        error = models.loss(
            fitted.model, data._replace(states=fitted.normaliser.apply(data.states))
        )
        assert np.isfinite(error)


def test_intervals_contain_the_mean_and_leave_out_what_is_not_finite():
    mean, low, high = aggregate.interval([1.0, 2.0, 3.0, np.nan])
    assert (mean, low <= mean <= high) == (2.0, True)
    assert aggregate.interval([1.0, 2.0, 3.0]) == aggregate.interval([1.0, 2.0, 3.0])
    assert np.isnan(aggregate.interval([])[0])


def test_best_horizons_by_hand():
    frame = pd.DataFrame({
        "gamma": 0.9, "model_error": 0.1, "critic_error": 0.2, "seed": 0, "formula": 6.7,
        "horizon": [0, 1, 2], "bias_same": [3.0, 1.0, 2.0], "bias_full": [3.0, 2.0, 1.0],
        "trace": [0.0, 640.0, 64.0], "diverged": False,
    })  # fmt: skip
    (row,) = aggregate.best_horizons(frame).to_dict("records")
    assert (row["best_bias_same"], row["best_bias_full"]) == (1, 2)
    assert (row["best_error_same"], row["best_error_full"]) == (0, 2)  # 3, 11, 3; 3, 12, 2


def test_error_of_a_batch_by_hand():
    frame = pd.DataFrame({"bias_model": [2.0], "bias_reference": [3.0], "trace": [64.0],
                          "reference_square": [4.0], "true_square": [8.0]})  # fmt: skip
    row = aggregate.with_errors(frame).iloc[0]
    assert row["relative_bias_model"] == 0.25
    assert row["relative_bias_reference"] == 0.75
    assert row["error_model"] == (2 + 1) / 8
