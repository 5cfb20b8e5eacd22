"""Stage: ours against the tabular curves of Nikishin et al. 2022, point by point."""

import importlib.resources
import json

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job

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
        One row a published mean: ours, published, difference, tolerance, n_runs, converged,
        agrees, in_range, judged (figure 6 is judged up to a noise of 0.1).
    """
    rows = []
    for point in published().itertuples():
        table, axis = FIGURES[point.figure]
        ours = summary[
            (summary["table"] == table) & (summary["agent"] == point.agent)
            & (summary["adjoint"] == point.adjoint)
            & summary["projection"].isin(["published", "none"])
        ]  # fmt: skip
        ours = ours[np.isclose(ours[axis], point.x, rtol=1e-5, atol=1e-7)]
        if ours.empty:
            continue
        row = ours.iloc[0]
        error = row[f"{point.metric}_stderr"]
        theirs = error if np.isnan(point.stderr) else point.stderr
        tolerance = max(ABSOLUTE, STANDARD_ERRORS * float(np.hypot(np.nan_to_num(error), theirs)))
        difference = row[f"{point.metric}_mean"] - point.mean
        in_range = False
        if f"{point.metric}_low" in row:
            low, high = row[f"{point.metric}_low"], row[f"{point.metric}_high"]
            in_range = bool(low - ABSOLUTE <= point.mean <= high + ABSOLUTE)
        rows.append({
            "figure": point.figure, "agent": point.agent, "adjoint": point.adjoint,
            "metric": point.metric, "x": point.x, "ours": row[f"{point.metric}_mean"],
            "published": point.mean, "difference": difference, "tolerance": tolerance,
            "n_runs": int(row["n_runs"]), "converged": row["converged"],
            "agrees": bool(abs(difference) <= tolerance), "in_range": in_range,
            "judged": point.figure != "figure 6" or point.x <= SIGMA_LIMIT,
        })  # fmt: skip
    return pd.DataFrame(rows)


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
            "compared": len(part), "agree": int(part["agrees"].sum()),
            "worst_difference": float(part["difference"].abs().max()),
            "verdict": verdict if same else "not the published seeds",
        }  # fmt: skip
    return result


def run(job: Job) -> None:
    """Writes the comparison as a table and as metrics."""
    table = compare(pd.read_csv(job.input("tabular")))
    table.to_csv(job.outputs["table"], index=False, float_format="%.9g")
    text = json.dumps(verdicts(table), indent=2, sort_keys=True)
    job.outputs["metrics"].write_text(text + "\n", encoding="utf-8")
