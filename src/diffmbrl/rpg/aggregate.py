"""Stage: tables of statistics, from which figures are drawn and claims are judged.

Most keep one row per run: with five seeds the runs themselves say more than an interval of them.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.stats.claims import t_interval
from diffmbrl.tables import read_parquet, write_csv

ARM = ["sn", "layers", "init", "clip", "rate"]
SETTING = ["task", "estimator", "horizon", *ARM]
RUN = [*SETTING, "seed"]
LAST = 2  # evaluations whose mean is the final return
PROBLEM = ["radius", "gamma", "model_error", "critic_error", "seed", "formula"]
ERRORS = ("bias_same", "bias_full", "error_same", "error_full")
NEAR = 1.1  # an h is as good as the best one where its error is at most so many times the least


def run(job: Job) -> None:
    """Inputs: the result tables. Outputs: statistics of each."""
    frames = {
        name: pd.concat(map(read_parquet, paths), ignore_index=True)
        for name, paths in job.inputs.items()
    }
    measured = gradients(frames["gradients"])
    made = {
        "returns": returns(frames["returns"]),
        "runs": runs(frames["returns"], measured),
        "gradients": measured,
        "swap": scale_free(frames["swap"]),
        "exact": frames["exact"],
        "horizon": best_horizons(frames["horizon"], job.settings["horizon_batch"]),
        "smoothness": smoothness(frames["smoothness"], job.settings["policy_batch"]),
        "theory": frames["theory"],
        "convergence": tuned(frames["convergence"]),
    }
    for name, table in made.items():
        write_csv(table, job.outputs[name])


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


def best_horizons(frame: pd.DataFrame, batch: int) -> pd.DataFrame:
    """For every problem the smallest h whose error is near the least: of bias, and of a batch."""
    frame = frame.assign(
        error_same=batch_error(frame, "bias_same", batch),
        error_full=batch_error(frame, "bias_full", batch),
    )
    rows = []
    for key, part in frame.groupby(PROBLEM, sort=True):
        finite = part[~part["diverged"]].sort_values("horizon")
        rows.append(
            {
                **dict(zip(PROBLEM, key, strict=True)),
                **{f"best_{e}": _first_near(finite["horizon"], finite[e]) for e in ERRORS},
                "shortest_bias_full": finite["bias_full"].iloc[0],
                "least_bias_full": finite["bias_full"].min(),
                "largest": part["horizon"].max(),
                "n_diverged": int(part["diverged"].sum()),
            }
        )
    return pd.DataFrame(rows)


def _first_near(horizons: pd.Series, errors: pd.Series) -> int:
    """The smallest h whose error is at most `NEAR` times the least."""
    return int(horizons[errors <= NEAR * errors.min()].min())


def smoothness(frame: pd.DataFrame, batch: int) -> pd.DataFrame:
    """One row per model, with the error of a batch's gradient and what the policy lost.

    `lost` is the return of a policy trained in the plain model of the same stiffness and seed,
    less that of the policy trained in this one.
    """
    keys = ["stiffness", "seed"]
    plain = frame[frame["sn"] == "none"].set_index(keys)["return_trained"].rename("plain")
    frame = frame.merge(plain, left_on=keys, right_index=True)
    return frame.assign(
        gradient_error=batch_error(frame, "bias_model", batch),
        lost=frame["plain"] - frame["return_trained"],
    ).drop(columns="plain")


def batch_error(frame: pd.DataFrame, bias: str, batch: int) -> pd.Series:
    """|bias|^2 + tr(Sigma) / batch: the expected squared error of a batch's mean gradient."""
    return frame[bias] + frame["trace"] / batch


def tuned(frame: pd.DataFrame) -> pd.DataFrame:
    """Of every arm, h and N the rate that seed 0 ended highest with; rows of the other seeds.

    With `predicted`, the corollary's bound without its constants: progress + bias^2 + noise.
    """
    arm = ["task", "horizon", "sn", "layers", "target", "batch"]
    trial = frame[(frame["seed"] == 0) & ~frame["diverged"]]
    best = trial.sort_values("return_end").groupby(arm, as_index=False).last()
    chosen = frame.merge(best[[*arm, "relative_step"]], on=[*arm, "relative_step"])
    terms = chosen["progress"].clip(lower=0) + chosen["bias_square"].clip(lower=0) + chosen["noise"]
    return chosen[chosen["seed"] > 0].assign(predicted=terms).reset_index(drop=True)


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
