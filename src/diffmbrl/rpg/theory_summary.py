"""Stage: statistics of the studies that train no agent: linear systems, and fitted models."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg.aggregate import read_all
from diffmbrl.tables import write_csv

PROBLEM = ["radius", "gamma", "model_error", "critic_error", "seed", "formula"]
ERRORS = ("bias_same", "bias_full", "error_same", "error_full")
NEAR = 1.1  # an h is as good as the best one where its error is at most so many times the least


def run(job: Job) -> None:
    """Inputs: the result tables. Outputs: statistics of each."""
    found = {name: read_all(paths) for name, paths in job.inputs.items()}
    made = {
        "exact": found["exact"],
        "horizon": best_horizons(found["horizon"], job.settings["horizon_batch"]),
        "smoothness": smoothness(found["smoothness"], job.settings["policy_batch"]),
        "theory": found["theory"],
        "convergence": tuned(found["convergence"]),
    }
    for name, table in made.items():
        write_csv(table, job.outputs[name])


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
