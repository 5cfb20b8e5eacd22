import numpy as np
import pytest

from diffmbrl.stats.intervals import bootstrap, iqm, mean_with_interval


def test_interquartile_mean_by_hand():
    assert iqm(np.array([1.0, 2, 3, 100])) == pytest.approx(2.5)
    # five values: 1.25 are cut from either end, leaving 0.75 of the 2nd and of the 4th
    assert iqm(np.array([0.0, 4, 10, 2, 1000])) == pytest.approx((0.75 * 2 + 4 + 0.75 * 10) / 2.5)
    assert iqm(np.array([7.0])) == pytest.approx(7)
    np.testing.assert_allclose(iqm(np.array([[1.0, 1, 1, 1], [4, 3, 2, 1]])), [1, 2.5])


def test_interval_is_a_function_of_its_seed_and_holds_the_estimate():
    values = np.random.default_rng(0).normal(size=20)
    first = bootstrap(values, np.random.default_rng(1))
    assert first == bootstrap(values, np.random.default_rng(1))
    assert first != bootstrap(values, np.random.default_rng(2))
    assert first[0] < iqm(values) < first[1]


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        low, high = bootstrap(rng.normal(size=40), rng, statistic=lambda x: x.mean(-1),
                              resamples=300)  # fmt: skip
        hits += low <= 0 <= high
    assert 0.89 <= hits / 300 <= 0.98


def test_values_that_are_not_finite_have_no_interval():
    assert np.isnan(bootstrap(np.array([1.0, np.inf]), np.random.default_rng(0))).all()
    assert np.isnan(bootstrap(np.array([]), np.random.default_rng(0))).all()


def test_means_with_intervals_leave_out_what_is_not_finite():
    mean, low, high = mean_with_interval([1.0, 2.0, 3.0, np.nan])
    assert (mean, low <= mean <= high) == (2.0, True)
    assert mean_with_interval([1.0, 2.0, 3.0]) == mean_with_interval([1.0, 2.0, 3.0])
    assert np.isnan(mean_with_interval([])).all()
