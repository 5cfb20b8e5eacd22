"""Learning in MuJoCo's tasks: true gradients of a policy, training that is resumed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from diffmbrl.agents import sac
from diffmbrl.nets import mlp as nets
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg import model as models
from diffmbrl.rpg import setup
from diffmbrl.rpg.objective import Objective, unroll
from diffmbrl.rpg.schedule import Schedule
from diffmbrl.rpg.training import Training
from diffmbrl.sweep import checkpoints, engine


@pytest.mark.soak
@pytest.mark.usefixtures("compiled_as_results")
def test_training_in_mujoco_goes_on_from_a_kill_to_the_same_bytes(tmp_path, monkeypatch):
    env = setup.environment("hopper")
    agent = sac.SAC(env.observation_dim, env.action_dim, width=4, depth=1)
    sizes = {"capacity": 1100, "batch": 4, "model_width": 4, "model_depth": 1}
    learner = learning.Learner(agent, setup.estimator("sac"), 0, 2, True, **sizes,
                               state_dim=env.state_dim)  # fmt: skip
    program = Training(learner, env, Schedule(1100, 1020, 20, 20, 2, 2, 4, 5)).program()
    arm = {"sn": "none", "layers": "hidden", "init": "orthogonal", "clip": 0}
    one = setup.configs(setup.runs([{**arm, "rates": [0.001], "seeds": 1}]), 1.0)
    compiled = engine._compile(program, 1)
    monkeypatch.setattr(engine, "_compile", lambda *_: compiled)
    whole = engine.run(program, one, {})
    assert np.isfinite(whole["returns"]).all()
    save = checkpoints.Checkpoints.save

    def save_then_die(*arguments):
        save(*arguments)
        raise OSError("killed")

    monkeypatch.setattr(checkpoints.Checkpoints, "save", save_then_die)
    with pytest.raises(OSError, match="killed"):
        engine.run(program, one, {}, checkpoint=tmp_path)
    monkeypatch.setattr(checkpoints.Checkpoints, "save", save)
    again = engine.run(program, one, {}, checkpoint=tmp_path)
    assert [x.tobytes() for x in whole.values()] == [x.tobytes() for x in again.values()]


def hopper_in_float64():
    """The true world, a policy, a critic, and a state in the air."""
    env = setup.environment("hopper")
    n, m = env.observation_dim, env.action_dim
    normaliser = models.Normaliser(jnp.ones(()), jnp.full(n, 0.1), jnp.full(n, 4.0))
    world = models.TrueWorld(env, normaliser, jnp.zeros(n))
    policy = sac.TanhGaussian(nets.mlp(jax.random.PRNGKey(0), [n, 4, 2 * m], activation="tanh"))
    return Objective(policy, world, lambda s, a: jnp.sum(s) + jnp.sum(a), 0.9, 0.1), env


def test_the_policys_true_gradient_is_the_difference_of_unrolls():
    objective, env = hopper_in_float64()
    state = env.reset(jax.random.PRNGKey(1))
    eps = jax.random.normal(jax.random.PRNGKey(2), (4, env.action_dim))
    quiet = jnp.zeros((3, env.observation_dim))
    flat, restore = ravel_pytree(objective.policy)

    @jax.jit
    def value(flat):
        return unroll(objective._replace(policy=restore(flat)), state, eps, quiet)

    found = jax.jit(jax.grad(value))(flat)
    for i in (0, 30, len(flat) - 1):
        d = 1e-6 * jnp.eye(len(flat))[i]
        np.testing.assert_allclose(found[i], (value(flat + d) - value(flat - d)) / 2e-6, rtol=1e-5)


def test_the_true_world_goes_along_stored_segments():
    objective, env = hopper_in_float64()
    world, actions = objective.world, jnp.full((1, 3, env.action_dim), 0.2)
    states = [env.reset(jax.random.PRNGKey(1))]
    for action in actions[0]:
        states.append(env.step(states[-1], action)[0])
    stored = models.Segments(None, actions, None, None, None, jnp.stack(states[:3])[None])
    found, _ = world.segment(stored)
    np.testing.assert_array_equal(found[0], jnp.stack(states))
    np.testing.assert_array_equal(world.observe(states[1]), (states[1][-11:] - 0.1) / 2)
    following, reward, ends = world.transition(states[0], actions[0, 0], jnp.zeros(11))
    np.testing.assert_array_equal(following, states[1])
    assert reward == env.step(states[0], actions[0, 0])[1]
    assert ends == 0
