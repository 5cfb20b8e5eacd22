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
from diffmbrl.rpg import gradients, setup, snapshots, train
from diffmbrl.rpg import learner as learning
from diffmbrl.rpg import model as models
from diffmbrl.rpg.arm import plain
from diffmbrl.rpg.objective import Ends
from diffmbrl.rpg.schedule import Schedule
from diffmbrl.rpg.training import Training
from diffmbrl.sweep import engine

SCHEDULE = Schedule(340, 240, 10, 50, 2, 2, 8, 5)


def make(estimator="rp_dp", h=2, terminates=False, **kwargs):
    agent = sac.SAC(3, 1, width=8, depth=2)
    sizes = {"capacity": 340, "batch": 8, "model_width": 8, "model_depth": 2}
    entry = setup.estimator(estimator)
    return learning.Learner(agent, entry, h, 2, terminates, **sizes, **kwargs)


def program(learner=None, schedule=SCHEDULE):
    return Training(learner or make(), Pendulum(), schedule).program()


def configs(seeds=1, sn="both", layers="hidden", target=1.0):
    arm = {"sn": sn, "layers": layers, "init": "orthogonal", "clip": 0}
    return setup.configs(setup.runs([{**arm, "rates": [0.001], "seeds": seeds}]), target)


def filled(learner, episode=7, steps=20, falls=False):
    """A state that holds `steps` transitions; observations count steps, 100 on at each reset.

    Episodes end after `episode` steps, by themselves where `falls`, else by a time limit.
    """
    state = jax.jit(learner.init)(jax.random.PRNGKey(0), plain())
    zeros = jnp.zeros(3, jnp.float32)
    unit = models.Normaliser(jnp.float32(1), zeros, 1 + zeros)
    observe = jax.jit(learner.observe)
    for i in range(steps):
        obs = jnp.full(3, i + 100 * (i // episode), jnp.float32)
        over = falls and i % episode == episode - 1
        step = sac.Transition(obs, jnp.zeros(1, jnp.float32), jnp.float32(i), obs + 1,
                              jnp.float32(over))  # fmt: skip
        state = observe(state, learning.Stored(step, jnp.int32(i % episode)))
    return state._replace(normaliser=unit)


def test_segments_are_consecutive_and_marked_where_they_cross_an_episode():
    learner = make()
    draw = jax.jit(learner.segments, static_argnums=(2, 3), static_argnames="recent")
    found = draw(filled(learner), jax.random.PRNGKey(1), 500, 4)
    rows = np.asarray(found.rewards, int)
    np.testing.assert_array_equal(rows, rows[:, :1] + np.arange(4))
    np.testing.assert_array_equal(found.within, rows // 7 == rows[:, :1] // 7)
    at = rows + 100 * (rows // 7)
    np.testing.assert_array_equal(found.states[:, 0, 0], at[:, 0])
    np.testing.assert_array_equal(found.states[:, 1:, 0], at + 1)
    assert set(rows[:, 0]) == set(range(17))
    newest = draw(filled(learner), jax.random.PRNGKey(1), 500, 4, recent=3)
    assert set(np.asarray(newest.rewards[:, 0])) == {14, 15, 16}


@pytest.mark.parametrize(("estimator", "h"), [("sac", 0), ("rp_dp", 2)])
def test_critics_bootstrap_from_what_a_step_led_to_also_at_a_time_limit(estimator, h, monkeypatch):
    seen = []

    def spy(self, state, batch, key, **kwargs):
        jax.debug.callback(seen.append, batch)
        return state

    monkeypatch.setattr(sac.SAC, "update", spy)
    learner = make(estimator, h)
    state = filled(learner, episode=3)
    jax.block_until_ready(jax.jit(learner.update)(state, jax.random.PRNGKey(1)))
    jax.effects_barrier()
    np.testing.assert_array_equal(seen[0].obs_next, seen[0].obs + 1)
    assert np.any(np.asarray(seen[0].reward, int) % 3 == 2)  # last steps of episodes among them


def test_the_termination_head_sees_as_many_terminal_steps_as_others():
    learner = make(terminates=True)
    balanced = jax.jit(learner.balanced)
    s, _, ended, weight = balanced(filled(learner, falls=True), jax.random.PRNGKey(0))
    np.testing.assert_array_equal(ended, [1] * 4 + [0] * 4)
    np.testing.assert_array_equal(weight, 1)
    assert set(np.asarray(s[:4, 0], int)) <= {6, 113}
    assert not set(np.asarray(s[4:, 0], int)) & {6, 113}
    _, _, ended, weight = balanced(filled(learner), jax.random.PRNGKey(0))
    np.testing.assert_array_equal(weight, [0] * 4 + [1] * 4)
    assert not ended.any()


def test_segments_for_inferred_noises_are_those_that_last_or_terminate():
    ends = Ends(jnp.array([[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0.0]]),
                jnp.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0.0]]))  # fmt: skip
    np.testing.assert_array_equal(gradients.fitting_segments(ends, 3), [1, 1, 0, 0])
    np.testing.assert_array_equal(gradients.fitting_segments(ends, 2), [1, 1, 0, 1])
    np.testing.assert_array_equal(gradients.fitting_segments(ends, 0), 1)


def test_a_horizon_longer_than_what_was_stored_is_refused():
    longest = np.array([[[3, 5]], [[3, 9]]])
    train.check_lengths(make("rp_dr", 5), longest)
    train.check_lengths(make("sac", 0), longest)
    with pytest.raises(ConfigError, match=r"horizon = 6: longer than any .* \(5 steps of one"):
        train.check_lengths(make("rp_dr", 6), longest)


@pytest.mark.parametrize(("uniform", "every"), [(False, False), (True, False), (False, True)])
def test_plain_and_normalised_runs_start_from_the_same_functions(uniform, every):
    learner, s, a = make(), jnp.ones(3, jnp.float32), jnp.ones(1, jnp.float32)
    outputs = []

    @jax.jit
    def start(arm):
        state = learner.init(jax.random.PRNGKey(3), arm)
        world, policy = learner.world(state), learner.policy(state)
        output = jnp.concatenate([world.step(s, a, 0.0), policy.sample(s, a)[0]])
        return output, spectral.exact(world.model.dynamics)

    for on in (False, True):
        flags = {"model": on, "policy": on, "every": every, "uniform": uniform}
        arm = plain()._replace(target=jnp.float32(0.8), **jax.tree.map(jnp.asarray, flags))
        output, norms = start(arm)
        outputs.append(output)
        np.testing.assert_allclose(norms[: None if every else -1], 0.8, rtol=1e-3)
    np.testing.assert_allclose(*outputs, rtol=1e-3)


@pytest.mark.soak
def test_normalisation_holds_through_training_and_only_where_asked():
    on = engine.run(program(), configs(target=1.3), {})
    assert on["sn_error"].max() < 0.01
    everywhere = engine.run(program(), configs(layers="all"), {})
    assert everywhere["sn_error"].max() < 0.01
    assert everywhere["bound_policy"].max() < 1.02
    off = engine.run(program(), configs(sn="none"), {})
    assert np.all(off["sn_error"] == 0)
    assert np.ptp(off["bound_model"]) > 1e-3


def test_snapshots_come_back_whole():
    learner = make()
    found = engine.run(program(learner), configs(), {})
    assert found["returns"].shape == (1, 2, 2, 2)
    snapshot = snapshots.unflatten(learner, SCHEDULE, found["snapshot"][0, 1, 1])
    assert snapshot.segments.states.shape == (8, 6, 3)
    np.testing.assert_array_equal(snapshots.flatten(snapshot), found["snapshot"][0, 1, 1])
    norms = spectral.exact(learner.policy(snapshot.learner).net)
    np.testing.assert_allclose(norms[1], 1, rtol=0.01)
    with pytest.raises(ValueError, match="numbers"):
        snapshots.unflatten(learner, SCHEDULE, found["snapshot"][0, 1, 1][:-1])


def test_snapshot_files_that_are_damaged_or_of_another_schedule_are_named(tmp_path):
    path = tmp_path / "snapshots_rp_dp.parquet"
    shape = (2, len(SCHEDULE.snapshot_steps), 5)
    whole = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    snapshots.write(whole, path)
    np.testing.assert_array_equal(snapshots.read(path, SCHEDULE), whole)
    with pytest.raises(
        DataError, match="snapshots_rp_dp.parquet: has 3 snapshots per run; expected 4"
    ):
        snapshots.read(path, SCHEDULE._replace(snapshots=3))
    for damaged in (path.read_bytes()[:-7], b"nothing", b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="snapshots_rp_dp.parquet: not a whole Parquet file"):
            snapshots.read(path, SCHEDULE)
    snapshots.write(snapshots.NONE, path)
    with pytest.raises(DataError, match=r"holds no snapshots; schedule.snapshots must be at least"):
        snapshots.read(path, SCHEDULE)


def test_a_schedule_without_snapshots_is_one_segment_that_takes_none():
    schedule = SCHEDULE._replace(snapshots=0)
    schedule.check()
    assert (schedule.segments, schedule.snapshot_steps, schedule.evaluations) == (1, [], 2)
    training = Training(make("sac", 0), Pendulum(), schedule)
    config = jax.tree.map(lambda x: x[0], configs())
    _, metrics = jax.eval_shape(lambda c: training.advance(training.start(c)), config)
    assert "snapshot" not in metrics
    assert metrics["returns"].shape == (3, 2)


@pytest.mark.soak
@pytest.mark.usefixtures("compiled_as_results")
def test_a_resumed_run_and_other_lanes_give_the_same_bytes(tmp_path):
    trained = program()
    whole = engine.run(trained, configs(seeds=2), {}, threads=2)
    again = engine.run(trained, configs(seeds=2), {}, threads=1, checkpoint=tmp_path)
    for name in whole:
        np.testing.assert_array_equal(whole[name], again[name])
    (folder,) = tmp_path.iterdir()
    kept = sorted(folder.glob("*.npz"))
    assert len(kept) == 2
    kept[0].unlink()
    resumed = engine.run(trained, configs(seeds=2), {}, threads=1, checkpoint=tmp_path)
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


def test_arms_of_one_program_take_their_own_rate_and_clip():
    """Adam's first step is the rate, whatever the gradient; a second one sees the clip."""
    learner, key = make(), jax.random.PRNGKey(1)
    state = filled(learner)
    update = jax.jit(learner.update)

    def step(**change):
        values = {name: jnp.float32(value) for name, value in change.items()}
        new = update(state._replace(arm=state.arm._replace(**values)), key)[0].agent
        moved = jax.tree.map(lambda a, b: a - b, new.policy, state.agent.policy)
        return moved.net.layers[0].weight, new.optimisers[0][0].mu.net.layers[0].weight

    one, _ = step(rate=0.001)
    np.testing.assert_allclose(step(rate=0.002)[0], 2 * one, rtol=1e-3, atol=1e-7)
    assert np.linalg.norm(step(clip=1e-6)[1]) < 0.101e-6  # 0.1 of what was clipped
    assert np.linalg.norm(step(clip=np.inf)[1]) > 1e-5


@pytest.mark.parametrize(
    ("change", "word"),
    [({"evaluate_every": 55}, "evaluate_every"), ({"steps": 350}, "steps"),
     ({"random_steps": 40, "steps": 140, "stored_steps": 41}, "random_steps")],
)  # fmt: skip
def test_schedules_that_do_not_fit_are_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        program(schedule=SCHEDULE._replace(**change))


def test_sac_has_no_horizon():
    with pytest.raises(ConfigError, match="SAC"):
        make("sac", 2)
