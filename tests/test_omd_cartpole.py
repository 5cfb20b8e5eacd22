from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.flatten_util import ravel_pytree

from diffmbrl.agents.soft_q import SoftQ
from diffmbrl.envs.cartpole import CartPole
from diffmbrl.errors import ConfigError
from diffmbrl.omd import cartpole, fresh, train
from diffmbrl.omd.agents.mle import MLE
from diffmbrl.omd.agents.omd import OMD
from diffmbrl.omd.models import Model
from diffmbrl.omd.rules import over_fresh, over_settings
from diffmbrl.omd.settings import Setting, settings_of
from diffmbrl.pipeline.stage import Job
from diffmbrl.sweep import checkpoints, engine
from diffmbrl.tables import read_parquet, write_parquet

VALUES = {
    "steps": 60, "warmup": 20, "evaluate_every": 20, "batch": 8, "epsilon": 0.1, "episodes": 2,
    "hidden": 4, "alpha": 0.01, "gamma": 0.99, "precision": "float64", "model_lr": 1e-3,
    "inner_lr": "0.001", "tau": "0.01", "seeds": 2, "adjoint_iterations": 2,
    "adjoint_damping": 1e-5,
}  # fmt: skip


def small(agent=OMD, **kwargs) -> train.Training:
    q, model = SoftQ(4, 2, hidden=4), Model(4, 2, 2)
    return train.Training(agent(q, model), CartPole(), steps=60, warmup=20, segment=20, batch=8,
                          episodes=2, **kwargs)  # fmt: skip


CONFIG = {"seed": jnp.asarray(1), "inner_lr": jnp.asarray(1e-3), "tau": jnp.asarray(0.01),
          "model_lr": jnp.asarray(1e-3)}  # fmt: skip


@pytest.fixture(scope="module")
def after_two_segments():
    training = small()
    advance = jax.jit(lambda state: train._advance(training, CONFIG, state))
    state = jnp.zeros((), jnp.int32), train._init(training, CONFIG)
    first, _ = advance(state)
    second, metrics = advance(first)
    return first, second, metrics


def test_replay_holds_the_transitions_of_the_environment(after_two_segments):
    _, (_, carry), _ = after_two_segments
    rows = np.asarray(carry.buffer.data)
    assert not np.any(rows[40:])
    env = CartPole()
    for obs, after, action in zip(rows[:40, :4], rows[:40, 4:8], rows[:40, 8], strict=True):
        expected = env.transition(jnp.asarray(obs, jnp.float32), int(action))
        np.testing.assert_allclose(after, expected, atol=1e-6)
    chained = np.all(rows[1:40, :4] == rows[:39, 4:8], axis=1)
    np.testing.assert_array_equal(chained, rows[:39, 10] == 0)  # a new episode after an end
    assert set(np.unique(rows[:40, 8])) == {0.0, 1.0}
    assert (rows[:40, 9] == 1).all()


def test_nothing_is_learned_during_the_warmup_but_its_last_step(after_two_segments):
    (_, first), (_, second), metrics = after_two_segments
    assert int(first.agent.model_opt.count) == 1
    assert int(second.agent.model_opt.count) == 21
    assert np.isfinite(metrics["q_loss"])


def test_time_limit_does_not_stop_the_bootstrap():
    training = small()
    carry = train._init(training, CONFIG)._replace(clock=jnp.asarray(499, jnp.int32))
    draw = jax.tree.map(
        lambda x: x[0], train._draws(training, jax.random.key(0), jnp.full(1, 8, jnp.int32))
    )
    after = train._interact(training, carry, draw, jnp.asarray(0))
    assert int(after.clock) == 0
    assert float(after.buffer.data[0, 10]) == 0.0
    np.testing.assert_allclose(after.obs, draw.initial)


def test_evaluation_counts_the_steps_of_an_episode():
    training = small()
    state = training.agent.init(jax.random.key(0))
    weights = jax.tree.map(jnp.zeros_like, state.q)
    bias = jnp.array([[[100.0], [0.0]]] * 2)  # always pushes left
    state = state._replace(q=(*weights[:-1], (weights[-1][0], bias)))
    returned = float(train.evaluate(training, state, jax.random.key(1)))
    assert 8 <= returned <= 11  # what pushing one way lasts in CartPole-v1


@pytest.mark.soak
@pytest.mark.usefixtures("compiled_as_results")
def test_resuming_gives_the_same_bytes(tmp_path):
    program = train.program(small(MLE), lanes=1, segments_per_call=1)
    configs = {k: np.full(2, v) for k, v in CONFIG.items()} | {"seed": np.arange(2)}
    whole = engine.run(program, configs, None)
    calls = []
    real = checkpoints.Checkpoints.save

    def save(self, index, progress):
        real(self, index, progress)
        calls.append(index)
        if len(calls) == 2:
            raise KeyboardInterrupt

    checkpoints.Checkpoints.save = save
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.run(program, configs, None, checkpoint=tmp_path)
    finally:
        checkpoints.Checkpoints.save = real
    resumed = engine.run(program, configs, None, checkpoint=tmp_path)
    for name, values in whole.items():
        assert values.tobytes() == resumed[name].tobytes()


@pytest.fixture(scope="module")
def tables():
    """Of one setting: curves, models, predictions."""
    return cartpole.train(Setting("omd", 2, frozen="dynamics"), VALUES, 1, None)


def test_tables_of_one_setting(tables):
    curves, models, shown = tables
    assert curves["step"].tolist() == [20, 40, 60] * 2
    assert curves["seed"].tolist() == [1] * 3 + [2] * 3
    assert not curves["diverged"].any()
    assert curves["dead_dynamics"].isin([0, 0.25, 0.5, 0.75, 1]).all()
    assert curves["random_mse"].between(0.01, 100).all()
    layers = {"dynamics": (6, 2, 2, 4), "reward": (6, 2, 2, 1)}
    size = sum(n * (m + 1) for s in layers.values() for m, n in pairwise(s))
    assert models["parameter"].tolist() == [*range(size)] * 2
    assert models["seed"].tolist() == [1] * size + [2] * size
    assert set(shown["coordinate"]) == {0, 1, 2, 3}
    assert np.isfinite(shown["predicted"]).all()


def test_fresh_seeds_are_trained_at_the_selected_pair(tables, tmp_path):
    """At the pair with the better last evaluation, as seeds beyond those that selected it."""
    curves = tables[0]
    folder, paths = tmp_path / "selection", {}
    folder.mkdir()
    last = curves["step"] == 60
    for tau, end in ((0.01, 20.0), (0.5, 10.0)):
        one = curves[curves["seed"] == 1].assign(seed=0, tau=tau)
        one["eval_return"] = one["eval_return"].where(~last, end)
        paths[tau] = folder / f"{tau}.parquet"
        write_parquet(one, paths[tau])
    values = {name: value for name, value in VALUES.items() if name not in ("inner_lr", "tau")}
    values |= {"agent": "omd", "variant": "width2-frozendynamics", "final_evaluations": 1}
    output = {"curves": tmp_path / "fresh.parquet"}
    job = Job(values | {"fresh_seeds": 1}, {"runs": [*paths.values()]}, output, 1, tmp_path / "s")
    fresh.run(job)
    found = read_parquet(output["curves"])
    expected = curves[curves["seed"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_predictions_are_those_of_the_final_model_with_distractors_at_zero():
    setting = Setting("mle", 2, distractors=3)
    training = cartpole.build(setting, VALUES)
    program = train.program(training, lanes=1)
    state = jax.jit(program.init)(CONFIG, None)
    advance = jax.jit(program.advance)
    for _ in range(program.segments):
        state, _ = advance(CONFIG, None, state)
    final = state[1].agent.model
    runs = {name: np.asarray(value)[None] for name, value in CONFIG.items()}
    last = program.last(CONFIG, None, state)["model"]
    shown = cartpole.predictions(setting, runs, np.asarray(last)[None], training)
    assert len(shown) == 4 * cartpole.REPORTED_STEPS
    states, actions = cartpole.optimal_trajectory(5)
    x = np.concatenate([states[4], np.zeros(3), np.eye(2)[int(actions[4])]])
    for weights, bias in final["dynamics"][:-1]:
        x = np.maximum(weights[0] @ x + bias[0, :, 0], 0)
    expected = final["dynamics"][-1][0][0] @ x + final["dynamics"][-1][1][0, :, 0]
    one = shown[shown["t"] == 4].sort_values("coordinate")
    np.testing.assert_allclose(one["predicted"], expected[:4], rtol=1e-10)
    np.testing.assert_allclose(one["true"], states[5], rtol=1e-12)


@pytest.mark.parametrize("frozen", ["dynamics", pytest.param("reward", marks=pytest.mark.soak)])
def test_a_frozen_network_stays_as_drawn_and_the_other_learns(frozen, tables):
    setting = Setting("omd", 2, frozen=frozen)
    _, models, _ = tables if frozen == "dynamics" else cartpole.train(setting, VALUES, 1, None)
    models = models[models["seed"] == 1]
    training = cartpole.build(setting, VALUES)
    drawn = train._init(training, CONFIG).agent.model
    final = ravel_pytree(drawn)[1](jnp.asarray(models["value"].to_numpy()))
    for name in drawn:
        pairs = zip(*map(jax.tree.leaves, (final[name], drawn[name])), strict=True)
        moved = [bool(jnp.any(a != b)) for a, b in pairs]
        assert any(moved) == (name != frozen)


def test_jobs_are_a_setting_at_one_pair_of_rates():
    cartpole = {
        "experiments": ["selection", "parts"],
        "agents": {
            "omd": {"rates": {"selection": [[0.001, 0.01], [0.0003, 0.005]], "parts": [[0.1, 1]]}},
            "vep": {"rates": {"selection": [[0.001, 0.01]]}},
        },
        "selection": {"widths": [3, 6]},
        "parts": {"widths": [1]},
    }
    jobs = over_settings({"cartpole": cartpole})
    names = ["{experiment} {agent} {variant} {inner_lr} {tau}".format(**job) for job in jobs]
    assert names == [
        "selection omd width3 0.001 0.01",
        "selection omd width3 0.0003 0.005",
        "selection vep width3 0.001 0.01",
        "selection omd width6 0.001 0.01",
        "selection omd width6 0.0003 0.005",
        "selection vep width6 0.001 0.01",
        "parts omd width1 0.1 1",
        "parts omd width1-leaky 0.1 1",
        "parts omd width1-frozendynamics 0.1 1",
        "parts omd width1-frozenreward 0.1 1",
    ]


def test_fresh_seeds_are_run_of_settings_with_several_pairs():
    cartpole = {
        "experiments": ["selection"],
        "agents": {
            "omd": {"rates": {"selection": [[0.001, 0.01], [0.0003, 0.005]]}},
            "vep": {"rates": {"selection": [[0.001, 0.01]]}},
        },
        "selection": {"widths": [3, 6], "fresh_seeds": 2},
    }
    omd = [{"agent": "omd", "variant": f"width{width}"} for width in (3, 6)]
    assert over_fresh({"cartpole": cartpole}) == omd
    assert over_fresh({"cartpole": cartpole | {"experiments": []}}) == []
    none = {"widths": [3, 6], "fresh_seeds": 0}
    assert over_fresh({"cartpole": cartpole | {"selection": none}}) == []


def test_settings_of_the_experiments():
    width = settings_of("width", {"widths": [1, 3]}, ["omd", "mle", "vep"])
    assert [(s.agent, s.width) for s in width] == [
        ("omd", 1),
        ("mle", 1),
        ("vep", 1),
        ("omd", 3),
        ("mle", 3),
        ("vep", 3),
    ]
    axes = {"model_width": 32, "distractors": [16]}
    (one,) = settings_of("distractors", axes, ["mle"])
    assert one == Setting("mle", 32, 16)
    axes = {"model_width": 8, "inner_steps": [1, 3], "adjoints": ["cg"], "probabilistic": True}
    base = Setting("omd", 8)
    assert settings_of("ablation", axes, []) == [
        base, replace(base, inner_steps=3), replace(base, double_q=False),
        replace(base, inner_optimizer="warm"), replace(base, adjoint="cg"),
        replace(base, probabilistic=True),
    ]  # fmt: skip


def test_a_setting_is_named_by_what_is_not_default():
    names = {
        "width3": Setting("omd", 3),
        "width32-distractors16": Setting("omd", 32, 16),
        "width32-k3-warm": Setting("omd", 32, inner_steps=3, inner_optimizer="warm"),
        "width3-leaky-frozenreward": Setting("omd", 3, activation="leaky", frozen="reward"),
        "width8-single-cg-gaussian": Setting("omd", 8, 0, 1, False, "cg", probabilistic=True),
    }
    for name, setting in names.items():
        assert setting.variant == name
        assert Setting.parse("omd", name) == setting
    with pytest.raises(ConfigError, match="'depth2' is none of width<number>"):
        Setting.parse("omd", "width3-depth2")
    with pytest.raises(ConfigError, match="k3: must give the model's width"):
        Setting.parse("omd", "k3")


def test_bad_combinations_are_refused():
    with pytest.raises(ConfigError, match="steps = 50: must be a multiple of evaluate_every"):
        cartpole.build(Setting("omd", 2), VALUES | {"steps": 50})
    with pytest.raises(ConfigError, match="warmup = 30: must be at most evaluate_every"):
        cartpole.build(Setting("omd", 2), VALUES | {"warmup": 30})
    with pytest.raises(ConfigError, match="batch = 64: must be at most warmup"):
        cartpole.build(Setting("omd", 2), VALUES | {"batch": 64})


def test_the_reference_trajectory_is_optimal():
    states, actions = cartpole.optimal_trajectory(500)
    assert states.shape == (501, 4)
    assert not np.any(jax.vmap(CartPole().terminal)(states))
    assert 0.3 < float(np.mean(actions)) < 0.7
