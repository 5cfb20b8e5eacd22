import numpy as np
import pandas as pd

from diffmbrl.omd import aggregate, compare
from diffmbrl.tables import write_parquet


def cartpole_runs() -> pd.DataFrame:
    rows = []
    for rate, level in ((0.1, 10.0), (0.2, 30.0)):
        for seed in (1, 2):
            for step in (10, 20, 30, 40):
                rows.append({
                    "experiment": "width", "agent": "omd", "width": 1, "distractors": 0,
                    "inner_steps": 1, "double_q": True, "adjoint": "identity",
                    "inner_optimizer": "fresh", "probabilistic": False, "activation": "relu",
                    "frozen": "none", "inner_lr": rate, "tau": 0.01, "seed": seed,
                    "step": step, "eval_return": level + seed + step,
                    "model_mse": 1.0, "q_loss": 0.0, "q_value": 0.0, "adjoint_residual": 0.0,
                    "random_mse": 1.0, "dead_dynamics": 0.0, "dead_reward": 0.0,
                    "diverged": seed == 2 and rate == 0.1,
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_final_returns_average_the_last_evaluations():
    finals = aggregate.final(cartpole_runs(), 2)
    assert len(finals) == 4
    one = finals[(finals["inner_lr"] == 0.1) & (finals["seed"] == 1)].iloc[0]
    assert one["eval_return"] == 10 + 1 + 35
    assert finals["diverged"].sum() == 1


def test_an_experiment_is_named_by_the_folder_of_its_settings(tmp_path):
    paths = [
        tmp_path / name for name in ("width/omd_width1.parquet", "ablation/omd_width1.parquet")
    ]
    for level, path in enumerate(paths):
        path.parent.mkdir()
        runs = cartpole_runs().drop(columns="experiment")
        write_parquet(runs.assign(eval_return=float(level)), path)
    found = aggregate.read_cartpole(paths)
    levels = found.groupby("experiment")["eval_return"].unique()
    assert {name: level.tolist() for name, level in levels.items()} == {
        "width": [0.0],
        "ablation": [1.0],
    }


def test_the_best_mean_rate_is_selected():
    (selected,) = aggregate.select(aggregate.final(cartpole_runs(), 2)).to_dict("records")
    assert selected["inner_lr"] == 0.2


def test_summaries_count_diverged_runs_and_use_finite_ones():
    frame = pd.DataFrame({"g": ["a"] * 4, "x": [1.0, 2.0, 3.0, np.inf],
                          "diverged": [False, False, False, True]})  # fmt: skip
    (row,) = aggregate.summarize(frame, ["g"], ["x"]).to_dict("records")
    assert (row["n_runs"], row["n_diverged"]) == (4, 1)
    assert row["x_mean"] == 2.0
    assert row["x_std"] == 1.0
    assert row["x_iqm_low"] <= row["x_iqm"] <= row["x_iqm_high"]


def summary(mean: float, n: int = 10) -> pd.DataFrame:
    return pd.DataFrame([{
        "table": "misspecification", "agent": "omd", "objective": "return",
        "projection": "published", "adjoint": "exact", "norm_bound": 12 / 19, "sigma": 0.0,
        "n_runs": n, "converged": 0.0, "return_mean": mean, "return_stderr": 0.007,
        "return_low": mean - 0.001, "return_high": mean + 0.001,
    }])  # fmt: skip


def test_comparison_judges_by_two_standard_errors():
    (row,) = compare.compare(summary(-0.32)).to_dict("records")
    assert row["published"] == -0.32840986
    assert row["agrees"]
    assert not row["in_range"]
    (row,) = compare.compare(summary(-0.30)).to_dict("records")
    assert not row["agrees"]
    assert (
        compare.verdicts(compare.compare(summary(-0.30)))["figure 2, omd"]["verdict"] == "differs"
    )
    few = compare.verdicts(compare.compare(summary(-0.32, n=2)))
    assert few["figure 2, omd"]["verdict"] == "not the published seeds"


def test_published_table_is_whole():
    table = compare.published()
    assert table.groupby("figure").size().to_dict() == {
        "figure 2": 20, "figure 3": 50, "figure 6": 30,
    }  # fmt: skip
    assert np.isfinite(table["mean"]).all()
