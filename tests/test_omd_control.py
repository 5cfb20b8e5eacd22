"""Continuous control: implicit gradient of SAC's critics, distractors, memory, training, figure."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.flatten_util import ravel_pytree

from diffmbrl import config
from diffmbrl.agents import memory
from diffmbrl.agents.replay import Transition
from diffmbrl.agents.sac import SAC
from diffmbrl.envs.distracted import Distracted
from diffmbrl.envs.pendulum import Pendulum
from diffmbrl.errors import ConfigError
from diffmbrl.omd import control, control_summary, rules
from diffmbrl.omd.agent import Rates
from diffmbrl.omd.agents.mle import MLE
from diffmbrl.omd.agents.omd import OMD
from diffmbrl.omd.control_settings import settings_of
from diffmbrl.omd.sac_agent import Critics, Model, with_sac
from diffmbrl.omd.sac_train import Training, program
from diffmbrl.omd.settings import Setting
from diffmbrl.plots import fig_omd_8
from diffmbrl.sweep import checkpoints, engine

ROOT = Path(__file__).parents[1]
RATES = Rates(*map(jnp.float32, (1e-3, 1e-3, 1e-3)))
Q, MODEL = Critics(SAC(3, 1, width=4, depth=1)), Model(3, 1, 4)
pytestmark = pytest.mark.usefixtures("rank_promotion_allowed")


def batch(n=16):
    rng = np.random.default_rng(0)
    shapes = ((n, 3), (n, 1), (n,), (n, 3))
    parts = [jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32) for shape in shapes]
    return Transition(*parts, jnp.asarray(rng.random(n) < 0.2, jnp.float32))


def test_scale_mujoco_runs_this_case_alone():
    settings = config.load(ROOT).settings("omd", "mujoco")
    found = {rule.stage for rule in rules.RULES if rule.instances(settings)}
    assert found == {"omd.control", "omd.control_summary", "omd.claims", "plots.fig_omd_8"}


def doubled(tree):
    """In float64, and moved away from biases of 0, where dead units put every kink."""
    return jax.tree.map(lambda x: x.astype(float) + 0.03 if x.dtype == jnp.float32 else x, tree)


def test_the_implicit_gradient_is_that_of_finite_differences():
    """-v (d2 L / dw dtheta), the outer gradient v in place of H^-1 v; in float64."""
    agent, data = with_sac(OMD(Q, MODEL, warm_optimizer=True)), doubled(batch())
    state = doubled(agent.init(jax.random.PRNGKey(0)))
    w, context, key = state.q, state.q_target, jax.random.PRNGKey(1)
    found, residual = jax.jit(agent.implicit_gradient)(state.model, w, context, data, key)
    flat, restore = ravel_pytree(state.model)

    @jax.jit
    def along(theta):
        def inner(w):
            return Q.loss(w, context, MODEL.imagine(restore(theta), data, key)[0])[0]

        v = jax.grad(lambda w: Q.loss(w, context, data)[0])(w)
        return -ravel_pytree(v)[0] @ ravel_pytree(jax.grad(inner)(w))[0]

    numeric = [(along(flat + d) - along(flat - d)) / 2e-6 for d in 1e-6 * np.eye(len(flat))]
    np.testing.assert_allclose(ravel_pytree(found)[0], numeric, rtol=1e-4, atol=1e-7)
    assert residual == 0
    assert np.abs(numeric).max() > 1e-3


@pytest.mark.parametrize("kind", [OMD, pytest.param(MLE, marks=pytest.mark.soak)])
def test_an_update_changes_model_critics_and_policy(kind):
    warm = {"warm_optimizer": True} if kind is OMD else {}
    agent = with_sac(kind(Q, MODEL, inner_steps=2, **warm))
    state = agent.init(jax.random.PRNGKey(0))
    batches = [batch()] * agent.batches
    new, losses = jax.jit(agent.update)(state, batches, RATES, jax.random.PRNGKey(2))
    assert agent.batches == (1 if kind is OMD else 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new, losses)))
    for part in ("q", "model", "q_opt"):
        pairs = zip(*(jax.tree.leaves(getattr(s, part)) for s in (state, new)), strict=True)
        assert any(np.any(a != b) for a, b in pairs)
    assert np.any(ravel_pytree(state.q_target.policy)[0] != ravel_pytree(new.q_target.policy)[0])


def test_likelihood_is_the_squared_error_of_next_observation_and_reward():
    data, params = batch(), MODEL.init(jax.random.PRNGKey(0))
    loss, mse = MODEL.likelihood_loss(params, data)
    found = np.stack(
        [params["net"](jnp.append(s, a)) for s, a in zip(data.obs, data.action, strict=True)]
    )
    errors = np.sum((found[:, :3] - data.obs_next) ** 2, axis=1)
    np.testing.assert_allclose(mse, errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss, (errors + (found[:, 3] - data.reward) ** 2).mean(), rtol=1e-5)


def test_distractors_are_new_at_each_step_and_tell_nothing():
    plain = Pendulum()
    env = Distracted(plain, 500)
    state = env.reset(jax.random.PRNGKey(0))
    assert (env.observation_dim, env.state_dim, state.shape) == (503, 5, (5,))
    following, reward, _ = env.step(state, jnp.zeros(1))
    expected, same, _ = plain.step(state[:3], jnp.zeros(1))
    np.testing.assert_array_equal(env.observe(following)[:3], expected)
    assert reward == same
    noise = np.stack([env.observe(s)[3:] for s in (state, following)])
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=0.15)
    np.testing.assert_allclose(noise.std(axis=1), 1, atol=0.1)
    assert np.abs(np.corrcoef(noise)[0, 1]) < 0.15
    np.testing.assert_array_equal(
        env.observe(following), env.observe(env.step(state, jnp.zeros(1))[0])
    )


def test_a_replay_that_does_not_fit_is_refused_after_its_sum_is_shown(capsys, monkeypatch):
    row = Transition(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3,), (1,), (), (3,), ())))
    each = memory.bytes_of(row, 1000)
    assert each == 1000 * 9 * 4 + 4
    monkeypatch.setattr(memory, "free", lambda: 3 * each)
    assert memory.lanes(each, 5, 4, "a run") == 2
    assert "a run: the replay of a run takes 3.6e-05 GB" in capsys.readouterr().err
    monkeypatch.setattr(memory, "free", lambda: each)
    with pytest.raises(ConfigError, match="a run: .* does not fit; lower steps or distractors"):
        memory.lanes(each, 5, 4, "a run")


@pytest.mark.soak
@pytest.mark.usefixtures("compiled_as_results")
def test_training_goes_on_from_a_kill_to_the_same_bytes(tmp_path, monkeypatch):
    env = Distracted(Pendulum(), 2)
    q = Critics(SAC(env.observation_dim, 1, width=4, depth=1))
    agent = with_sac(OMD(q, Model(env.observation_dim, 1, 4), warm_optimizer=True))
    training = Training(agent, env, 40, 10, 20, 4, 2)
    compiled = engine._compile(program(training), 1)
    monkeypatch.setattr(engine, "_compile", lambda *_: compiled)
    train = partial(control.train, training, 1, 1e-3)
    whole = train()
    assert whole["eval_return"].shape == (1, 2)
    assert (whole["eval_return"] < -500).all()
    save = checkpoints.Checkpoints.save

    def save_then_die(*arguments):
        save(*arguments)
        raise OSError("killed")

    monkeypatch.setattr(checkpoints.Checkpoints, "save", save_then_die)
    with pytest.raises(OSError, match="killed"):
        train(checkpoint=tmp_path)
    monkeypatch.setattr(checkpoints.Checkpoints, "save", save)
    again = train(checkpoint=tmp_path)
    assert [x.tobytes() for x in whole.values()] == [x.tobytes() for x in again.values()]


def test_settings_of_a_task():
    plan = {"widths": [8, 64], "distractors": [0, 16], "model_width": 64, "inner_steps": [1, 3],
            "rates": {"omd": [], "mle": []}}  # fmt: skip
    found = settings_of(plan, "cg")
    assert len(found) == 2 * 2 * 3
    assert found[2] == Setting("omd", 64, 16, adjoint="cg", inner_optimizer="warm")
    assert found[-1].variant == "width64-distractors16-k3"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distractors": [-1]}, "distractors.0 = -1: must be at least 0"),
        ({"steps": 1234567}, "steps = 1234567: must be a multiple of evaluate_every"),
        ({"rates": {"vep": [[1, 1]]}}, "vep"),
    ],
)
def test_bad_values_are_one_line(change, message):
    with pytest.raises(ConfigError, match=message):
        config.load(overrides={"omd": {"control": {"tasks": {"half_cheetah": change}}}})
    with pytest.raises(ConfigError, match="control.tasks: unknown key 'cheetah'"):
        config.load(overrides={"omd": {"control": {"tasks": {"cheetah": {}}}}})


def runs():
    """Two agents, two seeds, two evaluations; OMD has a second, worse pair of rates."""
    rows = []
    for agent, rate, returns in (
        ("omd", 1.0, (10, 14)),
        ("omd", 2.0, (1, 2)),
        ("mle", 1.0, (6, 8)),
    ):
        for seed, value in enumerate(returns):
            for step in (5, 10):
                rows.append({
                    "task": "hopper", "width": 8, "distractors": 0, "inner_steps": 1,
                    "agent": agent, "adjoint": "identity", "inner_lr": rate, "model_lr": 1.0,
                    "seed": seed, "step": step, "diverged": False, "q_value": 0.0,
                    "model_mse": 1.0, "eval_return": float(value) if step == 10 else -99.0,
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_statistics_of_the_selected_rates():
    found = control_summary.finals(runs(), 1)
    assert len(found) == 4
    arms = control_summary.arms(found).set_index("agent")
    # 95% of Student's t with 1 degree of freedom: 12.706 standard errors; s.e. of 10, 14 is 2
    np.testing.assert_allclose(arms.loc["omd", ["mean", "low", "high"]].astype(float),
                               [12, 12 - 25.412, 12 + 25.412], rtol=1e-4)  # fmt: skip
    (row,) = control_summary.differences(found).to_dict("records")
    assert (row["difference"], row["n_omd"], row["n_mle"]) == (5, 2, 2)
    assert row["low"] < 0 < row["high"]
    curves = control_summary.curves(runs(), found)
    assert curves["mean"].tolist() == [-99, 7, -99, 12]


def test_the_figure_states_its_reductions():
    plan = {"final_evaluations": 3, "tasks": {"hopper": {
        "seeds": 5, "steps": 20000, "hidden": 64, "batch": 256}}}  # fmt: skip
    text = fig_omd_8.note("laptop", plan, {"hopper": {"LABEL": "Hopper"}})
    assert "final: mean of the last 3 evaluations" in text
    one = fig_omd_8.note("laptop", plan | {"final_evaluations": 1}, {})
    assert one.startswith("scale laptop \u00b7 final: last evaluation\n")
    assert text.endswith("Hopper: 5 seeds, 20,000 steps (paper: 1,000,000), 64 units (paper: 256), "
                         "256 per batch")  # fmt: skip
