"""Environments against their definitions, hand-computed transitions and gymnasium's checker."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from diffmbrl.envs.chain import ADVANCE, GIVE_UP, chain
from diffmbrl.envs.four_rooms import TERMINAL, four_rooms
from diffmbrl.envs.mountain_car import MountainCarFunctional, energy_pumping


@pytest.mark.parametrize("name", ["Chain-v0", "FourRooms-v0", "MountainCar-v0"])
def test_passes_gymnasiums_checker(name):
    env = gymnasium.make(f"diffmbrl/{name}").unwrapped
    check_env(env, skip_render_check=True)
    first, _ = env.reset(seed=3)
    steps = [env.step(1)[0] for _ in range(5)]
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(steps, [env.step(1)[0] for _ in range(5)])


def test_chain_transitions_and_rewards():
    mdp = chain()
    assert mdp.P.shape == (2, 11, 11)
    np.testing.assert_allclose(mdp.P.sum(axis=-1), 1)
    assert mdp.P[ADVANCE, 4, 5] == 1
    assert mdp.P[ADVANCE, 9, 0] == 1
    assert mdp.P[GIVE_UP, 4, 10] == 1
    assert mdp.P[GIVE_UP, 9, 10] == 1
    assert mdp.P[ADVANCE, 10, 0] == 1
    assert mdp.P[GIVE_UP, 10, 0] == 1
    assert mdp.r[9, ADVANCE] == 10
    assert mdp.r[10, GIVE_UP] == 1
    assert np.count_nonzero(mdp.r) == 2


def test_four_rooms_transitions_and_rewards():
    mdp = four_rooms()
    assert mdp.P.shape == (4, 122, 122)
    np.testing.assert_allclose(mdp.P.sum(axis=-1), 1)
    corner, below, right = 0, 11, 1
    down, up, east, west = range(4)
    # From the corner: down succeeds with 2/3; up and left stay; right happens with 1/9.
    assert mdp.P[down, corner, below] == pytest.approx(2 / 3)
    assert mdp.P[down, corner, right] == pytest.approx(1 / 9)
    assert mdp.P[down, corner, corner] == pytest.approx(2 / 9)
    assert mdp.P[west, corner, corner] == pytest.approx(2 / 3 + 1 / 9)
    # (1, 4) faces no wall to its right, (0, 4) does.
    assert mdp.P[east, 15, 16] == pytest.approx(2 / 3)
    assert mdp.P[east, 4, 5] == 0
    goal = 7 * 11 + 1
    assert all(mdp.P[a, goal, TERMINAL] == pytest.approx(1) for a in range(4))
    assert all(mdp.P[a, TERMINAL, TERMINAL] == pytest.approx(1) for a in range(4))
    assert (mdp.r[goal] == 1).all()
    assert mdp.r.sum() == 4


def test_mountain_car_by_hand():
    env = MountainCarFunctional()
    after = env.transition(jnp.array([-0.5, 0.0]), 2)
    velocity = 0.001 - 0.0025 * np.cos(-1.5)
    np.testing.assert_allclose(after, [-0.5 + velocity, velocity], rtol=1e-12)
    # The position moves by the velocity before it is clipped to 0.07.
    after = env.transition(jnp.array([0.0, 0.07]), 2)
    unclipped = 0.07 + 0.001 - 0.0025
    np.testing.assert_allclose(after, [unclipped, unclipped], rtol=1e-12)
    fast = env.transition(jnp.array([-1.0, 0.0695]), 2)
    before_clip = 0.0695 + 0.001 - 0.0025 * np.cos(-3.0)
    np.testing.assert_allclose(fast, [-1.0 + before_clip, 0.07], rtol=1e-12)
    # The left wall does not stop the car.
    wall = env.transition(jnp.array([-1.2, -0.05]), 0)
    assert wall[0] == pytest.approx(-1.2)
    assert wall[1] < -0.04


def test_mountain_car_rewards_and_observation():
    env = MountainCarFunctional()
    outside, inside = jnp.array([0.49, 0.0]), jnp.array([0.5, 0.0])
    assert env.reward(outside, 2, outside) == -1
    assert env.reward(outside, 2, inside) == 0
    assert not env.terminal(outside)
    assert env.terminal(inside)
    assert env.observation(outside).dtype == jnp.float32
    starts = jax.vmap(env.initial)(jax.random.split(jax.random.PRNGKey(0), 200))
    assert starts[:, 0].min() >= -0.6
    assert starts[:, 0].max() <= -0.4
    assert (starts[:, 1] == 0).all()
    assert energy_pumping(jnp.array([0.0, 0.0])).tolist() == [0, 0, 1]
    assert energy_pumping(jnp.array([0.0, -1e-3])).tolist() == [1, 0, 0]
