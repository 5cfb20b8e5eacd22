"""Run-by-run agreement with published run logs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Bar:
    """What agreement is asked for.

    Attributes:
        tolerance: largest relative difference of a run that counts as equal.
        share: least share of comparable runs within the tolerance, and of runs that agree on
            divergence.
        median: largest median relative difference, over a group's logged steps after 0.
        blow_up: a run above this many times its initial value is chaotic, and not compared.
    """

    tolerance: float = 1e-3
    share: float = 0.995
    median: float = 1e-6
    blow_up: float = 10.0


def agreement(
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    *,
    run: Sequence[str],
    by: Sequence[str],
    metric: str,
    bar: Bar,
) -> pd.DataFrame:
    """Compares two tables of runs at every step that both have.

    Divergence is being finite or not at the last step. Comparable runs are finite there in
    both, and in ours not above `bar.blow_up` times their value at step 0.

    Args:
        ours: columns `run`, step and `metric`.
        theirs: the same.
        run: the columns that identify a run, `by` among them.
        by: the columns to report by.
        metric: the column that is compared.
        bar: what counts as agreement.

    Returns:
        One row per group and step: runs, compared, within, median, worst, divergence_agrees,
        median_over_steps (of the group, all steps after 0), passes (step 0 is reported but,
        being before training, not judged).
    """
    keys = [*run, "step"]
    both = ours[[*keys, metric]].merge(
        theirs[[*keys, metric]], on=keys, suffixes=("", "_published")
    )
    if both.empty:
        raise ValueError("no run and step is in both tables")
    start = both[both["step"] == both["step"].min()].set_index(list(run))[metric]
    last = both[both["step"] == both["step"].max()].set_index(list(run))
    finite, finite_published = np.isfinite(last[metric]), np.isfinite(last[f"{metric}_published"])
    calm = last[metric] <= bar.blow_up * start.reindex(last.index)
    verdict = pd.DataFrame({
        "same_divergence": finite == finite_published,
        "comparable": finite & finite_published & calm,
    }).reset_index()  # fmt: skip
    both = both.merge(verdict, on=list(run))
    difference = (both[metric] - both[f"{metric}_published"]).abs()
    both["difference"] = difference / both[f"{metric}_published"].abs()
    rows = []
    for group, part in both.groupby([*by, "step"], observed=True):
        compared = part.loc[part["comparable"], "difference"]
        row = dict(zip([*by, "step"], group, strict=True))
        row |= {
            "runs": len(part),
            "compared": len(compared),
            "within": float((compared <= bar.tolerance).mean()),
            "median": float(compared.median()),
            "worst": float(compared.max()),
            "divergence_agrees": float(part["same_divergence"].mean()),
        }
        row["passes"] = row["step"] == 0 or bool(
            row["within"] >= bar.share and row["divergence_agrees"] >= bar.share
        )
        rows.append(row)
    judged = both[both["comparable"] & (both["step"] > 0)]
    median = judged.groupby(list(by), observed=True)["difference"].median()
    table = pd.DataFrame(rows)
    table["median_over_steps"] = median.reindex(pd.MultiIndex.from_frame(table[list(by)])).values
    table["passes"] &= (table["step"] == 0) | (table["median_over_steps"] <= bar.median)
    return table
