"""MuJoCo's tasks: gymnasium's bytes, batches, what is refused, true gradients."""

from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl import registry
from diffmbrl.envs import callback
from diffmbrl.envs.mujoco import MuJoCo
from diffmbrl.envs.simulator import Simulator
from diffmbrl.errors import ConfigError
from diffmbrl.rpg import setup

LARGE = {"ant", "walker2d", "half_cheetah"}  # their gradients are checked in `make soak`
TASKS = [n for n in registry.names("rpg.tasks") if isinstance(setup.environment(n), MuJoCo)]


def test_every_task_is_there():
    names = ["inverted_pendulum", "inverted_double_pendulum", "hopper", "half_cheetah", "walker2d",
             "ant"]  # fmt: skip
    assert names == TASKS
    for name in TASKS:
        spec = gymnasium.spec(setup.environment(name).name)
        assert registry.fact("rpg.tasks", name, "SOLVED") == spec.reward_threshold


@pytest.mark.parametrize("task", TASKS)
def test_steps_and_resets_are_gymnasiums_byte_for_byte(task):
    ours = setup.environment(task)
    theirs = gymnasium.make(ours.name, **dict(ours.options))
    rng, key, step = np.random.default_rng(0), jax.random.PRNGKey(0), jax.jit(ours.step)
    reset, ends, age = jax.jit(ours.reset), 0, 0

    def start(key):
        obs, _ = theirs.reset(seed=int(jax.random.bits(key, (), jnp.uint32)))
        state = reset(key)
        assert np.asarray(ours.observe(state)).tobytes() == obs.tobytes()
        return state

    state = start(key)
    for t in range(1000):
        action = rng.uniform(-1, 1, ours.action_dim).astype(np.float32)
        obs, reward, terminated, truncated, _ = theirs.step(theirs.action_space.high * action)
        state, found, ended = step(state, action)
        age += 1
        assert np.asarray(ours.observe(state)).tobytes() == obs.tobytes()
        assert (found, ended) == (reward, terminated)
        assert truncated == (age >= ours.time_limit)
        if terminated or truncated:
            state, ends, age = start(jax.random.fold_in(key, t)), ends + 1, 0
    assert ends > 0
    assert ours.terminates or ends == 1


@pytest.mark.usefixtures("compiled_as_results")
def test_many_lanes_are_each_as_if_alone():
    env = setup.environment("hopper")
    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.PRNGKey(1), 6))
    actions = np.random.default_rng(1).uniform(-1, 1, (2, 3, env.action_dim)).astype(np.float32)
    states = states.reshape(2, 3, -1)
    together = jax.jit(jax.vmap(jax.vmap(env.step)))(states, actions)
    step = jax.jit(env.step)
    for i in np.ndindex(2, 3):
        for a, b in zip(together, step(states[i], actions[i]), strict=True):
            assert np.asarray(a[i]).tobytes() == np.asarray(b).tobytes()


def test_actions_that_are_not_finite_end_the_episode_with_nan():
    env = setup.environment("half_cheetah")
    state = env.reset(jax.random.PRNGKey(0))
    after, reward, ended = env.step(state, jnp.full(6, jnp.nan))
    assert np.isnan(after).all()
    assert np.isnan(reward)
    assert ended == 1


def test_an_unstable_simulation_is_one_line(capfd):
    env = setup.environment("hopper")
    state = env.reset(jax.random.PRNGKey(0)).at[7].set(1e11)  # a velocity
    step = jax.jit(env.step)
    line = "task = 'Hopper-v5': the simulation became unstable"
    with pytest.raises(ConfigError, match=line), callback.one_line():
        step(state, jnp.zeros(3))[0].block_until_ready()
    assert capfd.readouterr().err == ""
    assert np.isfinite(step(env.reset(jax.random.PRNGKey(0)), jnp.zeros(3))[0]).all()


class Unbounded(gymnasium.Env):
    """An environment whose actions have no bounds."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Hoppers-v5", "gymnasium cannot make it: Environment `Hoppers` doesn't exist"),
        ("CartPole-v1", "its actions are Discrete.2.; they must be continuous"),
        ("Unbounded-v0", "its actions have no bounds"),
        ("Pendulum-v1", "is no MuJoCo task"),
    ],
)
def test_tasks_that_cannot_be(name, message):
    if name == "Unbounded-v0" and name not in gymnasium.registry:
        gymnasium.register(name, entry_point=Unbounded)
    with pytest.raises(ConfigError, match=f"task = '{name}': {message}"):
        MuJoCo(name)


def visited(sim, seed):
    """A state within an episode of uniform actions, and five actions that follow."""
    rng = np.random.default_rng(seed)
    state, ended = sim.reset(np.array(seed)), False
    for _ in range(rng.integers(3, 60)):
        following, _, ended = sim._step(state, rng.uniform(-1, 1, sim.action_dim))
        state = sim.reset(np.array(1000 + seed)) if ended else following
    return state, rng.uniform(-0.9, 0.9, (5, sim.action_dim)), rng


def central(value, x, width):
    return np.array([value(x + d) - value(x - d) for d in width * np.eye(len(x))]) / (2 * width)


@pytest.mark.parametrize(
    "task",
    [pytest.param(name, marks=[pytest.mark.soak] * (name in LARGE)) for name in TASKS],
)
def test_true_gradients_are_the_differences_of_whole_unrolls(task):
    """Relative error at most 1e-5 at each of 20 states, of a random value of a 5-step unroll.

    Differences of two widths are extrapolated: where contacts are stiff, five steps are so curved
    that those of one width are off by 1e-3.
    """
    env = setup.environment(task)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(free, actions, state, weights):
        def step(s, a):
            s, reward, _ = env.step(s, a)
            return s, reward

        last, rewards = jax.lax.scan(step, state.at[: len(free)].set(free), actions)
        return last @ weights + jnp.sum(rewards)

    touching = 0
    sim = Simulator(env.name, **dict(env.options))
    for seed in range(20):
        state, actions, rng = visited(sim, seed)
        weights = rng.normal(size=sim.state_dim)
        weights[sim.free : -sim.observation_dim] = 0  # of the solver's warm start

        def value(x, state=state, weights=weights):
            s, total = np.concatenate([x[: sim.free], state[sim.free :]]), 0.0
            for action in x[sim.free :].reshape(5, -1):
                s, reward, _ = sim._step(s, action)
                total += reward
            return s @ weights + total

        x = np.append(state[: sim.free], actions)
        wide, narrow = (central(value, x, width) for width in (3e-7, 1e-7))
        expected = (9 * narrow - wide) / 8
        touching += sim._data.ncon > 0
        found = gradient(state[: sim.free], actions, state, weights)
        off = np.concatenate([np.ravel(part) for part in found]) - expected
        assert np.linalg.norm(off) <= 1e-5 * np.linalg.norm(expected)
    assert touching >= 4 or "pendulum" in task


def test_gradients_of_many_lanes_and_of_float32_actions():
    env = setup.environment("hopper")
    state = env.reset(jax.random.PRNGKey(2))
    actions = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (3, 3)), jnp.float32)
    by_action = jax.grad(lambda a: env.step(state, a)[1])
    together = jax.jit(jax.vmap(by_action))(actions)
    assert together.dtype == jnp.float32
    for one, action in zip(together, actions, strict=True):
        np.testing.assert_array_equal(one, jax.jit(by_action)(action))
