"""Verdicts on synthetic data whose truth is known, a thousand draws for each kind of test."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from diffmbrl.pipeline.stage import Job
from diffmbrl.stats import claims

DRAWS = 1000


def shares(judge):
    """Share of each verdict over a thousand draws."""
    rng = np.random.default_rng(0)
    found = [judge(rng).verdict for _ in range(DRAWS)]
    return {kind: found.count(kind) / DRAWS for kind in set(found)}


def within(share, expected):
    """Within four standard errors of what is expected."""
    return abs(share - expected) <= 4 * math.sqrt(max(expected * (1 - expected), 1e-4) / DRAWS)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_mean_on_the_bar_gets_a_verdict_once_in_a_hundred(n):
    found = shares(lambda rng: claims.above(rng.normal(2, 3, n), bar=2, relevant=1))
    assert within(1 - found["inconclusive"], 0.01)


def test_power_of_t_is_as_stated():
    found = shares(lambda rng: claims.above(rng.normal(2, 1, 10), bar=1, relevant=1))
    assert within(found["agrees"], claims.t_power(10, 1.0, 1.0))
    assert 0.5 < found["agrees"] < 0.7
    assert found.get("disagrees", 0) == 0


def test_what_would_settle_it_does():
    n = claims.values_needed(deviation=2.0, effect=1.0)
    found = shares(lambda rng: claims.above(rng.normal(1, 2, n), bar=0, relevant=1))
    assert 0.76 < found["agrees"] < 0.87


def test_below_is_above_turned():
    values = np.random.default_rng(0).normal(-3, 1, 10)
    assert claims.below(values, 0, 1).verdict == "agrees"
    assert claims.above(values, 0, 1).verdict == "disagrees"


def test_equivalence_is_not_declared_at_its_margin():
    found = shares(lambda rng: claims.same(rng.normal(1, 1, 10), margin=1))
    assert found.get("agrees", 0) <= 0.015
    near = shares(lambda rng: claims.same(rng.normal(0, 0.3, 20), margin=1))
    assert near["agrees"] == 1
    far = shares(lambda rng: claims.same(rng.normal(3, 0.3, 20), margin=1))
    assert far["disagrees"] == 1


def test_shares_are_exact():
    counts = range(21)
    found = np.array([claims.share(k, 20, 0.5, 0.4).verdict for k in counts])
    on, off = (stats.binom.pmf(counts, 20, truth) for truth in (0.5, 0.9))
    assert on[found != "inconclusive"].sum() <= 0.01
    agrees = off[found == "agrees"].sum()
    assert agrees == pytest.approx(claims.binomial_power(20, 0.5, 0.9), abs=1e-12)


def test_the_worst_instance_decides():
    assert claims.holds(1e-12, 1e-10, 100, "error").verdict == "agrees"
    assert claims.holds(1e-9, 1e-10, 100, "error").verdict == "disagrees"
    assert claims.holds(math.nan, 1e-10, 100, "error").verdict == "disagrees"
    assert claims.holds(0.0, 1e-10, 0, "error").verdict == "not tested"


def test_runs_that_diverged_leave_it_open_and_too_few_untested():
    assert claims.above([1.0, math.nan, 2.0], 0, 1).verdict == "inconclusive"
    assert claims.same([1.0], 1).verdict == "not tested"


def test_a_claim_over_several_places():
    yes, no = claims.above([5.0, 5.1, 4.9], 0, 1), claims.below([5.0, 5.1, 4.9], 0, 1)
    maybe, none = claims.above([-1.0, 2.0, 0.3], 0, 1), claims.above([], 0, 1)
    assert claims.every({"a": yes, "b": yes}).verdict == "agrees"
    assert claims.every({"a": yes, "b": no, "c": maybe}).verdict == "disagrees"
    assert claims.every({"a": yes, "b": maybe}).verdict == "inconclusive"
    assert claims.every({"a": yes, "b": none}).verdict == "inconclusive"
    assert claims.every({"a": none}).verdict == "not tested"
    assert "c inconclusive" in claims.every({"a": yes, "b": no, "c": maybe}).reason


def test_the_stage_follows_its_tables(tmp_path):
    made = (
        claims.Claim("X1", "section 1", "x is positive", judge, ("runs",), "fig_x_1"),
        claims.Claim("X2", "section 2", "images", judge, ("images",)),
    )
    verdicts = []
    for shift in (-9, 0, 9):
        source, out = tmp_path / f"{shift}.csv", tmp_path / "claims.csv"
        pd.DataFrame({"x": np.array([-1.0, 0.5, 1.0]) + shift}).to_csv(source, index=False)
        claims.write(made, Job({}, {"runs": [source]}, {"claims": out}, 1, tmp_path))
        table = pd.read_csv(out)
        assert list(table["id"]) == ["X1", "X2"]
        assert table["verdict"][1] == "not tested"
        verdicts.append(table["verdict"][0])
    assert verdicts == ["disagrees", "inconclusive", "agrees"]


def judge(runs):
    return claims.above(runs["x"], 0, 1)


def test_one_place_is_enough_where_a_claim_says_some():
    yes, no = claims.above([5.0, 5.1, 4.9], 0, 1), claims.below([5.0, 5.1, 4.9], 0, 1)
    maybe, none = claims.above([-1.0, 2.0, 0.3], 0, 1), claims.above([], 0, 1)
    assert claims.some({"a": yes, "b": no, "c": maybe}).verdict == "agrees"
    assert claims.some({"a": no, "b": maybe}).verdict == "inconclusive"
    assert claims.some({"a": no, "b": none}).verdict == "disagrees"
    assert claims.some({"a": none}).verdict == "not tested"
    draws = shares(
        lambda rng: claims.some({i: claims.above(rng.normal(0, 1, 5), 0, 1) for i in "ab"})
    )
    assert draws.get("agrees", 0) <= 0.02 + 4 * math.sqrt(0.01 * 0.99 / DRAWS)
