"""TD(0) targets and the choice of eta, against updates and values computed by hand."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from diffmbrl.envs import chain as chain_env
from diffmbrl.implicit import choice, regret, schedule, td, train
from diffmbrl.implicit.dense import DenseDomain
from diffmbrl.implicit.domains.chain import DOMAIN as CHAIN
from diffmbrl.implicit.parameterizations import explicit, implicit
from diffmbrl.mdp.dense import DenseMDP
from diffmbrl.tables import write_parquet

SEED = 733348321
WHOLE = DenseDomain(chain_env.chain(), lambda: jnp.asarray(chain_env.policy()), n_features=11)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "chain.parquet"
    write_parquet(CHAIN.collect([SEED], 0.1, 6, 9), path)
    return path


SETTINGS = {"seeds": [SEED], "epsilon": 0.1, "updates": 10, "batch_size": 5}


def test_transitions_of_the_chain(path):
    data = td.arrays(path, WHOLE, SETTINGS)
    points = {name: leaf[0] for name, leaf in data["train"].items()}
    assert points["count"] == 6 * 8  # the ninth step of each trajectory has no successor
    rows = pd.read_parquet(path).query("split == 'train'")
    states = rows.pivot_table(index="trajectory", columns="t", values="state").to_numpy(int)
    now, after = states[:, :-1].ravel(), states[:, 1:].ravel()
    inside = points["features"][:48]
    np.testing.assert_array_equal(inside[:, :11].argmax(axis=1), now)
    np.testing.assert_allclose(inside[:, 11:], -0.9 * np.eye(11)[after])
    np.testing.assert_allclose(points["returns"][:48], rows[rows["t"] < 8]["reward"])


def test_an_update_is_semi_gradient_td_by_hand(path):
    """Explicit: theta += alpha mean of phi(s) (r + c + gamma theta(s') - theta(s))."""
    data = td.arrays(path, WHOLE, SETTINGS)
    models = td.bootstrapped(explicit.models(11), 11)._replace(width=1)
    program = train.program(models, updates=10, log_every=1)
    config = {"seed": 0, "learning_rate": 0.5, "eta": jnp.asarray(0.9), "reward_offset": 0.3}
    data = {
        name: jnp.asarray(leaf)
        if not isinstance(leaf, dict)
        else {key: jnp.asarray(value) for key, value in leaf.items()}
        for name, leaf in data.items()
    }
    state = program.init(config, data)
    after, _ = program.advance(config, data, state)
    theta = np.asarray(state["params"]["theta"])
    indices = np.asarray(data["batches"])[0, 0]
    features = np.asarray(data["train"]["features"])[0, indices]
    phi, discounted = features[:, :11], -features[:, 11:]
    error = np.asarray(data["train"]["returns"])[0, indices] + 0.3 + (discounted - phi) @ theta
    expected = theta + 0.5 * phi.T @ error / 5
    np.testing.assert_allclose(after["params"]["theta"], expected, rtol=1e-12)
    np.testing.assert_allclose(after["theta"], np.tile(expected, 2), rtol=1e-12)


def test_models_that_are_one_stay_one():
    same, two = td.bootstrapped(explicit.models(4), 4), td.bootstrapped(implicit.models(40), 40)
    assert same.calm is same.wild
    assert two.calm is not two.wild


def test_states_without_features_are_worth_nothing():
    """Two states, 0 -> 1 -> 1; only 0 has a feature, and pays 2: V(0) = 2, not 2 + 0.5 V(1)."""
    P = jnp.array([[[0.0, 1.0], [0.0, 1.0]]])
    mdp = DenseMDP(P, jnp.array([[2.0], [4.0]]), 0.5)
    found = td.aimed_at(DenseDomain(mdp, lambda: jnp.ones((2, 1)), 1), 0.0, (1, 2))
    np.testing.assert_allclose(found["returns"], [[2, 0]])
    np.testing.assert_allclose(found["discounts"], [[1, 0]])
    both = td.aimed_at(DenseDomain(mdp, lambda: jnp.ones((2, 1)), 2), 0.0, (1, 2))
    np.testing.assert_allclose(both["returns"], [[2 + 0.5 * 8, 8]])
    np.testing.assert_allclose(both["discounts"], [[2, 2]])


def test_the_end_of_an_episode_has_no_successor(tmp_path):
    frame = pd.DataFrame(
        {
            "seed": 1,
            "split": "train",
            "trajectory": [0, 0, 1, 1],
            "reward": [1.0, 2.0, 3.0, 4.0],
            "terminated": [False, True, False, False],
        }
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    points = {"features": np.eye(4)[None]}
    found = td.transitions(tmp_path / "rows.parquet", points, WHOLE, [1])
    assert found["count"] == [3]
    np.testing.assert_array_equal(found["returns"], [[1, 2, 3, 0]])
    np.testing.assert_allclose(found["features"][0, 0], [*np.eye(4)[0], *-0.9 * np.eye(4)[1]])
    np.testing.assert_allclose(found["features"][0, 1], [*np.eye(4)[1], 0, 0, 0, 0])


def test_held_out_trajectories_are_evaluated_and_not_trained(path):
    settings = SETTINGS | {"held_out": 3}
    data = choice.arrays(path, WHOLE, settings)
    assert data["train"]["count"] == [4 * 9]
    assert data["evaluation"]["count"] == [2 * 9]
    rows = pd.read_parquet(path).query("split == 'train'")
    mine = rows[rows["trajectory"].isin([2, 5])]
    np.testing.assert_array_equal(data["evaluation"]["returns"][0, :18], mine["return"])
    np.testing.assert_array_equal(
        data["evaluation"]["features"][0, :18].argmax(axis=1), mine["state"]
    )
    assert (data["evaluation"]["features"][0, 18:] == 0).all()
    assert data["batches"].max() < 36
    keys = schedule.run_keys(SEED)
    expected = schedule.batch_indices(jnp.asarray(keys.batch), 36, 10, 5)
    np.testing.assert_array_equal(data["batches"][0], expected)


def test_regret_by_hand():
    """Etas 0.5 and 0.9, seeds 1 and 2: final residuals 1, 2 and 4, 2; gamma is nearest 0.9."""
    ends = pd.DataFrame(
        {
            "seed": [1, 1, 2, 2],
            "eta": [0.5, 0.9] * 2,
            "reward_offset": 0.0,
            "residual_norm": [1.0, 2.0, 4.0, 2.0],
            "gamma": 0.95,
        }
    )
    rates = ends.assign(largest=[3.0, 9.0, 9.0, 3.0], smallest=1.0)
    validation = ends.assign(step=10, residual_norm=[5.0, 6.0, 5.0, 6.0])
    found = pd.DataFrame(regret.regrets(ends, rates, validation)).set_index("rule")
    best = 1.5  # the mean of 1 and 2
    assert found.loc["true discount", "regret"] == pytest.approx((1 + 0) / 2 / best)
    assert found.loc["held out", "regret"] == pytest.approx((0 + 2) / 2 / best)
    assert found.loc["spectrum", "regret"] == 0
    assert found.loc["eta 0.5", "regret"] == pytest.approx((0 + 2) / 2 / best)
    assert found.loc["spectrum", "eta"] == pytest.approx(0.7)


def test_a_seed_that_diverged_is_left_out_of_a_rule():
    ends = pd.DataFrame(
        {
            "seed": [1, 1, 2, 2],
            "eta": [0.5, 0.9] * 2,
            "reward_offset": 0.0,
            "residual_norm": [1.0, np.nan, 4.0, 2.0],
            "gamma": 0.5,
        }
    )
    rates = ends.assign(largest=1.0, smallest=1.0)
    found = pd.DataFrame(regret.regrets(ends, rates, ends.assign(step=1, residual_norm=1.0)))
    counts = found.set_index("rule")["n"]
    assert counts["eta 0.9"] == 1
    assert counts["eta 0.5"] == 2
