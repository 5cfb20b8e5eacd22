"""Estimators against closed-form gradients of linear-quadratic systems."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from diffmbrl import keys, registry
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.errors import ConfigError
from diffmbrl.rpg import probe
from diffmbrl.rpg.estimators import rp_dr
from diffmbrl.rpg.objective import (
    Ends,
    Objective,
    Segment,
    check_horizon,
    draw_noises,
    unroll,
    whole,
)

GAMMA, ALPHA, SAMPLES = 0.9, 0.2, 100_000
ESTIMATORS = {
    name: registry.load("rpg.estimators", name).ESTIMATOR for name in ("rp_dp", "rp_dr", "lr")
}


closed_form = jax.jit(lq.gradient, static_argnames="h")


@pytest.fixture
def problem():
    return make_problem()


@jax.jit
def make_problem():
    """A system of 2 states and 1 action that ends with probability 0.05, and a rough critic."""
    key = jax.random.key(3)
    system, policy = lq.random_system(key, 2, 1, radius=0.9, ends=0.05)
    half = jax.random.normal(keys.fold(key, "critic"), (3, 3))
    start = jnp.array([[1.0, 0.2], [0.2, 0.7]])
    return system, policy, lq.QuadraticCritic(half @ half.T), start


@partial(jax.jit, static_argnames="h")
def real_segments(system, policy, start, h, key):
    """Segments of policy and system, and where they end; first states of covariance `start`."""

    def one(key):
        s = jnp.linalg.cholesky(start) @ jax.random.normal(keys.fold(key, "start"), (2,))
        eps = jax.random.normal(keys.fold(key, "eps"), (h, 1))
        xi = system.noise_scale * jax.random.normal(keys.fold(key, "xi"), (h, 2))
        states, actions = [s], []
        for i in range(h):
            a, _ = policy.sample(states[-1], eps[i])
            actions.append(a)
            states.append(system.step(states[-1], a, xi[i]))
        ended = jax.random.bernoulli(keys.fold(key, "ends"), system.ends, (h,)).astype(float)
        within = (jnp.cumsum(ended) - ended == 0).astype(float)
        return Segment(jnp.stack(states), jnp.reshape(jnp.array(actions), (h, 1)),
                       Ends(ended, within))  # fmt: skip

    return jax.vmap(one)(jax.random.split(key, SAMPLES))


@pytest.mark.parametrize("h", [0, 1, 4])
def test_closed_form_equals_the_derivative_of_the_exact_objective(problem, h):
    system, policy, critic, start = problem
    kwargs = {"h": h, "gamma": GAMMA, "alpha": ALPHA}
    ours = closed_form(system, policy, critic, start, **kwargs)
    auto = jax.jit(jax.grad(lambda p: lq.objective(system, p, critic, start, **kwargs)))(policy)
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


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("h", [0, 1, 5])
def test_mean_equals_the_closed_form_within_three_standard_errors(problem, kind, h):
    system, policy, critic, start = problem
    objective = Objective(policy, system, critic, GAMMA, ALPHA)
    segments = real_segments(system, policy, start, h, jax.random.key(10))
    sample_keys = jax.random.split(jax.random.key(11), SAMPLES)

    def one(segment, key):
        return ravel_pytree(ESTIMATORS[kind].gradient(objective, h, segment, key))[0]

    samples = np.asarray(jax.jit(jax.vmap(one))(segments, sample_keys))
    mean = closed_form(system, policy, critic, start, h=h, gamma=GAMMA, alpha=ALPHA)
    exact = ravel_pytree(mean)[0]
    errors = samples.std(axis=0, ddof=1) / np.sqrt(SAMPLES)
    assert np.all(np.abs(samples.mean(axis=0) - exact) < 3 * errors)


@pytest.mark.parametrize("h", [0, 1, 3, 12])
def test_without_noise_rp_dp_is_exact(problem, h):
    system, policy, critic, _ = problem
    system = eqx.tree_at(lambda s: s.noise_scale, system, jnp.zeros(2))
    policy = eqx.tree_at(lambda p: p.log_std, policy, jnp.array([-60.0]))
    s0 = jnp.array([1.0, -2.0])
    segment = whole(s0[None], jnp.zeros((0, 1)))
    objective = Objective(policy, system, critic, GAMMA)
    gradient = jax.jit(ESTIMATORS["rp_dp"].gradient, static_argnums=1)
    ours = gradient(objective, h, segment, jax.random.key(0))
    exact = closed_form(system, policy, critic, jnp.outer(s0, s0), h=h, gamma=GAMMA)
    np.testing.assert_allclose(ours.K, exact.K, rtol=1e-5)


def test_inferred_noises_reproduce_the_segment(problem):
    system, policy, critic, start = problem
    segment = jax.tree.map(
        lambda x: x[0], real_segments(system, policy, start, 4, jax.random.key(1))
    )
    other = lq.LinearPolicy(policy.K + 1, policy.log_std - 0.5)
    objective = Objective(other, system, critic, GAMMA)
    eps, xi = rp_dr.infer_noises(objective, 4, segment, jnp.zeros((5, 1)))
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

        def observe(self, s):
            return s

        def transition(self, s, a, noise):
            return s + 1, jnp.ones(()), jnp.array([0.5, 0.2, 0.1])[s[0].astype(int)]

    policy = lq.LinearPolicy(jnp.zeros((1, 1)), jnp.zeros(1))
    objective = Objective(policy, World(), lambda s, a: 1.0, 0.9)
    total = unroll(objective, jnp.zeros(1), jnp.zeros((4, 1)), jnp.zeros((3, 1)))
    expected = 1 + 0.9 * 0.5 * (1 + 0.9 * 0.8 * (1 + 0.9 * 0.9 * 1))
    np.testing.assert_allclose(total, expected, rtol=1e-12)


def test_a_segment_that_ends_early_counts_its_own_steps_only(problem):
    """Rewards of the steps before the end, then the critic after a time limit, nothing else."""
    system, policy, critic, start = problem
    system = eqx.tree_at(lambda s: s.ends, system, jnp.zeros(()))
    segments = real_segments(system, policy, start, 4, jax.random.key(2))
    states, actions, _ = jax.tree.map(lambda x: x[0], segments)
    elsewhere = states.at[3:].set(50.0)  # of another episode
    within, key = jnp.array([1.0, 1.0, 0.0, 0.0]), jax.random.key(0)
    objective = Objective(policy, system, critic, GAMMA, ALPHA)

    @jax.jit
    def value(states, ended):
        segment = Segment(states, actions, Ends(jnp.array([0.0, ended, 0.0, 0.0]), within))
        return rp_dr.surrogate(objective, 4, segment, key)

    drawn = draw_noises(objective, 4, whole(states, actions), key)[0][4:]
    short = whole(states[:3], actions[:2])
    eps, xi = rp_dr.infer_noises(objective, 2, short, jnp.concatenate([drawn] * 3))
    cut = unroll(objective, states[0], eps, xi)
    np.testing.assert_allclose(value(elsewhere, 0.0), cut, rtol=1e-10)
    soft = [
        system.reward(s, a) - ALPHA * policy.sample(s, e)[1]
        for s, a, e in zip(states[:2], actions[:2], eps[:2], strict=True)
    ]
    np.testing.assert_allclose(value(elsewhere, 1.0), soft[0] + GAMMA * soft[1], rtol=1e-10)
    assert np.all(np.isfinite(jax.grad(lambda s: value(s, 0.0))(elsewhere)))


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
    objective = Objective(policy, system, critic, GAMMA)
    segment = whole(jnp.array([[1.0, -1.0]]), jnp.zeros((0, 1)))

    @jax.jit
    def samples(keys):
        def one(key):
            return ravel_pytree(ESTIMATORS["rp_dp"].gradient(objective, 3, segment, key))[0]

        return jax.lax.map(one, keys.reshape(-1), batch_size=1000).reshape(*keys.shape, -1)

    def trace(n):
        groups = samples(jax.random.split(jax.random.key(n), (4, 1000, 16)))[:, :, :n]
        return float(n * probe.pool(probe.measure(lambda group: group.mean(0), groups)).trace)

    traces = [trace(n) for n in (1, 4, 16)]
    np.testing.assert_allclose(traces[1:], traces[0], rtol=0.15)


@pytest.mark.parametrize("h", [-1, 1.5, True, "3"])
def test_bad_horizons_are_refused(h):
    with pytest.raises(ConfigError, match="horizon"):
        check_horizon(h)


def test_a_horizon_longer_than_any_segment_is_refused():
    with pytest.raises(ConfigError, match="200 steps"):
        check_horizon(201, 200)
    check_horizon(200, 200)
