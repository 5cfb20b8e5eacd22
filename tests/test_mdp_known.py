import jax
import jax.numpy as jnp
import numpy as np

from diffmbrl.mdp.dense import expected_return, greedy, optimal_q, policy_values
from diffmbrl.mdp.known import two_state, uniform_start


def test_two_state_by_hand():
    """Best: stay in s1 by action 0 (0.5 a step, left at 0.8), come back from s0 by action 1."""
    mdp = two_state()
    np.testing.assert_allclose(mdp.P.sum(-1), 1)
    q = optimal_q(mdp, 1e-12)
    # s0 plays a0 (q00 > q01 would be a0): solve v = r_pi + 0.9 P_pi v for the greedy policy
    policy = greedy(q, 1e-9)
    np.testing.assert_array_equal(policy, [[1, 0], [1, 0]])
    v = np.linalg.solve(
        np.eye(2) - 0.9 * np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([-0.45, 0.5])
    )
    np.testing.assert_allclose(policy_values(mdp, policy), v, atol=1e-10)
    best = float(expected_return(mdp, policy, uniform_start(mdp)))
    np.testing.assert_allclose(best, 1.0272727, atol=1e-7)
    np.testing.assert_allclose(best, v.mean(), atol=1e-10)


def test_no_stochastic_policy_does_better():
    mdp = two_state()
    start = uniform_start(mdp)
    policies = jax.nn.softmax(2 * jax.random.normal(jax.random.key(0), (500, 2, 2)))
    returns = jax.vmap(lambda p: expected_return(mdp, p, start))(policies)
    assert float(jnp.max(returns)) <= 1.0272728
