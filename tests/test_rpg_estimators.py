"""Estimators against closed-form gradients of linear-quadratic systems."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from diffmbrl import keys
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.errors import ConfigError
from diffmbrl.rpg import estimators, probe

GAMMA, ALPHA, SAMPLES = 0.9, 0.2, 100_000


@pytest.fixture
def problem():
    """A system of 2 states and 1 action that ends with probability 0.05, and a rough critic."""
    key = jax.random.key(3)
    system, policy = lq.random_system(key, 2, 1, radius=0.9, ends=0.05)
    half = jax.random.normal(keys.fold(key, "critic"), (3, 3))
    start = jnp.array([[1.0, 0.2], [0.2, 0.7]])
    return system, policy, lq.QuadraticCritic(half @ half.T), start


def real_segments(system, policy, start, h, key):
    """Segments that policy and system make, and the first states of covariance `start`."""

    def one(key):
        s = jnp.linalg.cholesky(start) @ jax.random.normal(keys.fold(key, "start"), (2,))
        eps = jax.random.normal(keys.fold(key, "eps"), (h, 1))
        xi = system.noise_scale * jax.random.normal(keys.fold(key, "xi"), (h, 2))
        states, actions = [s], []
        for i in range(h):
            a, _ = policy.sample(states[-1], eps[i])
            actions.append(a)
            states.append(system.step(states[-1], a, xi[i]))
        return estimators.Segment(jnp.stack(states), jnp.reshape(jnp.array(actions), (h, 1)))

    return jax.vmap(one)(jax.random.split(key, SAMPLES))


@pytest.mark.parametrize("h", [0, 1, 4])
def test_closed_form_equals_the_derivative_of_the_exact_objective(problem, h):
    system, policy, critic, start = problem
    kwargs = {"h": h, "gamma": GAMMA, "alpha": ALPHA}
    ours = lq.gradient(system, policy, critic, start, **kwargs)
    auto = eqx.filter_grad(lambda p: lq.objective(system, p, critic, start, **kwargs))(policy)
    np.testing.assert_allclose(ravel_pytree(ours)[0], ravel_pytree(auto)[0], rtol=1e-10)


def test_closed_form_by_hand():
    """One state, one action, h = 1: J = -(q m + rho (k^2 m + v)) - g H (m', k m'; ...)."""
    one = jnp.ones((1, 1))
    system = lq.System(0.5 * one, one, 2 * one, 3 * one, jnp.zeros(1), jnp.asarray(0.0))
    policy = lq.LinearPolicy(-0.25 * one, jnp.array([-jnp.inf]))
    critic = lq.QuadraticCritic(jnp.array([[1.0, 0.0], [0.0, 0.0]]))
    # s1 = (0.5 + k) s, J = -m (2 + 3 k^2) - 0.8 m (0.5 + k)^2, dJ/dk = -m (6 k + 1.6 (0.5 + k))
    grad = lq.gradient(system, policy, critic, 4 * one, h=1, gamma=0.8)
    np.testing.assert_allclose(grad.K, [[-4 * (-1.5 + 0.4)]], rtol=1e-12)


@pytest.mark.parametrize("kind", estimators.KINDS)
@pytest.mark.parametrize("h", [0, 1, 5])
def test_mean_equals_the_closed_form_within_three_standard_errors(problem, kind, h):
    system, policy, critic, start = problem
    estimator = estimators.Estimator(kind, h, GAMMA)
    segments = real_segments(system, policy, start, h, jax.random.key(10))
    sample_keys = jax.random.split(jax.random.key(11), SAMPLES)

    def one(segment, key):
        grad = estimator.gradient(policy, system, critic, segment, key, ALPHA)
        return ravel_pytree(grad)[0]

    samples = np.asarray(jax.jit(jax.vmap(one))(segments, sample_keys))
    exact = ravel_pytree(lq.gradient(system, policy, critic, start, h=h, gamma=GAMMA, alpha=ALPHA))[
        0
    ]
    errors = samples.std(axis=0, ddof=1) / np.sqrt(SAMPLES)
    assert np.all(np.abs(samples.mean(axis=0) - exact) < 3 * errors)


@pytest.mark.parametrize("h", [0, 1, 3, 12])
def test_without_noise_rp_dp_is_exact(problem, h):
    system, policy, critic, _ = problem
    system = eqx.tree_at(lambda s: s.noise_scale, system, jnp.zeros(2))
    policy = eqx.tree_at(lambda p: p.log_std, policy, jnp.array([-60.0]))
    s0 = jnp.array([1.0, -2.0])
    segment = estimators.Segment(s0[None], jnp.zeros((0, 1)))
    estimator = estimators.Estimator("rp_dp", h, GAMMA)
    ours = estimator.gradient(policy, system, critic, segment, jax.random.key(0))
    exact = lq.gradient(system, policy, critic, jnp.outer(s0, s0), h=h, gamma=GAMMA)
    np.testing.assert_allclose(ours.K, exact.K, rtol=1e-5)


def test_inferred_noises_reproduce_the_segment(problem):
    system, policy, _critic, start = problem
    segment = jax.tree.map(
        lambda x: x[0], real_segments(system, policy, start, 4, jax.random.key(1))
    )
    other = lq.LinearPolicy(policy.K + 1, policy.log_std - 0.5)
    eps, xi = estimators.infer_noise(other, system, segment, 4, jnp.zeros((5, 1)))
    s = segment.states[0]
    for i in range(4):
        a, _ = other.sample(s, eps[i])
        np.testing.assert_allclose(a, segment.actions[i], rtol=1e-10)
        s = system.step(s, a, xi[i])
        np.testing.assert_allclose(s, segment.states[i + 1], rtol=1e-10)


def test_termination_discounts_each_later_step_once():
    """Rewards 1, critic 1; ends with probability 0.5, 0.2, 0.1: 1 + g 0.5 (1 + g 0.8 (...))."""

    class World(eqx.Module):
        noise_scale: float = 0.0

        def step(self, s, a, noise):
            return s + 1

        def reward(self, s, a):
            return jnp.ones(())

        def terminates(self, s, a, s_next):
            return jnp.array([0.5, 0.2, 0.1])[s[0].astype(int)]

    policy = lq.LinearPolicy(jnp.zeros((1, 1)), jnp.zeros(1))
    total = estimators.unroll(
        policy, World(), lambda s, a: 1.0, jnp.zeros(1), jnp.zeros((4, 1)), jnp.zeros((3, 1)),
        0.9, 0.0,
    )  # fmt: skip
    expected = 1 + 0.9 * 0.5 * (1 + 0.9 * 0.8 * (1 + 0.9 * 0.9 * 1))
    np.testing.assert_allclose(total, expected, rtol=1e-12)


def test_probe_returns_the_trace_of_a_known_gaussian():
    """The released probe would return about 35 |mean|^2 + 3.5 tr(Sigma) on the same samples."""
    mean, root = jnp.array([3.0, -4.0, 0.0]), jnp.array([[1, 0, 0], [0.5, 2, 0], [0, 1, 0.1]])
    trace = float(jnp.sum(root**2))  # tr(root root') = 6.26

    def draw(key):
        return {"w": mean + root @ jax.random.normal(key, (3,))}

    groups = jax.random.split(jax.random.key(0), (40, 500))
    each = probe.measure(draw, groups)
    assert each.trace.shape == (40,)
    found = probe.pool(each)
    np.testing.assert_allclose(found.trace, trace, rtol=0.03)
    np.testing.assert_allclose(found.mean_square, 25, rtol=0.03)
    twenty = probe.pool(probe.measure(draw, jax.random.split(jax.random.key(5), (1, 20))))
    assert abs(float(twenty.trace) - trace) < 0.7 * trace
    assert float(twenty.trace) < 0.05 * (35 * 25 + 3.5 * trace)


def test_probe_by_hand():
    found = probe.moments(jnp.array([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]]))
    # mean (2, 1); sample variances 1 and 3; |mean|^2 = 5, minus 4 / 3
    np.testing.assert_allclose(found.trace, 4.0)
    np.testing.assert_allclose(found.mean_square, 5 - 4 / 3)


def test_variance_falls_as_one_over_n(problem):
    """tr Cov of the mean of n samples times n stays tr(Sigma)."""
    system, policy, critic, _ = problem
    estimator = estimators.Estimator("rp_dp", 3, GAMMA)
    segment = estimators.Segment(jnp.array([[1.0, -1.0]]), jnp.zeros((0, 1)))

    def sample(key):
        return ravel_pytree(estimator.gradient(policy, system, critic, segment, key))[0]

    def mean_of(n):
        def one(key):
            ks = jax.random.split(key, n)
            return jax.vmap(sample)(ks).mean(0)

        return one

    def trace(n):
        each = jax.random.split(jax.random.key(n), (4, 1000))
        return float(n * probe.pool(probe.measure(mean_of(n), each)).trace)

    traces = [trace(n) for n in (1, 4, 16)]
    np.testing.assert_allclose(traces[1:], traces[0], rtol=0.15)


@pytest.mark.parametrize("h", [-1, 1.5, True, "3"])
def test_bad_horizons_are_refused(h):
    with pytest.raises(ConfigError, match="horizon"):
        estimators.Estimator("rp_dp", h, GAMMA)


def test_a_horizon_longer_than_any_segment_is_refused():
    with pytest.raises(ConfigError, match="200 steps"):
        estimators.check_horizon(201, 200)
    estimators.check_horizon(200, 200)


def test_unknown_estimators_are_refused():
    with pytest.raises(ConfigError, match="rp_dq"):
        estimators.Estimator("rp_dq", 1, GAMMA)
