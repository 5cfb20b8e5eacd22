"""The tables of statistics of rpg by hand, and what its claims make of tables with known truth."""

import numpy as np
import pandas as pd
import pytest

from diffmbrl.rpg import aggregate, claims, theory_summary


def test_best_horizons_by_hand():
    frame = pd.DataFrame({
        "radius": 0.9, "gamma": 0.9, "model_error": 0.1, "critic_error": 0.2, "seed": 0,
        "formula": 6.7, "horizon": [0, 1, 2, 3], "bias_same": [3.0, 1.0, 2.0, 0.95],
        "bias_full": [3.0, 2.0, 1.0, 1.0], "trace": [0.0, 640.0, 64.0, 640.0], "diverged": False,
    })  # fmt: skip
    (row,) = theory_summary.best_horizons(frame, 64).to_dict("records")
    assert (row["best_bias_same"], row["best_bias_full"]) == (1, 2)  # 1.0 is near 0.95
    assert (row["best_error_same"], row["best_error_full"]) == (0, 2)  # 3, 11, 3, 10.95; ..., 2
    assert row["largest"] == 3


ARM = {"sn": "none", "layers": "hidden", "init": "orthogonal", "clip": 0.0, "rate": 0.1}


def run_table(**columns):
    """Runs of one task: RP-DP at h = 1 and 20, none and both, 5 seeds; columns by function."""
    rows = [
        {"task": "hybrid", "estimator": "rp_dp", "horizon": h, **ARM, "sn": sn, "seed": seed}
        for h in (1, 20) for sn in ("none", "both") for seed in range(5)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    for name, value in columns.items():
        frame[name] = [value(row) for row in rows]
    return frame


def test_runs_summarise_curves_and_last_gradients():
    curves = pd.DataFrame({
        "task": "hybrid", "estimator": "rp_dp", "horizon": 3, **ARM, "seed": [0, 0, 0, 1, 1, 1],
        "step": [0, 1, 2] * 2, "return_mean": [-9.0, -4.0, -2.0, -9.0, np.nan, -2.0],
        "sn_error": [0.1, 0.3, 0.2] * 2, "local_max_model": [1.0, 2.0, 3.0] * 2, "within": 1.0,
        "model_loss": 0.5, "diverged": [False] * 4 + [True, False],
    })  # fmt: skip
    measured = pd.DataFrame({
        "task": "hybrid", "estimator": "rp_dp", "horizon": 3, **ARM, "seed": [0, 0],
        "snapshot": [0, 2], "ratio": [5.0, 7.0], "action_ratio": 1.0, "cosine": 0.5,
        "true_cosine": 0.6, "trace": 1.0, "model_error_1": 0.1, "model_error_h": 0.2,
    })  # fmt: skip
    one, other = aggregate.runs(curves, measured).to_dict("records")
    assert (one["first"], one["area"], one["final"]) == (-9, -3, -3)
    assert (one["ratio"], one["sn_error"], one["local_max_model"]) == (7, 0.3, 3)
    assert other["diverged"]
    assert np.isnan(other["area"])
    assert np.isnan(other["ratio"])


def test_gradients_are_scale_free_by_hand():
    values = {"trace": 4.0, "sample_square": 2.0, "action_trace": 3.0, "action_square": 6.0}
    frame = pd.DataFrame([{**values, "true_square": -1.0, "bias_square": 2.0}])
    row = aggregate.gradients(frame).iloc[0]
    assert (row["ratio"], row["action_ratio"]) == (2, 0.5)
    assert np.isnan(row["relative_bias"])


def test_what_a_normalised_model_loses_by_hand():
    frame = pd.DataFrame({
        "stiffness": [1.0, 1.0, 1.0], "seed": [0, 0, 0], "sn": ["none", "model", "true system"],
        "return_trained": [-2.0, -5.0, -1.0], "bias_model": 1.0, "trace": 64.0,
    })  # fmt: skip
    table = theory_summary.smoothness(frame, 32)
    assert table["lost"].tolist() == [0, 3, -1]
    assert table["gradient_error"].tolist() == [3] * 3


def test_rates_are_chosen_by_one_seed_and_reported_on_the_others():
    frame = pd.DataFrame({
        "task": "hybrid", "horizon": 3, "sn": "none", "layers": "hidden", "target": 0.0,
        "batch": 1, "relative_step": [0.1, 0.3, 0.9] * 2, "seed": [0] * 3 + [1] * 3,
        "return_end": [1.0, 3.0, 9.0, 8.0, 2.0, 9.0],
        "diverged": [False, False, True, False, False, False],
        "progress": 1.0, "bias_square": -1.0, "noise": 2.0,
    })  # fmt: skip
    (row,) = theory_summary.tuned(frame).to_dict("records")
    assert (row["seed"], row["relative_step"], row["return_end"]) == (1, 0.3, 2)
    assert row["predicted"] == 3


@pytest.mark.parametrize(
    ("effect", "verdict"), [(-1.0, "agrees"), (1.0, "disagrees"), (0.0, "inconclusive")]
)
def test_variance_claims_follow_their_data(effect, verdict):
    """Both lowers the ratio by 10^effect at h = 20, by a noise that averages to 0 at h = 1."""
    noise = [-0.2, -0.1, 0.0, 0.1, 0.2]

    def ratio(row):
        moved = row["sn"] == "both"
        return 10 ** (moved * (effect * (row["horizon"] == 20) + noise[row["seed"]]))

    runs = run_table(ratio=ratio)
    swap = runs[runs["horizon"] == 20].replace({"sn": {"both": "hidden"}})
    swap = swap.rename(columns={"sn": "model"})
    assert claims.variance(runs, swap).verdict == verdict
    if verdict == "agrees":
        other = swap.assign(ratio=1 / swap["ratio"])
        assert claims.variance(runs, other).verdict == "disagrees"
    wobble = runs.assign(ratio=runs["ratio"] ** (1 + (runs["horizon"] == 1)))
    assert claims.variance_by_h(wobble).verdict == verdict


def test_runs_that_diverged_are_counted_not_left_out():
    runs = run_table(
        area=lambda row: 1.0,
        ratio=lambda row: 2.0,
        first=lambda row: -20.0,
        final=lambda row: -10.0,
    )
    runs.loc[(runs["seed"] == 0) & (runs["sn"] == "both"), ["area", "ratio"]] = np.nan
    swap = runs[runs["horizon"] == 20].replace({"sn": {"both": "hidden"}})
    swap = swap.rename(columns={"sn": "model"})
    for found in (
        claims.variance(runs, swap),
        claims.keeps_returns(runs),
        claims.returns_by_h(runs),
        claims.variance_by_h(runs),
    ):
        assert found.verdict == "inconclusive"
        assert "1 of 5 values are not finite (runs that diverged)" in found.reason


def test_returns_claims_follow_their_data():
    def area(row):
        lost = 5.0 * (row["sn"] == "both") * (row["horizon"] == 1)
        return -10 + 0.1 * row["seed"] * (row["sn"] == "both") - lost

    runs = run_table(area=area, first=lambda row: -20.0, final=lambda row: -10.0)
    assert claims.keeps_returns(runs).verdict == "disagrees"  # at h = 1: half the span
    assert claims.returns_by_h(runs).verdict == "agrees"
    assert claims.keeps_returns(runs[runs["horizon"] == 20]).verdict == "agrees"
    assert claims.mujoco(runs).verdict == "not tested"
    sac = runs[(runs["horizon"] == 20) & (runs["sn"] == "none")].assign(
        estimator="sac", horizon=0, area=lambda t: -12 - 0.1 * t["seed"]
    )
    assert (
        claims.model_free(pd.concat([runs.replace({"horizon": {1: 3}}), sac])).verdict == "agrees"
    )


def test_lipschitz_claims_look_at_what_is_normalised():
    runs = run_table(
        local_max_policy=lambda row: 0.9 if row["sn"] == "both" else 7.0,
        local_max_model=lambda row: 0.9,
        sn_error=lambda row: 0.01,
    )
    runs = pd.concat([runs, runs.assign(layers="all")])
    assert claims.bounded(runs).verdict == "agrees"
    assert claims.bounded(runs.assign(local_max_model=1.5)).verdict == "disagrees"
    assert claims.bounded(runs.assign(sn_error=0.1)).verdict == "disagrees"


def growing(level, h):
    return level ** (4 * h) * h**2 if level > 1 else h**3


def theory_table(value):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"study": study, "x": x, "horizon": h, "seed": seed,
             "value": value(study, x, h) * np.exp(0.01 * rng.normal())}
            for study in ("growth", "critic") for x in (1.0, 1.1, 1.2)
            for h in (2, 4, 8, 16, 32) for seed in range(5)
        ]
    )  # fmt: skip


def test_theory_claims_follow_their_data():
    table = theory_table(lambda study, x, h: growing(x, h) if study == "growth" else 0.8**h)
    assert claims.degree(table).verdict == "agrees"
    assert claims.growth(table).verdict == "agrees"
    flat = theory_table(lambda study, x, h: 1.0 if study == "growth" else 1.2**h)
    assert claims.degree(flat).verdict != "agrees"
    assert claims.growth(flat).verdict == "disagrees"
    best = pd.DataFrame({"seed": range(5), "model_error": 0.01, "best_bias_full": [5, 8, 5, 8, 5]})
    assert claims.accurate(table, best).verdict == "agrees"
    assert claims.accurate(flat, best).verdict == "disagrees"


def test_best_horizon_claim_follows_its_data():
    rows = [{"seed": seed, "formula": f, "best_bias_full": f + seed % 2 * (f == 4),
             "best_error_full": -f} for seed in range(5) for f in (1, 2, 4, 8)]  # fmt: skip
    table = pd.DataFrame(rows)
    assert claims.best_horizon(table).verdict == "disagrees"
    assert claims.best_horizon(table.assign(best_error_full=table["formula"])).verdict == "agrees"


def test_convergence_claim_sees_what_normalisation_adds_beyond():
    rng = np.random.default_rng(1)
    rows = [
        {"task": "hybrid", "seed": seed, "horizon": 3, "batch": n, "target": target,
         "diverged": False, "sn": "model" if target else "none", "predicted": 10.0 / n,
         "grad_square": 3.0 / n * np.exp(0.01 * rng.normal())}
        for seed in range(1, 6) for n in (1, 4, 16, 64) for target in (0.0, 1.0, 2.0)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    assert claims.converges(table).verdict == "agrees"
    beyond = table.assign(grad_square=table["grad_square"] * (1 + 9 * (table["target"] > 0)))
    assert claims.converges(beyond).verdict == "disagrees"
    lost = table.assign(diverged=table.index == 5)
    assert "without 1 of 60 runs, which diverged" in claims.converges(lost).reason


def test_what_policies_lose_at_the_hardest_floor_is_judged():
    table = pd.DataFrame({
        "stiffness": [1.0, 100.0] * 5, "sn": "model", "target": 1.0, "layers": "all",
        "lost": [0.0, 4.0, 0.0, 5.0, 0.0, 6.0, 0.0, 4.5, 0.0, 5.5],
    })  # fmt: skip
    assert claims.hurts(table).verdict == "agrees"
    assert claims.hurts(table.assign(lost=-table["lost"])).verdict == "disagrees"
