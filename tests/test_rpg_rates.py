"""The choice of each arm's rate."""

from operator import itemgetter
from pathlib import Path

import pandas as pd

from diffmbrl.config import load
from diffmbrl.rpg import rates

ROOT = Path(__file__).parents[1]


def runs(returns):
    """Three evaluations of one arm's runs, from each run's two last returns by (rate, seed)."""
    arm = {"task": "t", "estimator": "rp_dp", "horizon": 1, "sn": "none", "layers": "hidden",
           "init": "orthogonal", "clip": 0.0}  # fmt: skip
    rows = [
        {**arm, "rate": rate, "seed": seed, "step": 10 * i, "return_mean": value,
         "diverged": value != value}
        for (rate, seed), values in returns.items()
        for i, value in enumerate([100.0, *values])
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_best_rate_by_hand():
    """Untrained returns (100) do not count; a rate with a diverged run is not chosen."""
    frame = runs({(0.1, 0): [1, 3], (0.1, 1): [2, 2], (0.2, 0): [4, 4], (0.2, 1): [2, 6],
                  (0.3, 0): [9, 9], (0.3, 1): [9, float("nan")]})  # fmt: skip
    found = rates.rates(pd.concat([frame, frame.assign(sn="both")]))
    assert list(found["sn"]) == ["both"] * 3 + ["none"] * 3
    assert list(found["area"][:2]) == [2, 4]
    assert found["area"].isna()[2]
    assert list(found["n_runs"]) == [2] * 6
    assert list(found["chosen"]) == [False, True, False] * 2


def test_of_equals_the_lowest_rate_is_chosen():
    found = rates.rates(runs({(0.1, 0): [2, 2], (0.2, 0): [2, 2]}))
    assert list(found["chosen"]) == [True, False]


def arms(scale):
    """The rates and the number of seeds of every arm that a scale trains."""
    name = itemgetter("sn", "layers", "clip")
    return {
        (task, kind, int(h[1:]), *name(arm)): (arm["rates"], arm["seeds"])
        for task, own in load(ROOT).settings("rpg", scale)["tasks"].items()
        for kind, horizons in own["estimators"].items()
        for h, several in horizons.items()
        for arm in several
    }


def test_arms_have_the_rates_that_scale_tuning_chose():
    table = pd.read_csv(ROOT / "data/stats/tuning/rpg/rates.csv")
    arm = ["task", "estimator", "horizon", "sn", "layers", "clip"]
    chosen = table[table["chosen"]].set_index(arm)["rate"]
    assert chosen.index.is_unique
    assert {key: [rate] for key, rate in chosen.items()} == {
        key: own for key, (own, _) in arms("mujoco").items()
    }


def test_tuning_gives_every_arm_the_same_budget():
    tuning = arms("tuning")
    assert tuning.keys() == arms("mujoco").keys()
    first, *others = tuning.values()
    assert all(other == first for other in others)
