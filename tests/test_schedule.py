"""The random schedule, against numbers of the published runs carried as facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl import registry
from diffmbrl.implicit import schedule
from diffmbrl.implicit.domains.chain import DOMAIN as CHAIN
from diffmbrl.implicit.domains.mountain_car import DOMAIN as MOUNTAIN_CAR
from diffmbrl.mdp.dense import policy_values

SEED = 733348321

# Residual norms at step 0 in the released logs of Gehring et al. 2021, seed 733348321:
# (domain, eta, reward offset) -> value. Their solver stops at 1e-6, hence the tolerance.
PUBLISHED_START = {
    ("chain", 0.8, 0.0): 27.09705616464298,
    ("chain", 0.975, 1.0): 64.17700459662201,
    ("four_rooms", 0.8, 0.0): 4.489648412204183,
    ("four_rooms", 0.975, 1.0): 113.1790162893509,
}


@pytest.mark.parametrize(("domain", "eta", "offset"), PUBLISHED_START)
def test_initial_residual_is_the_published_one(domain, eta, offset):
    entry = registry.load("implicit.domains", domain).DOMAIN
    mdp = entry.mdp
    values = np.asarray(policy_values(mdp, entry.behaviour(0.1)))
    phi = entry.features(np.arange(mdp.n_states)[:, None])
    w, F = schedule.initial_parameters(jnp.asarray(schedule.run_keys(SEED).init), phi.shape[1])
    P = np.asarray(jax.nn.softmax(F[:, 0], axis=-1))
    theta = np.linalg.solve(np.eye(len(P)) - eta * P, np.asarray(w[:, 0]))
    residual = phi @ theta - (values + offset / (1 - mdp.gamma))
    published = PUBLISHED_START[domain, eta, offset]
    assert np.linalg.norm(residual) == pytest.approx(published, rel=1e-4)


def test_keys_are_distinct_and_repeatable():
    keys = schedule.run_keys(SEED)
    again = schedule.run_keys(SEED)
    assert all((a == b).all() for a, b in zip(keys, again, strict=True))
    assert len({tuple(key) for key in keys}) == 3
    training, evaluation = schedule.set_keys(SEED)
    assert training.environment != evaluation.environment
    assert tuple(training.policy) != tuple(evaluation.policy)


def test_actions_follow_the_cumulative_rule():
    keys = jax.random.split(jax.random.PRNGKey(0), 4000)
    drawn = jax.vmap(lambda k: schedule.sample_action(k, jnp.array([0.2, 0.0, 0.8])))(keys)
    counts = np.bincount(drawn, minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.2, 0.0, 0.8], atol=0.02)


def test_first_batch_of_the_stream_is_passed_over():
    key = jnp.asarray(schedule.run_keys(SEED).batch)
    _, first = jax.random.split(key)
    batches = schedule.batch_indices(key, 50, 3, 25)
    assert batches.shape == (3, 25)
    skipped = jax.random.choice(first, 50, (25,), replace=True)
    assert not (batches[0] == skipped).all()
    following, _ = jax.random.split(key)
    _, second = jax.random.split(following)
    np.testing.assert_array_equal(batches[0], jax.random.choice(second, 50, (25,), replace=True))


def test_initial_parameters_shape_and_rows():
    w, F = schedule.initial_parameters(jax.random.PRNGKey(1), 7, actions=3)
    assert w.shape == (7, 3)
    assert F.shape == (7, 3, 7)
    np.testing.assert_allclose(F.max(axis=-1), 0)
    P = jax.nn.softmax(F, axis=-1)
    own = np.arange(7)
    assert (P[own, :, own] > 2 / 3 - 1e-12).all()


@pytest.fixture(scope="module")
def chain_data():
    return CHAIN.collect([SEED, 1395720285], 0.1, 50, 100)


def test_dataset_rows_and_returns(chain_data):
    one = chain_data[chain_data["seed"] == SEED]
    training = one[one["split"] == "train"]
    assert len(training) == 50 * 100
    assert (training.groupby("trajectory").size() == 100).all()
    path = training[training["trajectory"] == 3]
    weights = 0.9 ** np.arange(100)
    assert path["return"].iloc[0] == pytest.approx(weights @ path["reward"], rel=1e-12)
    assert path["discount_sum"].iloc[0] == pytest.approx(weights.sum(), rel=1e-12)
    assert path["discount_sum"].iloc[-1] == 1
    assert path["truncated"].tolist() == [False] * 99 + [True]
    advancing = training[(training["action"] == 0) & (training["state"] == 9)]
    assert (advancing["reward"] == 10).all()
    evaluation = one[one["split"] == "evaluation"]
    assert len(evaluation) == 11
    np.testing.assert_allclose(evaluation["discount_sum"], 10)


def test_offset_is_exact(chain_data):
    """Returns of shifted rewards equal the return plus offset times the discounts' sum."""
    path = chain_data[(chain_data["split"] == "train") & (chain_data["trajectory"] == 0)]
    path = path[path["seed"] == SEED]
    shifted = 0.9 ** np.arange(100) @ (path["reward"] + 0.3)
    first = path.iloc[0]
    assert first["return"] + 0.3 * first["discount_sum"] == pytest.approx(shifted, rel=1e-13)


def test_seeds_do_not_depend_on_each_other(chain_data):
    alone = CHAIN.collect([1395720285], 0.1, 50, 100)
    together = chain_data[chain_data["seed"] == 1395720285].reset_index(drop=True)
    assert alone.equals(together)


def test_mountain_car_sets():
    frame = MOUNTAIN_CAR.collect([SEED], 0.1, 10, 200, 1000)
    assert frame.groupby("split").size().to_dict() == {"evaluation": 1000, "train": 1226}
    ends = frame[frame["terminated"]]
    assert (ends["reward"] == 0).all()
    assert (frame.loc[~frame["terminated"], "reward"] == -1).all()
    assert frame["position"].dtype == np.float32


@pytest.mark.parametrize("name", registry.names("implicit.domains"))
def test_a_domains_facts_are_those_of_its_object(name):
    """Figures read the facts, training the object."""
    domain = registry.load("implicit.domains", name).DOMAIN
    facts = registry.facts("implicit.domains")[name]
    assert domain.gamma == facts["GAMMA"]
    if hasattr(domain, "mdp"):  # a state without features is predicted as 0 whatever is learned
        states = np.arange(domain.mdp.n_states)[:, None]
        without = int((domain.features(states).sum(axis=1) == 0).sum())
        assert facts.get("FLOOR", 0.0) == pytest.approx(without**0.5 / (1 - domain.gamma))
