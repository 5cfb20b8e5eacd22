"""Stage: ours against the tabular curves of Nikishin et al. 2022, point by point."""

import importlib.resources
from typing import Any

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.stats.parity import write_comparison

ABSOLUTE = 1e-3
STANDARD_ERRORS = 2.0
SIGMA_LIMIT = 0.1
PUBLISHED_SEEDS = 10


def published() -> pd.DataFrame:
    """The curves of figures 2, 3 (right) and 6, over 10 seeds.

    Columns figure, agent, adjoint, metric, x (norm bound or noise sd), mean, stderr (NaN where
    not known). Computed with the program released with the paper, whose norm projection is
    the one called `published` here.
    """
    with importlib.resources.files("diffmbrl.omd").joinpath("published.csv").open() as file:
        return pd.read_csv(file)


FIGURES = {
    "figure 2": ("misspecification", "norm_bound"),
    "figure 3": ("bounds", "norm_bound"),
    "figure 6": ("noise", "sigma"),
}


def compare(summary: pd.DataFrame) -> pd.DataFrame:
    """Every published mean beside ours.

    They agree when within 2 standard errors of the two means or 1e-3, whichever is larger.
    Where training never settles (MLE under a bound), the last step is one draw of an
    oscillation: `in_range` says whether the published mean lies between the lowest and the
    highest values that our runs take over the second half of training.

    Returns:
        One row per published mean: ours, published, difference, tolerance, n_runs, converged,
        agrees, in_range, judged (figure 6 is judged up to a noise of 0.1).
    """
    rows = []
    for point in published().itertuples():
        table, axis = FIGURES[point.figure]
        ours = summary[
            (summary["table"] == table)
            & (summary["agent"] == point.agent)
            & (summary["adjoint"] == point.adjoint)
            & summary["projection"].isin(["published", "none"])
        ]
        ours = ours[np.isclose(ours[axis], point.x, rtol=1e-5, atol=1e-7)]
        if not ours.empty:
            judged = point.figure != "figure 6" or point.x <= SIGMA_LIMIT
            rows.append(_row(point, ours.iloc[0]) | {"judged": judged})
    return pd.DataFrame(rows)


def _row(point: Any, ours: pd.Series) -> dict[str, Any]:
    """A published point beside our row of the summary."""
    mean, error = ours[f"{point.metric}_mean"], ours[f"{point.metric}_stderr"]
    theirs = error if np.isnan(point.stderr) else point.stderr
    tolerance = max(ABSOLUTE, STANDARD_ERRORS * float(np.hypot(np.nan_to_num(error), theirs)))
    in_range = False
    if f"{point.metric}_low" in ours:
        low, high = ours[f"{point.metric}_low"], ours[f"{point.metric}_high"]
        in_range = bool(low - ABSOLUTE <= point.mean <= high + ABSOLUTE)
    return {
        "figure": point.figure,
        "agent": point.agent,
        "adjoint": point.adjoint,
        "metric": point.metric,
        "x": point.x,
        "ours": mean,
        "published": point.mean,
        "difference": mean - point.mean,
        "tolerance": tolerance,
        "n_runs": int(ours["n_runs"]),
        "converged": ours["converged"],
        "agrees": bool(abs(mean - point.mean) <= tolerance),
        "in_range": in_range,
    }


def verdicts(table: pd.DataFrame) -> dict:
    """Per figure and agent: how many judged points agree, and the largest difference."""
    result = {}
    for (figure, agent), part in table[table["judged"]].groupby(["figure", "agent"]):
        same = bool((part["n_runs"] == PUBLISHED_SEEDS).all())
        settled = part["agrees"] | ((part["converged"] < 1) & part["in_range"])
        verdict = "agrees" if part["agrees"].all() else "differs"
        if verdict == "differs" and settled.all():
            verdict = "agrees within the range of an oscillation"
        result[f"{figure}, {agent}"] = {
            "compared": len(part),
            "agree": int(part["agrees"].sum()),
            "worst_difference": float(part["difference"].abs().max()),
            "verdict": verdict if same else "not the published seeds",
        }
    return result


def run(job: Job) -> None:
    """Writes the comparison: table, verdicts and metrics."""
    table = compare(pd.read_csv(job.input("tabular")))
    write_comparison(table, verdicts(table), job.outputs)
