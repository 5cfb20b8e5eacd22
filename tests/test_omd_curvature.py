"""Inverting the inner Hessian, and planning for another reward."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from diffmbrl.envs.cartpole import CartPole
from diffmbrl.omd import cartpole, curvature, zero_shot
from diffmbrl.omd.settings import Setting
from diffmbrl.tables import write_parquet

VALUES = {
    "steps": 40,
    "warmup": 20,
    "evaluate_every": 20,
    "batch": 8,
    "epsilon": 0.1,
    "episodes": 2,
    "hidden": 4,
    "alpha": 0.01,
    "gamma": 0.99,
    "precision": "float64",
    "model_lr": 1e-3,
    "rates": [[1e-3, 0.01]],
    "adjoint_iterations": 2,
    "adjoint_damping": 1e-5,
    "iterations": [2],
    "updates": 5,
}


def test_answers_of_a_singular_system():
    """Eigenvalues 3, 1 and 0: the min-norm solution leaves the null space out."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    H = turn @ np.diag([3.0, 1.0, 0.0]) @ turn.T
    v = turn @ np.array([3.0, 2.0, 0.0])
    values, found = curvature.answers(H, v, [1, 3])
    np.testing.assert_allclose(values, [0, 1, 3], atol=1e-12)
    np.testing.assert_allclose(found["min norm"], turn @ np.array([1.0, 2.0, 0.0]), atol=1e-12)
    np.testing.assert_allclose(found["cg 3"], found["min norm"], rtol=1e-3)
    np.testing.assert_allclose(found["cg 1"], v * (v @ v) / (v @ H @ v), rtol=1e-3)


def test_a_model_step_along_the_identitys_gradient_helps_at_one_step_of_q():
    """At K = 1 and a plain gradient step of Q, the identity's gradient is the exact one."""
    spectrum, rows = curvature.study(Setting("omd", 3), VALUES, 1)
    assert len(spectrum) == 2 * (4 * 5 + 4 * 5 + 2 * 5)  # two networks, layers of 4, 4 and 2
    table = pd.DataFrame(rows).set_index("answer")
    assert list(table.index) == ["identity", "min norm", "cg 2"]
    assert table.loc["identity", "cosine"] == pytest.approx(1)
    assert table.loc["identity", "gain_1"] > 0
    assert table.loc["identity", "gain_1"] >= table["gain_1"].max() - 1e-12


def test_the_new_reward_and_its_transitions():
    obs = jnp.array([[0.0, 0.6, 1.4, 1.6]])
    np.testing.assert_array_equal(zero_shot.reward(obs), [0, 1, 1, 0])
    env = CartPole()
    batch, actions = zero_shot.transitions(env, jax.random.key(0), 50, jnp.float32)
    after = jax.vmap(env.transition)(batch.obs.T, actions)
    np.testing.assert_allclose(batch.obs_next, after.T, rtol=1e-6)
    np.testing.assert_array_equal(batch.terminated, jax.vmap(env.terminal)(after))
    assert 0 < float(batch.reward.mean()) < 1


def test_planning_with_kept_models_gives_a_row_per_run_and_source(tmp_path):
    setting = Setting("omd", 3)
    training = cartpole.build(setting, VALUES)
    size = sum(x.size for x in jax.tree.leaves(training.agent.model.init(jax.random.key(0))))
    path = tmp_path / "omd_width3_lr0.001_tau0.01.parquet"
    models = pd.DataFrame({"parameter": np.arange(size), "value": 0.1})
    write_parquet(models.assign(inner_lr=0.001, tau=0.01, seed=1), path)
    rows = pd.DataFrame(zero_shot.study(path, VALUES))
    assert rows["source"].tolist() == ["model", "true", "untrained"]
    assert rows["return"].between(0, zero_shot.STEPS).all()
    assert zero_shot.setting_of(Path("mle_width2-leaky_lr3e-05_tau0.01.parquet")) == Setting(
        "mle", 2, activation="leaky"
    )
