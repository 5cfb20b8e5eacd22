"""The theorems' ingredients by hand, and the studies of coverage and noise on small data."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from diffmbrl.implicit import coverage, ends, moments, noise, preconditioner, rates, theory, trace
from diffmbrl.implicit.domains.chain import DOMAIN as CHAIN
from diffmbrl.implicit.parameterizations import explicit
from diffmbrl.implicit.train import arrays
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import write_parquet

PLAN = {
    "seed": 0,
    "features": [3],
    "instances": 4,
    "bounds": 30,
    "few": 2,
    "one_minus_eta": [0.01, 0.001],
}
SEED = 733348321


def test_p_of_two_states_by_hand():
    """S = 1/2 everywhere, w = (1, 0), eta = 1/2: theta = (3/2, 1/2), A^-1 = I + 1/2 on all."""
    model = preconditioner.solve(np.array([1.0, 0.0]), np.zeros((2, 2)), 0.5)
    np.testing.assert_allclose(model.theta, [1.5, 0.5])
    np.testing.assert_allclose(model.inverse, [[1.5, 0.5], [0.5, 1.5]])
    np.testing.assert_allclose(model.D, [0.125, 0.125])  # two times (1/2 x 1/2)^2
    scale = 1 + 0.25 * 0.125
    np.testing.assert_allclose(model.P, scale * np.array([[2.5, 1.5], [1.5, 2.5]]))
    np.testing.assert_allclose(model.perron, scale / 2)
    np.testing.assert_allclose(model.precondition(np.array([1.0, 0.0])), model.P[:, 0])


def test_stationary_distribution_by_hand():
    S = np.array([[0.5, 0.5], [0.25, 0.75]])
    np.testing.assert_allclose(preconditioner.stationary(S), [1 / 3, 2 / 3])


def test_the_largest_norm_of_transitions_comes_near_the_bound():
    """All rows on one state, so that |S| = sqrt(K), and w = 0."""
    F = np.zeros((9, 9))
    F[:, 0] = 100.0
    model = preconditioner.solve(np.zeros(9), F, 0.99)
    ratio = np.linalg.eigvalsh(model.P)[0] / preconditioner.smallest_allowed(9, 0.99)
    assert 1 <= ratio < 2


def test_second_moment_by_hand():
    """Two updates 1 and 3, one drawn: mean square 5 over squared mean 4, however it is drawn."""
    updates = np.array([[1.0, 3.0]])
    assert moments.quotient(updates) == pytest.approx(10 / 16)
    for replaced in (False, True):
        assert moments.enumerated(updates, 1, replaced) == pytest.approx(5 / 4)
        assert moments.ratio(2, 1, 10 / 16, replaced) == pytest.approx(5 / 4)
    assert moments.ratio(2, 2, 10 / 16, replaced=False) == pytest.approx(1)
    assert moments.ratio(2, 2, 10 / 16, replaced=True) == pytest.approx(9 / 8)


def test_gradient_of_the_model_is_what_jax_finds():
    rng = np.random.default_rng(0)
    w, F, r = rng.normal(size=3), rng.normal(size=(3, 3)), rng.normal(size=3)

    def loss(w, F):
        return r @ jnp.linalg.solve(jnp.eye(3) - 0.9 * jax.nn.softmax(F, axis=-1), w)

    expected = jax.grad(loss, (0, 1))(w, F)
    for ours, theirs in zip(
        preconditioner.pull(preconditioner.solve(w, F, 0.9), r), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_every_check_of_the_theory_has_rows(tmp_path):
    out = tmp_path / "theory.parquet"
    theory.run(Job({"theory": PLAN}, {}, {"theory": out}, 1, tmp_path))
    frame = pd.read_parquet(out)
    assert np.isfinite(frame[["x", "measured", "stated"]]).all(axis=None)
    assert set(frame["check"]) == {
        "gradient",
        "jacobian",
        "unrolled",
        "bound",
        "flow",
        "level",
        "decrease_explicit",
        "decrease_implicit",
        "expansion_inverse",
        "expansion_P",
        "ones",
        "moments_explicit",
        "moments_implicit",
        "tabular_explicit",
        "tabular_implicit",
    }
    assert (frame[frame["check"] == "bound"].eval("measured / stated") >= 1).all()


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "chain.parquet"
    write_parquet(CHAIN.collect([SEED], 0.1, 50, 100), path)
    selected = path.with_name("selected.csv")
    columns = {"domain": "chain", "eta": 0.95, "learning_rate": 9.0}
    families = [("explicit", 0.5), ("implicit", np.nan)]
    rows = [
        {**columns, "parameterization": name, "published_learning_rate": rate}
        for name, rate in families
    ]
    pd.DataFrame(rows).to_csv(selected, index=False)
    return {"dataset": [path], "selected": [selected]}


def test_the_published_rate_is_taken_where_there_is_one(chain):
    (path,) = chain["selected"]
    assert trace.rate(path, "chain", "explicit", 0.95) == 0.5
    assert trace.rate(path, "chain", "implicit", 0.95) == 9.0


def test_coverage_splits_the_residual(chain, tmp_path):
    settings = {
        "domain": "chain",
        "parameterization": "explicit",
        "seeds": [SEED],
        "updates": 20,
        "batch_size": 25,
        "reward_offsets": [0, 1],
        "untrained_below": [0.5, 60.0],
    }
    out = tmp_path / "coverage.parquet"
    coverage.run(Job(settings, chain, {"coverage": out}, 1, tmp_path))
    frame = pd.read_parquet(out)
    assert len(frame) == 2 * 2 * 2 * 2  # data, bars, offsets, steps
    parts = (frame[["trained", "untrained", "featureless"]] ** 2).sum(axis=1)
    np.testing.assert_allclose(parts, frame["residual_norm"] ** 2, rtol=1e-12)
    first = frame[frame["data"] == "as published"].groupby("untrained_below")
    features = first["untrained_features"].first()
    assert features.loc[0.5] < features.loc[60.0]
    np.testing.assert_allclose(first["untrained_share"].first(), features / 11)


def test_features_are_counted_by_how_often_they_are_drawn():
    points = np.array([[[1.0, 0.0], [0.25, 0.75]]])
    data = {"train": {"features": points}, "batches": np.array([[[0, 0], [1, 0]]])}
    np.testing.assert_allclose(coverage.drawn(data), [[3.25, 0.75]])
    share, featured = coverage.shares(
        np.array([[[0.25, 0.75], [0.0, 0.0]]]), np.array([[[False, True]]])
    )
    np.testing.assert_allclose(share, [[[0.75, 0.0]]])
    np.testing.assert_allclose(featured, [[[1.0, 0.0]]])


def test_second_moment_of_updates_on_the_chain(chain, tmp_path):
    """At the start, against the vectors of a single batch's update, computed with numpy."""
    settings = {
        "domain": "chain",
        "seeds": [SEED],
        "updates": 10,
        "batch_size": 25,
        "measurements": 3,
        "offsets": [0.5],
    }
    settings_job = Job(settings, chain, {"noise": tmp_path / "noise.parquet"}, 1, tmp_path)
    noise.run(settings_job)
    frame = pd.read_parquet(tmp_path / "noise.parquet")
    start = frame[frame["step"] == 0].set_index("parameterization")
    data = arrays(chain["dataset"][0], CHAIN, [SEED], 10, 25, 1)
    model = preconditioner.solve(data["w"][0][:, 0], data["F"][0][:, 0], 0.95)
    points = {name: leaf[0] for name, leaf in data["train"].items()}
    X, y = points["features"].T, points["returns"] + 0.5 * points["discounts"]
    each = (model.theta @ X - y) * X
    for way, updates in (("explicit", each), ("implicit", model.P @ each)):
        expected = moments.ratio(50, 25, moments.quotient(updates), replaced=True)
        assert start.loc[way, "ratio"] == pytest.approx(expected, rel=1e-4)
    assert start.loc["explicit", "ratio"] == start.loc["explicit", "stated"]
    assert (start["each_once"] == 2).all()


def test_stable_rate_divides_growth_from_decay(chain, tmp_path):
    outputs = {name: tmp_path / f"{name}.parquet" for name in ("rates", "contraction")}
    settings = {"domain": "chain", "seeds": [SEED], "etas": [0.95], "reward_offsets": [0, 1]}
    rates.run(Job(settings, {"dataset": chain["dataset"]}, outputs, 1, tmp_path))
    found = pd.read_parquet(outputs["rates"]).set_index("parameterization")
    data = arrays(chain["dataset"][0], CHAIN, [SEED], 1, 1, 1)
    X = data["train"]["features"][0].T
    G = X @ X.T / 50
    P = preconditioner.solve(data["w"][0][:, 0], data["F"][0][:, 0], 0.95).P
    for way, PG in (("explicit", G), ("implicit", P @ G)):
        radius = np.abs(np.linalg.eigvals(np.eye(11) - found.loc[way, "stable_rate"] * PG)).max()
        assert radius == pytest.approx(1, rel=1e-9)
    half = pd.read_parquet(outputs["contraction"]).query("rate == 'half'")
    assert half["ones"].between(0, 1.1).all()


def test_explicit_noise_needs_no_preconditioner():
    models = explicit.models(3)._replace(width=1)
    sample = {
        "features": np.eye(3)[None],
        "returns": -np.array([[1.0, 2.0, 4.0]]),
        "discounts": np.ones((1, 3)),
        "count": np.array([3]),
    }
    data = {
        "train": sample,
        "evaluation": sample,
        "w": np.zeros((1, 3, 1)),
        "F": np.zeros((1, 3, 1, 3)),
        "batches": np.zeros((1, 2, 2), int),
    }
    axes = trace.axes([0], [0.1], [0.5], [0.0])
    frame = trace.runs(models, axes, data, 2, 2, noise.measure(None))
    first = frame.iloc[0]
    assert first["ratio"] == pytest.approx(1)  # each state once: n / k in the end
    assert first["spread"] == 4
    assert first["minority"] == 0


def test_ends_keep_both_rates():
    runs = pd.DataFrame({"step": [0, 10] * 2, "learning_rate": [1.0, 1.0, 2.0, 2.0]})
    runs = runs.assign(
        domain="chain",
        parameterization="explicit",
        eta=0.95,
        reward_offset=0.0,
        seed=5,
        diverged=False,
        residual_norm=[4.0, 3.0, 4.0, 2.0],
        residual_ones_norm=1.0,
        residual_ortho_norm=1.0,
    )
    selected = pd.DataFrame(
        {
            "domain": ["chain"],
            "parameterization": ["explicit"],
            "eta": [0.95],
            "backup": ["none"],
            "learning_rate": [2.0],
            "published_learning_rate": [1.0],
        }
    )
    found = ends.ends(runs, selected).set_index("rates")
    assert found.loc["selected", "residual_norm"] == 2
    assert found.loc["published", "residual_norm"] == 3
    assert (found["residual_norm_t0"] == 4).all()
