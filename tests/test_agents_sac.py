"""SAC: its policy's densities, and its losses by hand and by finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.agents import sac
from diffmbrl.nets import mlp as nets


@pytest.fixture
def agent():
    return sac.SAC(3, 2, width=8, depth=1, gamma=0.9)


def test_density_integrates_to_one():
    policy = sac.TanhGaussian(nets.mlp(jax.random.key(0), [1, 4, 2]))
    s, grid = jnp.array([0.3]), jnp.linspace(-0.999999, 0.999999, 200_001)

    @jax.jit
    @jax.vmap
    def density(a):
        noise = policy.infer(s, a[None])
        return jnp.exp(policy.sample(s, noise)[1])

    total = np.trapezoid(density(grid), grid)
    np.testing.assert_allclose(total, 1, atol=1e-3)


def test_inferred_noise_gives_the_action_back():
    policy = sac.TanhGaussian(nets.mlp(jax.random.key(1), [2, 8, 4]))
    s, a = jnp.array([0.5, -1.0]), jnp.array([0.7, -0.2])
    back = jax.jit(lambda s, a: policy.sample(s, policy.infer(s, a))[0])(s, a)
    np.testing.assert_allclose(back, a, rtol=1e-12)


def test_log_density_is_finite_at_saturation_and_its_score_has_mean_zero():
    net = nets.mlp(jax.random.key(1), [1, 2])
    policy = sac.TanhGaussian(eqx.tree_at(lambda n: n.layers[0].bias, net, jnp.array([9.0, 0.0])))
    noises = jax.random.normal(jax.random.key(2), (20_000, 1))
    score = jax.grad(lambda p, e: p.log_density(jnp.zeros(1), e))
    scores = jax.jit(jax.vmap(score, (None, 0)))(policy, noises)
    bias = np.asarray(scores.net.layers[0].bias)
    assert np.isfinite(bias).all()
    error = bias.std(0) / np.sqrt(len(bias))
    assert np.all(np.abs(bias.mean(0)) < 4 * error)


def _linear(weight, bias):
    return nets.MLP((nets.Linear(jnp.array([weight]), jnp.array([bias])),))


def test_critic_loss_by_hand_bootstraps_over_time_limits_only(agent):
    """Q = 2, targets 5 and 7 (min 5), r = 1, alpha = 0: y = 1 + 0.9 * 5 or, terminated, 1."""
    zeros = [0.0] * 5
    state = jax.jit(agent.init)(jax.random.key(0))
    state = state._replace(
        critics=sac.Twin(_linear(zeros, 2.0), _linear(zeros, 2.0)),
        targets=sac.Twin(_linear(zeros, 5.0), _linear(zeros, 7.0)),
        log_alpha=jnp.float32(-jnp.inf),
    )
    obs, action = jnp.zeros((2, 3), jnp.float32), jnp.zeros((2, 2), jnp.float32)
    batch = sac.Transition(obs, action, jnp.ones(2), obs, jnp.array([0.0, 1.0]))
    loss = eqx.filter_jit(agent.critic_loss)(
        state.critics, state, state.policy, batch, jax.random.key(1)
    )
    cut, ended = (2 - 5.5) ** 2, (2 - 1.0) ** 2
    np.testing.assert_allclose(loss, 0.5 * np.mean([2 * cut, 2 * ended]), rtol=1e-6)


def test_update_moves_targets_temperature_and_actor_the_right_way(agent):
    state = jax.jit(agent.init)(jax.random.key(0))
    key = jax.random.key(1)
    obs = jax.random.normal(key, (32, 3), jnp.float32)
    action = jax.random.uniform(key, (32, 2), jnp.float32, -1, 1)
    batch = sac.Transition(obs, action, jnp.ones(32), obs, jnp.zeros(32))
    new = jax.jit(agent.update)(state, batch, key)
    for t_new, t, q in zip(*map(jax.tree.leaves, (new.targets, state.targets, new.critics)),
                           strict=True):  # fmt: skip
        np.testing.assert_allclose(t_new, t + agent.tau * (q - t), rtol=1e-4, atol=1e-7)

    @jax.jit
    def with_log_prob(value):
        return agent.update(state, batch, key, surrogate=lambda p, s: (p.low * jnp.sum(obs), value))

    sure, unsure = with_log_prob(5.0), with_log_prob(-5.0)
    assert sure.log_alpha > state.log_alpha > unsure.log_alpha
    objective = jax.jit(lambda p: agent.objective(p, new, obs, jax.random.key(3))[0])
    before, after = objective(state.policy), objective(new.policy)
    assert after > before
