"""What runs end with, how pairs of rates are selected, and the claims that are judged from it."""

import numpy as np
import pandas as pd
import pytest

from diffmbrl.omd import aggregate, claims_tabular, claims_training, finals
from diffmbrl.omd.claims import CLAIMS

SETTING = {
    "experiment": "width",
    "agent": "omd",
    "width": 3,
    "distractors": 0,
    "inner_steps": 1,
    "double_q": True,
    "adjoint": "identity",
    "inner_optimizer": "fresh",
    "probabilistic": False,
    "activation": "relu",
    "frozen": "none",
}


def ends(returns, **other) -> pd.DataFrame:
    """One row per seed (and pair of rates), with these final returns."""
    table = pd.DataFrame(returns) if isinstance(returns, dict) else pd.DataFrame({0.1: returns})
    rows = table.rename_axis("seed").reset_index().melt("seed", var_name="inner_lr")
    rows = rows.rename(columns={"value": "eval_return"}).assign(tau=0.01, steps=200_000, **SETTING)
    return rows.assign(seed=rows["seed"] + 1, **other)


def selecting(runs: pd.DataFrame) -> pd.DataFrame:
    """The same of experiment `selection`."""
    return runs.assign(experiment="selection")


def fresh(returns, first, **other) -> pd.DataFrame:
    """Ends on fresh seeds, from a first one on."""
    runs = ends(returns, experiment="fresh", **other)
    return runs.assign(seed=runs["seed"] + first - 1)


def test_ends_of_runs_by_several_readings():
    steps = np.arange(10, 60, 10)
    one = pd.DataFrame({"step": steps, "eval_return": [5.0, 9.0, 1.0, 2.0, 3.0], **SETTING})
    one = one.assign(inner_lr=0.1, tau=0.01, seed=1, diverged=[False, True, False, False, False])
    for name in aggregate.CURVES:
        one[name] = one.get(name, 1.0)
    (row,) = finals.finals(one.sample(frac=1, random_state=0), [1, 3], 2).to_dict("records")
    assert (row["last_1"], row["last_3"], row["best"], row["eval_return"]) == (3, 2, 9, 2.5)
    assert row["diverged"]


def test_predictions_that_do_not_move_are_constant():
    t = np.arange(5.0)
    rows = [
        pd.DataFrame({"coordinate": c, "true": t, "predicted": p, **SETTING})
        for c, p in ((0, t * 0 + 3), (1, t * 0.5), (2, t * 1e-4))
    ]
    runs = pd.concat(rows).assign(inner_lr=0.1, tau=0.01, seed=1)
    (row,) = finals.still(runs).to_dict("records")
    assert row["still"] == pytest.approx(2 / 3)


def test_seeds_are_reported_under_a_pair_chosen_on_others():
    runs = ends({0.1: [9.0, 9.0, 3.0, 1.0], 0.2: [2.0, 2.0, 8.0, 8.0]})
    found = finals.selected(runs, "eval_return").groupby("selection")["eval_return"]
    assert found.apply(sorted).to_dict() == {
        "same seeds": [1, 3, 9, 9],
        "other half": [1, 2, 2, 3],
        "best of each seed": [8, 8, 9, 9],
    }
    (_, both), *rest = finals.by_setting(pd.concat([selecting(runs), fresh([4.0, 6.0], first=5)]))
    assert not rest
    found = finals.selected(both, "eval_return").groupby("selection")["eval_return"]
    assert found.apply(sorted).to_dict() == {
        "same seeds": [1, 3, 9, 9],
        "fresh seeds": [4, 6],
        "other half": [1, 2, 2, 3],
        "best of each seed": [8, 8, 9, 9],
    }
    assert finals.selected(runs[runs["inner_lr"] == 0.1], "eval_return")["selection"].unique() == [
        "one pair"
    ]


def test_the_winners_curse_is_seen_and_other_seeds_have_none():
    """1,000 draws of 6 equal pairs and 10 seeds: only the reported selection is too good."""
    rng = np.random.default_rng(0)
    same, other = [], []
    for _ in range(1000):
        values = rng.normal(0, 1, (10, 6))
        best = values.mean(axis=0).argmax()
        same.append(values[:, best].mean())
        halves = finals.halves(range(10))
        parts = [
            values[np.ix_(here, [values[there].mean(axis=0).argmax()])].mean()
            for here, there in (halves, halves[::-1])
        ]
        other.append(np.mean(parts))
    assert np.mean(same) > 0.3
    assert abs(np.mean(other)) < 0.05
    runs = ends({float(i): values[:, i] for i in range(6)})
    found = finals.selected(runs, "eval_return").groupby("selection")["eval_return"].mean()
    assert found["same seeds"] == pytest.approx(same[-1])
    assert found["other half"] == pytest.approx(other[-1])


def test_an_agent_that_was_not_run_leaves_a_claim_about_all_open():
    noise = np.array([-3.0, 1.0, 4.0, -2.0, 0.0])
    runs = [ends(495 + noise, agent=agent, width=6) for agent in ("omd", "mle", "vep")]
    assert claims_training.near_optimal_when_large(pd.concat(runs)).verdict == "agrees"
    found = claims_training.near_optimal_when_large(pd.concat(runs[:2]))
    assert found.verdict == "inconclusive"
    assert "vep not tested (it was not run)" in found.reason


def test_agents_are_compared_at_each_width_on_the_seeds_that_both_have():
    noise = np.arange(5.0)
    runs = [ends(300 + noise), ends(200 + 2 * noise, agent="mle"), ends(100 + noise, agent="vep")]
    assert claims_training.order_when_small(pd.concat(runs)).verdict == "agrees"
    few = [*runs, ends([300.0, 310.0, 290.0], width=1), ends([20.0, 25.0], width=1, agent="mle")]
    found = claims_training.order_when_small(pd.concat(few))
    assert found.verdict == "inconclusive"
    assert "width 3 agrees (omd minus mle: 98 [94.7, 101] against 0, n = 5)" in found.reason
    assert "width 1 agrees (omd minus mle: 282 [123, 442] against 0, n = 2)" in found.reason
    assert "mle over vep inconclusive (width 1 not tested (mle minus vep: 0 values" in found.reason
    broken = pd.concat(runs)
    broken.loc[(broken["agent"] == "mle") & (broken["seed"] == 2), "eval_return"] = np.nan
    told = claims_training.above_mle(broken)
    assert told.verdict == "inconclusive"
    assert "1 of 5 values are not finite (runs that diverged)" in told.reason
    found = claims_training.order_when_small(pd.concat(runs[:2]))
    assert found.verdict == "inconclusive"
    assert "mle over vep not tested (vep: not run)" in found.reason


@pytest.mark.parametrize(
    ("level", "verdict"), [(495, "agrees"), (300, "disagrees"), (476, "inconclusive")]
)
def test_a_claim_turns_with_its_data(level, verdict):
    noise = np.array([-3.0, 1.0, 4.0, -2.0, 0.0])
    pairs = {float(i): level + np.roll(noise, i) for i in range(6)}
    found = claims_training.near_optimal_when_small(ends(pairs))
    assert found.verdict == verdict
    alone = claims_training.near_optimal_when_small(ends(level + noise))
    open_yet = "with 1 of 6 pairs of rates; the others would tell"
    assert (open_yet in alone.reason) == (verdict == "disagrees")
    assert alone.verdict == ("inconclusive" if verdict == "disagrees" else verdict)
    short = claims_training.near_optimal_when_small(ends(level + noise, steps=12_000))
    assert short.verdict == "not tested"


def test_fresh_seeds_decide_where_both_agents_have_them():
    """On the seeds that selected a pair OMD is ahead; on fresh ones it is behind."""
    noise = np.array([-3.0, 1.0, 4.0, -2.0, 0.0])
    pairs = {agent: {float(i): level + np.roll(noise, i) for i in range(6)}
             for agent, level in (("omd", 500), ("mle", 300))}  # fmt: skip
    known = [selecting(ends(pairs[agent], agent=agent)) for agent in pairs]
    vep = selecting(ends(250 + noise, agent="vep"))
    assert claims_training.above_mle(pd.concat(known)).verdict == "agrees"
    further = [fresh(200 + noise, 6, agent="omd"), fresh(400 + 2 * noise, 6, agent="mle")]
    runs = pd.concat([*known, *further, vep])
    found = claims_training.above_mle(runs)
    assert (found.verdict, found.n) == ("disagrees", 5)
    assert claims_training.near_optimal_when_small(runs).estimate == pytest.approx(200)
    told = claims_training.order_when_small(runs).reason  # VEP has the first seeds alone
    assert "mle minus vep: 48.4 [40.3, 56.5] against 0, n = 5" in told
    assert "vep with 1 of 6 pairs of rates" in told


@pytest.mark.parametrize(
    ("level", "verdict"), [(495, "agrees"), (300, "disagrees"), (476, "inconclusive")]
)
def test_selection_as_in_the_paper_needs_every_pair(level, verdict):
    noise = np.array([-3.0, 1.0, 4.0, -2.0, 0.0])
    pairs = {float(i): level + np.roll(noise, i) for i in range(6)}
    runs = ends(pairs, experiment="selection")
    runs["last_10"] = runs["eval_return"]
    found = finals.selections(runs, ["last_10"])
    assert (found["tried"] == 6).all()
    told = claims_training.as_selected_in_the_paper(found)
    assert told.verdict == verdict
    assert "On fresh seeds" not in told.reason
    further = fresh([90.0, 110.0], first=6).assign(last_10=[90.0, 110.0])
    both = finals.selections(pd.concat([runs, further]), ["last_10"])
    told = claims_training.as_selected_in_the_paper(both)
    assert told.verdict == verdict
    assert told.reason.endswith(". On fresh seeds width 3, last_10: 100 [-537, 737]")
    some = finals.selections(runs[runs["inner_lr"] < 3], ["last_10"])
    assert (some["tried"] == 3).all()
    assert claims_training.as_selected_in_the_paper(some).verdict == "not tested"


def test_an_ablation_is_compared_with_the_default_by_seed():
    base = np.array([100.0, 300.0, 200.0])
    rows = pd.concat(
        [
            ends(base, experiment="ablation"),
            ends(base - 200 + np.array([1.0, 2.0, 0.0]), experiment="ablation", double_q=False),
            ends(base + np.array([1.0, 0.0, 2.0]), experiment="ablation", inner_steps=3),
        ]
    )
    assert claims_training.double_q(rows).verdict == "agrees"
    assert claims_training.inner_steps(rows).verdict == "agrees"
    assert claims_training.inverse_jacobian(rows).verdict == "not tested"
    assert claims_training.double_q(rows[rows["experiment"] == "width"]).verdict == "not tested"


@pytest.mark.parametrize(
    ("lead", "verdict"), [(900.0, "agrees"), (-900.0, "disagrees"), (2.0, "inconclusive")]
)
def test_models_are_more_useful_where_returns_are_at_every_width_and_count(lead, verdict):
    """Of each agent the better K counts, and runs that are too short do not."""
    noise = np.array([-30.0, 10.0, 40.0, -20.0, 0.0])
    runs = [
        pd.DataFrame({"seed": range(5), "eval_return": 4000 + level + shift * noise,
                      "agent": agent, "inner_steps": k, "width": 16, "distractors": count})
        for count in (0, 64)
        for agent, k, level, shift in (("omd", 1, lead, 1), ("omd", 3, lead - 5000, 1),
                                       ("mle", 1, 0.0, -1), ("mle", 3, -5000.0, -1))
    ]  # fmt: skip
    table = pd.concat(runs).assign(task="half_cheetah", steps=1_000_000, diverged=False)
    found = claims_training.more_useful_models(table)
    assert found.verdict == verdict
    assert "width 16, 64 distractors" in found.reason
    short = claims_training.more_useful_models(table.assign(steps=5000))
    assert short.verdict == "not tested"
    assert "runs of 5,000 steps" in short.reason
    elsewhere = claims_training.more_useful_models(table.assign(task="hopper"))
    assert elsewhere.verdict == "not tested"
    alone = claims_training.more_useful_models(table[table["agent"] == "mle"])
    assert alone.verdict == "not tested"
    lost = claims_training.more_useful_models(table.assign(diverged=table["seed"] == 1))
    assert lost.verdict == "inconclusive"


def test_a_constant_velocity_needs_an_optimal_run():
    predictions = pd.DataFrame(
        {
            "agent": "omd",
            "width": 1,
            "coordinate": 1,
            "inner_lr": 0.1,
            "tau": 0.01,
            "seed": 1,
            "true": [0.0, 1.0, 0.0],
            "predicted": [0.1, 0.1, 0.1],
        }
    )
    good, bad = ends([500.0, 20.0], width=1), ends([300.0, 20.0], width=1)
    assert claims_training.constant_velocity(good, predictions).verdict == "agrees"
    moving = predictions.assign(predicted=predictions["true"])
    assert claims_training.constant_velocity(good, moving).verdict == "disagrees"
    assert claims_training.constant_velocity(bad, predictions).verdict == "inconclusive"


def test_a_looser_bound_refutes_lemma_1_and_not_theorem_2():
    pairs = pd.DataFrame(
        {
            "error": [1.0, 2.0],
            "operator": [1.0, 28.0],
            "likelihood": [2.0, 10.0],
            "outside": [0.0, 1.0],
        }
    )
    assert claims_tabular.theorem_2(pairs).verdict == "agrees"
    assert claims_tabular.lemma_1(pairs).verdict == "disagrees"
    assert claims_tabular.lemma_1(pairs[:1]).verdict == "agrees"
    assert claims_tabular.theorem_2(pairs.assign(error=11.0)).verdict == "disagrees"


def test_samples_are_counted_until_the_return_is_reached():
    rows = [
        {
            "objective": objective,
            "alpha": 0.01,
            "batch": 50,
            "seed": seed,
            "transitions": n,
            "return": 1.0 if n >= first * (1 + seed / 100) else 0.0,
        }
        for objective, first in (("bellman", 100), ("return", 10_000))
        for seed in range(1, 16)
        for n in (200, 400, 20_000, 40_000)
    ]
    found = claims_tabular.more_samples(pd.DataFrame(rows))
    assert found.verdict == "agrees"
    assert found.estimate == 1


def test_every_claim_has_an_id_of_its_own_and_tables():
    assert [claim.id for claim in CLAIMS] == [f"O{i}" for i in range(1, 31)]
    assert all(claim.tables for claim in CLAIMS)


def test_being_ahead_decides_nothing_where_the_other_had_fewer_pairs_of_rates():
    noise = np.array([-3.0, 1.0, 4.0, -2.0, 0.0])

    def pairs(level, agent):
        return ends({float(i): level + np.roll(noise, i) for i in range(6)}, agent=agent)

    omd, mle = pairs(500, "omd"), pairs(300, "mle")
    behind = pd.concat([omd, mle, ends(200 + noise, agent="vep")])
    found = claims_training.order_when_small(behind)
    assert found.verdict == "inconclusive"
    assert "omd over mle agrees" in found.reason
    assert "vep with 1 of 6 pairs of rates; the others would tell" in found.reason
    ahead = pd.concat([omd, mle, ends(400 + noise, agent="vep")])
    assert claims_training.order_when_small(ahead).verdict == "disagrees"
    assert claims_training.above_mle(pd.concat([omd, mle])).verdict == "agrees"
    found = claims_training.above_mle(pd.concat([ends(200 + noise), mle]))
    assert (found.verdict, "omd with 1 of 6 pairs" in found.reason) == ("inconclusive", True)


def test_robustness_to_distractors_is_judged_against_both_others():
    noise = np.arange(5.0)
    shape = {"experiment": "distractors", "width": 32, "distractors": 16}
    levels = {"omd": 300, "mle": 200, "vep": 20}
    runs = [ends(level + noise, agent=agent, **shape) for agent, level in levels.items()]
    assert claims_training.robust(pd.concat(runs)).verdict == "agrees"
    found = claims_training.robust(pd.concat(runs[:2]))
    assert found.verdict == "inconclusive"
    assert "over vep not tested (vep: not run)" in found.reason
