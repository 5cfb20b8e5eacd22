"""What CartPole runs end with, and which pair of rates that selects."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from diffmbrl.tables import read_parquet

SETTING = [
    "experiment",
    "agent",
    "width",
    "distractors",
    "inner_steps",
    "double_q",
    "adjoint",
    "inner_optimizer",
    "probabilistic",
    "activation",
    "frozen",
]
RATES = ["inner_lr", "tau"]
CURVES = (
    "eval_return",
    "model_mse",
    "random_mse",
    "q_loss",
    "q_value",
    "adjoint_residual",
    "dead_dynamics",
    "dead_reward",
)


def final(runs: pd.DataFrame, evaluations: int) -> pd.DataFrame:
    """One row per run: metrics averaged over its last `evaluations` evaluations."""
    last = runs[runs["step"] > runs["step"].max() - evaluations * runs["step"].min()]
    by = [*SETTING, *RATES, "seed"]
    means = last.groupby(by, observed=True)[[*CURVES]].mean()
    return means.join(last.groupby(by, observed=True)["diverged"].any()).reset_index()


def select(finals: pd.DataFrame) -> pd.DataFrame:
    """The rate and tau of each setting: the highest mean final return over seeds.

    A run that diverged counts by its evaluations like any other: they are finite.
    """
    score = finals.groupby([*SETTING, *RATES], observed=True)["eval_return"].mean()
    best = score.reset_index().sort_values("eval_return", ascending=False, kind="stable")
    best = best.groupby(SETTING, observed=True, sort=True).first().reset_index()
    return best.drop(columns="eval_return")


def read_cartpole(paths: Sequence[Path]) -> pd.DataFrame:
    """The settings' tables as one; a table's folder is named after its experiment."""
    tables = [read_parquet(path).assign(experiment=path.parent.name) for path in paths]
    return pd.concat(tables, ignore_index=True)
