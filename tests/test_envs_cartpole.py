import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from diffmbrl.envs.cartpole import STEP_LIMIT, CartPole


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steps_agree_with_cartpole_v1(seed):
    ours, theirs = CartPole(), gym.make("CartPole-v1").unwrapped
    obs, _ = theirs.reset(seed=seed)
    state = jnp.asarray(obs)
    actions = np.random.default_rng(seed).integers(2, size=200)
    step = jax.jit(lambda s, a: (ours.transition(s, a), ours.terminal(ours.transition(s, a))))
    for action in actions:
        obs, reward, ended, _, _ = theirs.step(int(action))
        before = state
        state, over = step(state, int(action))
        np.testing.assert_allclose(state, obs, atol=2e-5)
        assert bool(over) == ended
        assert float(ours.reward(before, action, state)) == reward == 1.0
        if ended:
            break
    assert ended


def test_first_states_are_small_and_differ_by_key():
    first = [CartPole().initial(jax.random.key(i)) for i in range(20)]
    assert np.all(np.abs(np.stack(first)) <= 0.05)
    assert len({float(s[0]) for s in first}) == 20


def test_distractors_are_fresh_standard_normals_behind_the_state():
    env, state = CartPole(3), jnp.arange(4.0, dtype=jnp.float32)
    keys = jax.random.split(jax.random.key(0), 4000)
    seen = jax.vmap(lambda k: env.observation(state, k))(keys)
    assert seen.shape == (4000, 7) == (4000, env.n_obs)
    np.testing.assert_array_equal(seen[:, :4], np.tile(state, (4000, 1)))
    np.testing.assert_allclose(np.mean(seen[:, 4:], axis=0), 0, atol=0.06)
    np.testing.assert_allclose(np.cov(seen[:, 4:].T), np.eye(3), atol=0.1)


def test_negative_distractors_are_refused():
    with pytest.raises(ValueError, match="distractors=-1: must be at least 0"):
        CartPole(-1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_registered_environment_passes_gymnasiums_checker_and_has_the_limit():
    env = gym.make("diffmbrl/CartPole-v1", distractors=2)
    assert env.spec.max_episode_steps == STEP_LIMIT
    env.unwrapped.reset(seed=0)
    check_env(env.unwrapped, skip_render_check=True)
