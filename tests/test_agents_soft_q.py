import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from diffmbrl.agents.replay import Transition
from diffmbrl.agents.soft_q import SoftQ, soft_value


def test_soft_value_by_hand():
    q = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    value = soft_value(q, 0.5)
    np.testing.assert_allclose(value, [0.5 * np.log(2), 0.5 * np.log(np.exp(2) + 1)], atol=1e-12)
    assert float(soft_value(jnp.array([[300.0], [299.0]]), 0.01)[0]) == pytest.approx(300.0)


def constant_q(double: bool) -> tuple[SoftQ, tuple]:
    """Networks that output 1, 3 (and 2, 5 for the second) whatever the observation."""
    agent = SoftQ(2, 2, hidden=3, double=double, alpha=0.01, gamma=0.9)
    params = jax.tree.map(jnp.zeros_like, agent.init(jax.random.key(0)))
    bias = jnp.array([[1.0, 3.0], [2.0, 5.0]])[: 2 if double else 1, :, None]
    return agent, (*params[:-1], (params[-1][0], bias))


BATCH = Transition(
    obs=jnp.ones((2, 2)),
    action=jnp.array([[1.0, 0.0], [0.0, 1.0]]),
    reward=jnp.array([1.0, -1.0]),
    obs_next=jnp.ones((2, 2)),
    terminated=jnp.array([0.0, 1.0]),
)


def test_targets_take_the_least_network_and_stop_at_an_end():
    agent, params = constant_q(double=True)
    np.testing.assert_allclose(agent.target(params, BATCH), [1 + 0.9 * 3, -1], atol=1e-12)


def test_loss_by_hand():
    agent, params = constant_q(double=True)
    # errors: network 1: 1 - 3.7, 3 + 1; network 2: 2 - 3.7, 5 + 1; values 1, 3, 2, 5
    expected = np.mean([2.7**2, 4.0**2, 1.7**2, 6.0**2])
    loss, value = agent.loss(params, params, BATCH)
    assert float(loss) == pytest.approx(expected, abs=1e-12)
    assert float(value) == pytest.approx(11 / 4, abs=1e-12)


def test_policy_is_the_softmax_of_the_mean_network():
    agent, params = constant_q(double=True)
    logits = agent.logits(params, jnp.ones((2, 1)))[:, 0]
    np.testing.assert_allclose(logits, [150.0, 400.0])
    gumbel = jnp.array([[0.0, 251.0], [0.0, 0.0]])
    assert agent.act(params, jnp.ones((2, 2)), gumbel).tolist() == [1, 0]


def test_gradient_of_the_loss_against_finite_differences():
    agent = SoftQ(3, 2, hidden=4, alpha=0.5)
    # Away from zero biases, where dead units leave later ones exactly on ReLU's kink.
    fresh = (agent.init(jax.random.key(i)) for i in (0, 1))
    params, target = (jax.tree.map(lambda x: 2 * x + 0.05, p) for p in fresh)
    keys = jax.random.split(jax.random.key(2), 3)
    batch = Transition(
        jax.random.normal(keys[0], (3, 5)), jax.nn.one_hot(jnp.array([0, 1, 1, 0, 1]), 2).T,
        jax.random.normal(keys[1], (5,)), jax.random.normal(keys[2], (3, 5)), jnp.zeros(5),
    )  # fmt: skip
    check_grads(
        lambda p: agent.loss(p, target, batch)[0],
        (params,),
        order=1,
        modes=["rev", "fwd"],
        eps=1e-6,
    )
