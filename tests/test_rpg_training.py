"""The learner and its training program: segments, matched starts, normalisation, resuming."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.agents import sac
from diffmbrl.envs.pendulum import Pendulum
from diffmbrl.errors import ConfigError, DataError
from diffmbrl.nets import spectral
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg import model as models
from diffmbrl.rpg import training
from diffmbrl.sweep import engine

SCHEDULE = training.Schedule(340, 240, 10, 50, 2, 2, 8, 5)


def make(estimator="rp_dp", h=2, **kwargs):
    agent = sac.SAC(3, 1, width=8, depth=2)
    return learning.Learner(
        agent, estimator, h, 2, False, capacity=340, batch=8, model_width=8, model_depth=2, **kwargs
    )


def configs(seeds=1, model=True, policy=True, uniform=False, target=1.0):
    return {
        "seed": np.arange(seeds, dtype=np.uint32), "sn_model": np.full(seeds, model),
        "sn_policy": np.full(seeds, policy), "uniform": np.full(seeds, uniform),
        "target": np.full(seeds, target, np.float32),
    }  # fmt: skip


def filled(learner, episode=7, steps=20):
    """A state that holds `steps` transitions of episodes of a given length; s counts steps."""
    sn = learning.Normalisation(*map(jnp.asarray, (False, False, jnp.float32(1), False)))
    state = learner.init(jax.random.PRNGKey(0), sn)
    unit = models.Normaliser(jnp.float32(1), jnp.zeros(3), jnp.ones(3))
    for i in range(steps):
        obs = jnp.full(3, i, jnp.float32)
        step = sac.Transition(obs, jnp.zeros(1, jnp.float32), jnp.float32(i), obs + 1,
                              jnp.float32(0))  # fmt: skip
        state = learner.observe(state, step, jnp.int32(i % episode))
    return state._replace(normaliser=unit)


def test_segments_are_consecutive_and_marked_where_they_cross_an_episode():
    learner = make()
    found = learner.segments(filled(learner), jax.random.PRNGKey(1), 500, 4)
    first = found.states[:, 0, 0]
    np.testing.assert_array_equal(found.states[:, :, 0], first[:, None] + np.arange(5))
    np.testing.assert_array_equal(found.rewards, first[:, None] + np.arange(4))
    np.testing.assert_array_equal(found.valid, (first % 7 <= 3).astype(float))
    assert set(np.asarray(first)) == set(range(17))
    newest = learner.segments(filled(learner), jax.random.PRNGKey(1), 500, 4, recent=3)
    assert set(np.asarray(newest.states[:, 0, 0])) == {14, 15, 16}


@pytest.mark.parametrize("uniform", [False, True])
def test_plain_and_normalised_runs_start_from_the_same_functions(uniform):
    learner, s, a = make(), jnp.ones(3, jnp.float32), jnp.ones(1, jnp.float32)
    outputs = []
    for on in (False, True):
        sn = learning.Normalisation(*map(jnp.asarray, (on, on, jnp.float32(0.8), uniform)))
        state = learner.init(jax.random.PRNGKey(3), sn)
        world, policy = learner.world(state), learner.policy(state)
        outputs.append(jnp.concatenate([world.step(s, a, 0.0), policy.sample(s, a)[0]]))
        norms = spectral.exact(world.model.dynamics)
        np.testing.assert_allclose(norms[:-1], 0.8, rtol=1e-3)
    np.testing.assert_allclose(*outputs, rtol=1e-3)


def test_normalisation_holds_through_training_and_only_where_asked():
    program = training.program(make(), Pendulum(), SCHEDULE, lanes=1)
    on = engine.run(program, configs(target=1.3), {})
    assert on["sn_error"].max() < 0.01
    off = engine.run(program, configs(model=False, policy=False), {})
    assert np.all(off["sn_error"] == 0)
    assert np.ptp(off["bound_model"]) > 1e-3


def test_snapshots_come_back_whole():
    learner, env = make(), Pendulum()
    found = engine.run(training.program(learner, env, SCHEDULE, lanes=1), configs(), {})
    assert found["returns"].shape == (1, 2, 2, 2)
    snapshot = training.unflatten(learner, SCHEDULE, found["snapshot"][0, 1, 1])
    assert snapshot.segments.states.shape == (8, 6, 3)
    np.testing.assert_array_equal(training.flatten(snapshot), found["snapshot"][0, 1, 1])
    norms = spectral.exact(learner.policy(snapshot.learner).net)
    np.testing.assert_allclose(norms[1], 1, rtol=0.01)
    with pytest.raises(ValueError, match="numbers"):
        training.unflatten(learner, SCHEDULE, found["snapshot"][0, 1, 1][:-1])


def test_snapshot_files_that_are_damaged_or_of_another_schedule_are_named(tmp_path):
    path = tmp_path / "snapshots_rp_dp.npy"
    whole = np.zeros((2, len(SCHEDULE.snapshot_steps), 5), np.float32)
    np.save(path, whole)
    np.testing.assert_array_equal(training.read_snapshots(path, SCHEDULE), whole)
    with pytest.raises(DataError, match=r"snapshots_rp_dp.npy: has shape .* expected \(runs, 4,"):
        training.read_snapshots(path, SCHEDULE._replace(snapshots=3))
    for damaged in (path.read_bytes()[:-7], b"nothing", b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="snapshots_rp_dp.npy: not a whole array file"):
            training.read_snapshots(path, SCHEDULE)


def test_a_resumed_run_and_other_lanes_give_the_same_bytes(tmp_path):
    learner, env = make(), Pendulum()
    program = training.program(learner, env, SCHEDULE, lanes=1)
    whole = engine.run(program, configs(seeds=2), {}, threads=2)
    again = engine.run(program, configs(seeds=2), {}, threads=1, checkpoint=tmp_path)
    for name in whole:
        np.testing.assert_array_equal(whole[name], again[name])
    (folder,) = tmp_path.iterdir()
    kept = sorted(folder.glob("*.npz"))
    assert len(kept) == 2
    kept[0].unlink()
    resumed = engine.run(program, configs(seeds=2), {}, threads=1, checkpoint=tmp_path)
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name])


@pytest.mark.parametrize(("estimator", "h"), [("sac", 0), ("rp_dr", 2), ("lr", 2)])
def test_every_estimator_changes_the_actor_and_stays_finite(estimator, h):
    learner = make(estimator, h)
    state = filled(learner)
    new, _ = jax.jit(learner.update)(state, jax.random.PRNGKey(1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new.agent))
    moved = jax.tree.map(lambda a, b: jnp.any(a != b), new.agent.policy, state.agent.policy)
    assert all(jax.tree.leaves(moved))
    same = eqx.tree_equal(new.model, state.model)
    assert bool(same) == (estimator == "sac")


@pytest.mark.parametrize(
    ("change", "word"),
    [({"evaluate_every": 55}, "evaluate_every"), ({"steps": 350}, "steps"),
     ({"random_steps": 100}, "random_steps")],
)  # fmt: skip
def test_schedules_that_do_not_fit_are_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        training.program(make(), Pendulum(), SCHEDULE._replace(**change), lanes=1)


def test_sac_has_no_horizon():
    with pytest.raises(ConfigError, match="SAC"):
        make("sac", 2)
