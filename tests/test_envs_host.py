"""Host-stepped environments: what is refused, and that the same learner trains in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.agents import replay, sac
from diffmbrl.envs.host import HostEnvironment
from diffmbrl.errors import ConfigError
from diffmbrl.rpg import hosted
from diffmbrl.rpg import learner as learning


def make(model_steps=2, capacity=260):
    agent = sac.SAC(3, 1, width=8, depth=1)
    return learning.Learner(
        agent, "rp_dp", 2, model_steps, True, capacity, batch=8, model_width=8, model_depth=1
    )


SN = learning.Normalisation(*map(jnp.asarray, (False, False, jnp.float32(1), False)))


def test_discrete_actions_are_refused():
    with pytest.raises(ConfigError, match="continuous"):
        HostEnvironment("CartPole-v1")


def test_unknown_environments_are_refused():
    with pytest.raises(ConfigError, match="Pendulums-v1"):
        HostEnvironment("Pendulums-v1")


def test_actions_are_scaled_to_the_environments_bounds():
    env = HostEnvironment("Pendulum-v1")
    assert (env.observation_dim, env.action_dim, env.time_limit) == (3, 1, 200)
    env.reset(seed=0)
    env._env.unwrapped.state = np.array([0.5, 0.0])
    obs, reward, *_ = env.step(np.array([-0.5]))
    # torque -1: velocity 0.05 (15 sin 0.5 - 3), cost 0.5^2 + 0.001
    np.testing.assert_allclose(obs[2], 0.05 * (15 * np.sin(0.5) - 3), rtol=1e-5)
    np.testing.assert_allclose(reward, -(0.25 + 0.001), rtol=1e-6)


def test_the_learner_trains_on_the_host():
    env, learner = HostEnvironment("Pendulum-v1", reward_scale=0.1), make()
    state, returns = hosted.train(learner, env, SN, 0, steps=250, random_steps=220, update_every=10)
    assert len(returns) == 1
    assert -2000 < returns[0] < 0
    assert int(state.buffer.added) == 250
    stored = replay.take(state.buffer, jnp.arange(199, 201))
    assert stored.age.tolist() == [199, 0]
    assert stored.transition.terminated.tolist() == [0, 0]
    before = learner.init(jax.random.PRNGKey(0), SN)
    moved = jax.tree.map(lambda a, b: jnp.any(a != b), state.agent.policy, before.agent.policy)
    assert any(jax.tree.leaves(moved))


def test_segments_shorter_than_the_horizon_stop_training():
    with pytest.raises(ConfigError, match="longer than any stored segment"):
        hosted.train(make(model_steps=30), HostEnvironment("Pendulum-v1"), SN, 0, steps=40,
                     random_steps=20, update_every=1)  # fmt: skip
