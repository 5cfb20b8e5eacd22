"""Stage: statistics of trained agents, from which figures are drawn and claims are judged.

Most keep one row per run: with five seeds the runs themselves say more than an interval of them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.stats.claims import t_interval
from diffmbrl.tables import read_parquet, write_csv

ARM = ["sn", "layers", "init", "clip", "rate"]
SETTING = ["task", "estimator", "horizon", *ARM]
RUN = [*SETTING, "seed"]
LAST = 2  # evaluations whose mean is the final return


def run(job: Job) -> None:
    """Inputs: the result tables. Outputs: statistics of each."""
    found = {name: read_all(paths) for name, paths in job.inputs.items()}
    measured = gradients(found["gradients"])
    made = {
        "returns": returns(found["returns"]),
        "runs": runs(found["returns"], measured),
        "gradients": measured,
        "swap": scale_free(found["swap"]),
    }
    for name, table in made.items():
        write_csv(table, job.outputs[name])


def read_all(paths: Sequence[Path]) -> pd.DataFrame:
    """Tables of the same columns as one."""
    return pd.concat(map(read_parquet, paths), ignore_index=True)


def returns(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean return over seeds by step, with its 95% t interval (NaN for one seed)."""
    rows = []
    for key, part in frame.groupby([*SETTING, "step"], sort=True):
        good = part.loc[~part["diverged"], "return_mean"]
        mean, low, high = interval(good)
        rows.append(
            {
                **dict(zip([*SETTING, "step"], key, strict=True)),
                "return_mean": mean,
                "return_low": low,
                "return_high": high,
                "n_runs": len(part),
                "n_diverged": int(part["diverged"].sum()),
            }
        )
    return pd.DataFrame(rows)


def interval(values: pd.Series, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and t interval; without its ends where there are fewer than two values."""
    if len(values) > 1:
        return t_interval(values, level)
    return (float(values.iloc[0]) if len(values) else np.nan, np.nan, np.nan)


def runs(frame: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """One row per run: returns as area under the curve and at the end, networks, last gradients.

    `area` is the mean return over training, `final` that of the last evaluations, `first` that of
    the untrained policy. A run that diverged has no returns.
    """
    rows = []
    for key, part in frame.groupby(RUN, sort=True):
        part, diverged = part.sort_values("step"), bool(part["diverged"].any())
        value = part["return_mean"] if not diverged else part["return_mean"] * np.nan
        rows.append(
            {
                **dict(zip(RUN, key, strict=True)),
                "first": value.iloc[0],
                "area": area(part),
                "final": value.iloc[-LAST:].mean(),
                "sn_error": part["sn_error"].max(),
                **{
                    name: part[name].iloc[-1]
                    for name in part
                    if name.startswith(("bound_", "local_"))
                },
                "within": part["within"].iloc[-1],
                "model_loss": part["model_loss"].iloc[-1],
                "diverged": diverged,
            }
        )
    last = at_the_end(measured)
    wanted = ["ratio", "action_ratio", "cosine", "true_cosine", "trace", "model_error_1",
              "model_error_h"]  # fmt: skip
    own = last[last["estimator"] == "rp_dp"]
    return pd.DataFrame(rows).merge(own[[*RUN, *wanted]], on=RUN, how="left")


def area(part: pd.DataFrame) -> float:
    """The mean return of a run over its training; NaN where it diverged."""
    after = part[part["step"] > part["step"].min()]
    return np.nan if part["diverged"].any() else float(after["return_mean"].mean())


def at_the_end(measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last snapshot of each task."""
    return measured[measured["snapshot"] == measured.groupby("task")["snapshot"].transform("max")]


def gradients(frame: pd.DataFrame) -> pd.DataFrame:
    """What was measured of each run's gradients, with measures that do not depend on scales."""
    frame = scale_free(frame)
    square = frame["true_square"].where(frame["true_square"] > 0)
    return frame.assign(relative_bias=frame["bias_square"] / square)


def scale_free(frame: pd.DataFrame) -> pd.DataFrame:
    """With tr(Sigma) over the square of the sample mean, by weights and by actions.

    Not corrected for the mean's own noise, so that the logarithm is always there: of n samples of
    mean 0 it comes out near n.
    """
    return frame.assign(
        ratio=frame["trace"] / frame["sample_square"],
        action_ratio=frame["action_trace"] / frame["action_square"],
    )


def paired(
    table: pd.DataFrame, column: str, one: pd.Series, other: pd.Series, change: Callable
) -> pd.DataFrame:
    """A change between two arms, of the runs of one task, estimator, h and seed (mean over rates).

    Args:
        table: one row per run.
        column: what is compared.
        one, other: which rows belong to either arm.
        change: from the column's values in `one` and `other` to what is compared.

    Returns:
        Columns task, estimator, horizon, seed and `change`.
    """
    keys = ["task", "estimator", "horizon", "seed"]
    means = [table[rows].groupby(keys)[column].mean() for rows in (one, other)]
    both = pd.concat(means, axis=1, join="inner", keys=["one", "other"])
    return change(both["one"], both["other"]).rename("change").reset_index()
