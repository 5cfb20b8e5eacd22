"""Agreement of tables: known truths, and by simulation the false alarms and the stated power."""

import numpy as np
import pandas as pd
import pytest

from diffmbrl.stats import flips
from diffmbrl.stats.agreement import axes_of, judge, judge_many
from diffmbrl.stats.rounding import differences, rounding

SETTINGS = [(agent, width) for agent in ("mle", "omd") for width in range(10)]


def drawn(rng, seeds=3, shared=0.0, settings=SETTINGS):
    """Two draws of one process: the seeds' own effect in common, the rest anew."""
    rows = [(*s, seed, step) for s in settings for seed in range(seeds) for step in (1, 2)]
    old = pd.DataFrame(rows, columns=["agent", "width", "seed", "step"])
    own = rng.normal(size=len(old)) * shared**0.5
    level = old["width"].to_numpy() * 10.0
    both = [level + own + rng.normal(size=len(old)) * (1 - shared) ** 0.5 for _ in range(2)]
    return old.assign(score=both[0]), old.assign(score=both[1])


def errors_of(table, metric="score"):
    """The standard error of each row's setting at the row's step."""
    groups = table.groupby(["agent", "width", "step"])[metric]
    return groups.transform("std") / np.sqrt(groups.transform("count"))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_axes_are_the_shortest_prefix_that_tells_rows_apart():
    frame = pd.DataFrame({"a": [1, 1, 2], "b": [1, 2, 1], "x": [0.1, 0.2, 0.3]})
    assert axes_of(frame, frame) == ["a", "b"]
    assert axes_of(frame.iloc[1:], frame.iloc[1:]) == ["a"]
    with_seed = pd.DataFrame({"agent": ["p", "q"], "seed": [1, 1], "x": [0.1, 0.2]})
    assert axes_of(with_seed, with_seed) == ["agent", "seed"]
    twice = pd.concat([frame, frame])
    assert axes_of(twice, twice) is None
    assert judge(twice, twice, rng=rng()).kind == "differs"


def test_rounding_is_not_a_difference_and_rows_may_stand_in_another_order():
    old, _ = drawn(rng())
    new = old.assign(score=old["score"] * (1 + 1e-12)).iloc[::-1]
    verdict = judge(old, new, rng=rng())
    assert (verdict.kind, verdict.detail) == ("same numbers", "to 1e-09 of size")
    assert verdict.rounding == 1e-9


def test_rounding_by_how_a_column_was_computed():
    single = np.array([1.1, 2.3], np.float32)
    frame = pd.DataFrame({"a": single, "b": single.astype(float), "c": [np.pi, np.e]})
    assert rounding(frame, frame) == {"a": 1e-4, "b": 1e-4, "c": 1e-9}
    text = pd.DataFrame({"m": [0.123456789, 12.5]})
    assert rounding(text, text) == {"m": pytest.approx(1e-8)}
    assert rounding(text.round(6), text.round(6)) == {"m": pytest.approx(1e-5)}
    assert rounding(text, text, least=1e-4) == {"m": 1e-4}


def test_nan_and_infinity_equal_themselves_only():
    inf, nan = np.inf, np.nan
    old = pd.DataFrame({"key": range(4), "x": [nan, inf, -inf, np.pi]})
    assert judge(old, old.copy(), rng=rng()).kind == "same numbers"
    for values in ([0.0, inf, -inf, np.pi], [nan, nan, -inf, np.pi], [nan, -inf, -inf, np.pi]):
        (found,) = differences(old, old.assign(x=values))
        assert (found.column, found.rows, found.worst) == ("x", 1, inf)


def test_a_number_near_zero_is_held_against_its_column():
    old = pd.DataFrame({"key": range(3), "x": [np.pi, np.e, 1e-10 * np.pi]})
    assert differences(old, old.assign(x=old["x"] + 1e-10)) == []
    (found,) = differences(old, old.assign(x=old["x"] + 1e-7))
    assert found.rows == 3


def test_whole_numbers_and_text_have_no_rounding():
    old = pd.DataFrame({"key": [1, 2], "n": [10**12, 3], "verdict": ["agrees", "agrees"]})
    (found,) = differences(old, old.assign(n=[10**12 + 1, 3]))
    assert (found.column, found.rows) == ("n", 1)
    (found,) = differences(old, old.assign(verdict=["agrees", "not"]))
    assert (found.column, found.worst, found.row) == ("verdict", None, 1)


def test_rows_or_columns_that_one_side_lacks_differ():
    old, _ = drawn(rng())
    verdict = judge(old, old.iloc[2:], rng=rng())
    assert verdict.kind == "differs"
    assert verdict.detail == "2 rows are only in the first, 0 only in the second"
    verdict = judge(old, old.assign(more=1.0), rng=rng())
    assert (verdict.kind, verdict.detail) == ("differs", "only one side has column more")


def test_without_seeds_other_numbers_cannot_be_told_from_another_draw():
    old = pd.DataFrame({"agent": ["mle", "omd"], "score_mean": [np.pi, np.e]})
    verdict = judge(old, old.assign(score_mean=[np.pi, 3.0]), rng=rng())
    assert verdict.kind == "cannot be told"
    assert "score_mean" in verdict.detail
    assert "agent=omd" in verdict.detail


def test_three_runs_tell_nothing_and_the_verdict_says_so():
    old, new = drawn(rng(), settings=SETTINGS[:1])
    verdict = judge(old, new.assign(score=new["score"] + 1e6), rng=rng())
    assert verdict.kind == "cannot be told"
    assert verdict.p == pytest.approx(0.25 / (1 - flips.PARTS))  # 2 of 8 flips
    assert verdict.power == {"score": 0.0}
    assert "too few runs: 3 runs" in verdict.detail


def test_tables_of_one_kind_are_tested_together_and_copies_count_once():
    old, new = drawn(rng(1), seeds=5, shared=0.5)
    parts = {
        str(setting): (old.iloc[rows], new.iloc[rows])
        for setting, rows in old.groupby(["agent", "width"]).indices.items()
    }
    verdicts = judge_many({**parts, "joined": (old, new)}, rng=rng())
    assert {v.kind for v in verdicts.values()} == {"same distribution"}
    assert all(v.detail.startswith("100 runs, ") for v in verdicts.values())
    assert judge(old, new, rng=rng()).detail.startswith("100 runs, ")


def test_a_bias_in_one_part_is_named():
    old, new = drawn(rng(2))
    omd = new["agent"] == "omd"
    new["score"] += np.where(omd, 4.0, -4.0)  # cancels over the whole table
    verdict = judge(old, new, rng=rng())
    assert verdict.kind == "differs"
    assert verdict.detail.startswith(("in score, agent=omd by +", "in score, agent=mle by -"))


def test_only_the_last_step_is_tested():
    old, new = drawn(rng(3))
    new.loc[new["step"] == 1, "score"] += 100
    assert judge(old, new, rng=rng()).kind != "differs"
    same = old["step"] == 2
    verdict = judge(old, new.assign(score=new["score"].where(~same, old["score"])), rng=rng())
    assert verdict.kind == "same distribution"
    assert verdict.detail == "the same at the last step; 60 runs"


def test_divergence_on_one_side_counts():
    old, new = drawn(rng(4))
    new.loc[new["agent"] == "omd", "score"] = np.nan
    verdict = judge(old, new, rng=rng())
    assert verdict.kind == "differs"
    assert verdict.detail.startswith("in score, ")


def test_runs_that_share_a_number_flip_together():
    """A reference computed once for a seed is one draw, in however many settings it stands."""
    generator = rng(5)
    old, new = drawn(generator)
    for table in (old, new):
        table["score"] = generator.normal(size=3)[table["seed"]]
    verdict = judge(old, new, rng=rng())
    assert verdict.kind == "cannot be told"
    assert verdict.detail.startswith("too few runs: 3 runs")


def test_the_same_generator_gives_the_same_verdict():
    old, new = drawn(rng(6))
    assert judge(old, new, rng=rng()) == judge(old, new, rng=rng())


TABLES = 60
DESIGNS = [(3, 0.5), pytest.param(5, 0.0, marks=pytest.mark.soak)]  # seeds, share of their effect


@pytest.mark.parametrize(("seeds", "shared"), DESIGNS)
def test_false_alarms_and_power_are_as_stated(seeds, shared):
    """The bias is the standard error that each setting's released runs show."""
    p, stated, said = [], [], []
    for i in range(TABLES):
        old, new = drawn(rng(i), seeds, shared)
        honest = judge(old, new, rng=rng(i))
        p.append(honest.p)
        stated.append(honest.power["score"])
        new["score"] += errors_of(old)
        said.append(judge(old, new, rng=rng(i)).kind == "differs")
    for level in (0.05, 0.2):  # to three standard deviations of a count
        assert np.mean(np.array(p) <= level) <= level + 3 * (level * (1 - level) / TABLES) ** 0.5
    assert np.mean(said) > 0.25
    assert abs(np.mean(said) - np.mean(stated)) < 3 * 0.5 / TABLES**0.5
