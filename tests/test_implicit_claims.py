"""Claims of `implicit`: a verdict follows its tables, and every claim gets one."""

import numpy as np
import pandas as pd
import pytest

from diffmbrl.implicit import judges_runs, judges_theory
from diffmbrl.implicit.claims import CLAIMS
from diffmbrl.stats import claims

SEEDS = np.arange(20)


def noisy(size, rng=None):
    return size + 0.01 * (rng or np.random.default_rng(0)).normal(size=len(SEEDS))


def check(name, x, measured, stated, **columns):
    """Rows of one check of the theory, over x or over instances."""
    rows = pd.DataFrame({"x": np.atleast_1d(x)})
    rows = rows.assign(
        check=name,
        measured=measured,
        stated=stated,
        instance=0,
        gap=np.nan,
        features=3,
        batch=2,
        case="",
        spread=1.0,
    )
    return rows.assign(**columns)


def ends(rise, **columns):
    """Runs of a chain whose final residual rises with the offset; implicit has four etas."""
    rows = [
        {
            "parameterization": way,
            "eta": eta,
            "reward_offset": offset,
            "seed": seed,
            "residual_norm": 5
            + rise[way] * offset
            + 0.01 * np.sin(seed + 7 * eta)
            + (0 if way == "explicit" else columns.get("loss", {}).get(eta, 0)),
            "residual_norm_t0": 10 + 100 * offset,
            "residual_ones_norm_t0": 3 + 6 * offset,
            "residual_ortho_norm_t0": 3.0 + 0.01 * np.cos(seed + offset),
            "backup": "none",
        }
        for way in rise
        for eta in (0.8, 0.9, 0.95, 0.975)
        for offset in (0.0, 1.0)
        for seed in SEEDS
    ]
    return pd.DataFrame(rows).assign(
        domain="chain", rates="selected", easy=0.0, hard=1.0, gamma=0.9
    )


def coverage(trained, untrained):
    """Last and first step; explicit rises by the given amounts per offset, implicit does not."""
    rows = [
        {
            "parameterization": way,
            "reward_offset": offset,
            "seed": seed,
            "step": step,
            "trained": 1 + trained * offset * (way == "explicit") + 0.01 * np.sin(seed),
            "residual_norm": (10 + 100 * offset if step == 0 else 1)
            + untrained * offset * (way == "explicit")
            + 0.01 * np.cos(seed),
        }
        for way in ("explicit", "implicit")
        for offset in (0.0, 1.0)
        for seed in SEEDS
        for step in (0, 300)
    ]
    return pd.DataFrame(rows).assign(domain="chain", data="as published", untrained_below=2.5)


@pytest.mark.parametrize(
    ("judge", "right", "wrong"),
    [
        (
            judges_theory.derivative,
            check("gradient", 0.9, 1e-8, 0.0),
            check("gradient", 0.9, 1e-3, 0.0),
        ),
        (
            judges_theory.flow_is_preconditioned,
            check("jacobian", 0.9, 1e-14, 0.0),
            check("jacobian", 0.9, 1e-3, 0.0),
        ),
        (
            judges_theory.smallest_eigenvalue,
            check("bound", 0.9, 0.2, 0.1),
            check("bound", 0.9, 0.05, 0.1),
        ),
        (
            judges_theory.global_minimum,
            check("flow", [0, 1], [1, 0.1], [1, 0.3]),
            check("flow", [0, 1], [1, 0.5], [1, 0.3]),
        ),
        (
            judges_theory.exact_moments,
            check("moments_explicit", 0.1, 2.0, 2.0),
            check("moments_explicit", 0.1, 2.0, 2.1),
        ),
        (
            judges_theory.expansion,
            pd.concat(
                [
                    check(f"expansion_{n}", [0.1, 0.01], [0.2, 0.02], 1.0, gap=0.5)
                    for n in ("inverse", "P")
                ]
            ),
            pd.concat(
                [
                    check(f"expansion_{n}", [0.1, 0.01], [0.2, 0.1], 1.0, gap=0.5)
                    for n in ("inverse", "P")
                ]
            ),
        ),
        (
            judges_theory.unrolled,
            check("unrolled", [1, 300], [0.5, 1e-14], [0.9, 1e-14]),
            check("unrolled", [1, 300], [1e-9, 1e-14], [0.9, 1e-14]),
        ),
    ],
)
def test_a_theorem_is_judged_by_its_worst_instance(judge, right, wrong):
    assert judge(right).verdict == "agrees"
    assert judge(wrong).verdict == "disagrees"
    assert judge(pd.concat([right, wrong.assign(instance=1)])).verdict == "disagrees"


@pytest.mark.parametrize("name", ["decrease_explicit", "decrease_implicit"])
def test_a_remainder_of_the_wrong_order_disagrees(name):
    def table(order):
        alpha = np.array([1e-2, 1e-3, 1e-4])
        level = check("level", 0, 1.0, 2.0)
        return pd.concat([level, check(name, alpha, -1 + alpha**order, -1.0)])

    assert judges_theory.first_order(table(1), name).verdict == "agrees"
    assert judges_theory.first_order(table(0.5), name).verdict == "disagrees"


@pytest.mark.parametrize(("gain", "verdict"), [(50, "agrees"), (2, "disagrees")])
def test_n_times_faster(gain, verdict):
    rows = pd.DataFrame({"seed": SEEDS, "domain": "chain", "eta": 0.95, "reward_offset": 1.0})
    rows["residual_norm"] = 9.0
    ones = {"explicit": 0.01, "implicit": 0.01 * noisy(gain)}
    contraction = pd.concat(
        rows.assign(rate=rate, parameterization=way, ones=share)
        for rate in ("half", "equal")
        for way, share in ones.items()
    )
    easy = contraction.assign(reward_offset=0.0, residual_norm=1.0, ones=1.0)
    contraction, rates = pd.concat([contraction, easy]), rows.assign(n=50)
    assert judges_runs.faster(rates, contraction).verdict == verdict
    assert judges_runs.faster(rates, contraction[contraction["seed"] == 0]).verdict == "not tested"


@pytest.mark.parametrize(("growth", "verdict"), [(0.1, "agrees"), (1.0, "disagrees")])
def test_the_assumption_is_one_of_growth(growth, verdict):
    rates = pd.DataFrame({"seed": SEEDS, "growth": noisy(growth)})
    rates = rates.assign(domain="chain", feature_norm=1.0, covariance_norm=9.0, ones_share=1.0)
    assert judges_runs.assumption(rates).verdict == verdict


@pytest.mark.parametrize(
    ("trained", "untrained", "verdict"),
    [(20, 20, "agrees"), (0, 20, "disagrees"), (0, 0, "disagrees")],
)
def test_less_sensitive_must_hold_on_trained_features(trained, untrained, verdict):
    runs = ends({"explicit": 10, "implicit": 0})
    assert judges_runs.less_sensitive(coverage(trained, untrained), runs).verdict == verdict


def test_a_pair_that_diverged_is_left_out():
    table = coverage(20, 20)
    table.loc[(table["seed"] == 3) & (table["step"] == 300), ["trained", "residual_norm"]] = np.nan
    found = judges_runs.less_sensitive(table, ends({"explicit": 10, "implicit": 0}))
    assert (found.verdict, found.n) == ("agrees", 19)


def test_offset_and_relative_size():
    runs = ends({"explicit": 0})
    assert judges_runs.relative_size(runs).verdict == "agrees"
    runs["residual_ones_norm_t0"] = 3.0
    assert judges_runs.relative_size(runs).verdict == "disagrees"


def test_the_best_eta():
    """Eta 0.975 is best and gamma 0.9, or gamma is best."""
    other = ends({"implicit": 1}, loss={0.8: 2, 0.9: 1, 0.95: 0.5})
    assert judges_runs.best_is_not_gamma(other).verdict == "agrees"
    true = ends({"implicit": 1}, loss={0.8: 2, 0.95: 0.5, 0.975: 3})
    assert judges_runs.best_is_not_gamma(true).verdict == "disagrees"
    steady = true.copy()
    steady.loc[steady["eta"] == 0.8, "residual_norm"] -= 0.9 * steady["reward_offset"]
    assert judges_runs.steadiest_is_not_best(steady).verdict == "agrees"


def test_choosing_by_chance_is_no_finding():
    """Two etas alike but for noise: cross-fitting claims a difference in 1% of draws."""
    rng, found = np.random.default_rng(0), []
    frame = ends({"implicit": 0})
    frame = frame[frame["eta"].isin([0.9, 0.95])]
    for _ in range(100):
        frame["residual_norm"] = 5 + rng.normal(size=len(frame))
        found.append(judges_runs.best_is_not_gamma(frame).verdict)
    assert found.count("agrees") <= 6


@pytest.mark.parametrize(("factor", "verdict"), [(1.02, "agrees"), (3.0, "disagrees")])
def test_several_actions(factor, verdict):
    one = ends({"implicit": 1})
    several = one[one["eta"] == 0.95].assign(parameterization="implicit_mdp", backup="max")
    several["residual_norm"] *= factor * (1 + 0.01 * np.sin(several["seed"]))
    assert judges_runs.several_actions(pd.concat([one, several])).verdict == verdict
    assert judges_runs.several_actions(one).verdict == "not tested"


def test_numbers_need_the_published_seeds():
    rows = pd.DataFrame(
        {
            "figure": "figure 1",
            "passes": [True] * 199 + [False],
            "difference": 1e-5,
            "n_runs": 20,
            "n_runs_published": 20,
        }
    )
    assert judges_runs.numbers(rows, "figure 1").verdict == "agrees"
    assert judges_runs.numbers(rows.assign(passes=False), "figure 1").verdict == "disagrees"
    assert judges_runs.numbers(rows.assign(n_runs=2), "figure 1").verdict == "not tested"


def test_every_claim_is_there_once():
    assert [claim.id for claim in CLAIMS] == [f"I{i}" for i in range(1, 23)]
    assert all(isinstance(claim, claims.Claim) and claim.statement for claim in CLAIMS)
