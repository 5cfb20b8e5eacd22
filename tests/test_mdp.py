"""Bellman operators on MDPs whose values are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.mdp import dense


@pytest.fixture
def two_states():
    """Action 0 stays and pays 1 in state 1; action 1 moves to the other state and pays 0."""
    P = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    r = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    return dense.DenseMDP(P, r, 0.5)


def test_optimal_values(two_states):
    # Best is to be in state 1 and stay: v(1) = 1 / (1 - 0.5) = 2, v(0) = 0.5 * 2 = 1.
    q = dense.optimal_q(two_states)
    np.testing.assert_allclose(q, [[0.5, 1.0], [2.0, 0.5]], atol=1e-9)
    np.testing.assert_allclose(dense.bellman(two_states, q), q, atol=1e-9)


def test_policy_values_and_return(two_states):
    uniform = jnp.full((2, 2), 0.5)
    # v0 = 0.25 (v0 + v1), v1 = 0.5 + 0.25 (v0 + v1): v = (0.25, 0.75).
    np.testing.assert_allclose(dense.policy_values(two_states, uniform), [0.25, 0.75], rtol=1e-12)
    start = jnp.array([0.5, 0.5])
    assert dense.expected_return(two_states, uniform, start) == pytest.approx(0.5)


def test_soft_operator_bounds_the_hard_one(two_states):
    q = jnp.array([[0.3, -0.2], [1.0, 0.7]])
    hard, soft = dense.bellman(two_states, q), dense.soft_bellman(two_states, q, 0.1)
    assert (soft >= hard).all()
    assert (soft <= hard + 0.5 * 0.1 * np.log(2) + 1e-12).all()
    cold = dense.soft_bellman(two_states, q, 1e-4)
    np.testing.assert_allclose(cold, hard, atol=1e-4)


def test_soft_max_by_hand():
    assert dense.soft_max(jnp.array([0.0, 0.0]), 2.0) == pytest.approx(2 * np.log(2))


def test_greedy_shares_ties():
    policy = dense.greedy(jnp.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]]))
    np.testing.assert_allclose(policy, [[0.5, 0.5, 0], [0, 1, 0]])
    mixed = dense.epsilon_greedy(policy, 0.3)
    np.testing.assert_allclose(mixed, [[0.45, 0.45, 0.1], [0.1, 0.8, 0.1]])
