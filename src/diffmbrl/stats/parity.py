"""Agreement with published numbers: run by run, and as a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffmbrl.tables import write_csv, write_json


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
    both = _paired(ours, theirs, [*run, "step"], metric)
    both = both.merge(_verdicts(both, list(run), metric, bar), on=list(run))
    difference = (both[metric] - both[f"{metric}_published"]).abs()
    both["difference"] = difference / both[f"{metric}_published"].abs()
    table = pd.DataFrame(
        dict(zip([*by, "step"], group, strict=True)) | _row(part, bar)
        for group, part in both.groupby([*by, "step"], observed=True)
    )
    judged = both[both["comparable"] & (both["step"] > 0)]
    median = judged.groupby(list(by), observed=True)["difference"].median()
    table["median_over_steps"] = median.reindex(pd.MultiIndex.from_frame(table[list(by)])).values
    shares = (table["within"] >= bar.share) & (table["divergence_agrees"] >= bar.share)
    table["passes"] = (table["step"] == 0) | (shares & (table["median_over_steps"] <= bar.median))
    return table


def _paired(ours: pd.DataFrame, theirs: pd.DataFrame, keys: list[str], metric: str):
    """The rows that both tables have, the published metric beside ours."""
    columns = [*keys, metric]
    both = ours[columns].merge(theirs[columns], on=keys, suffixes=("", "_published"))
    if both.empty:
        raise ValueError("no run and step is in both tables")
    return both


def _verdicts(both: pd.DataFrame, run: list[str], metric: str, bar: Bar) -> pd.DataFrame:
    """Per run: whether both diverged or neither did, and whether it can be compared."""
    start = both[both["step"] == both["step"].min()].set_index(run)[metric]
    last = both[both["step"] == both["step"].max()].set_index(run)
    finite, finite_published = np.isfinite(last[metric]), np.isfinite(last[f"{metric}_published"])
    calm = last[metric] <= bar.blow_up * start.reindex(last.index)
    columns = {
        "same_divergence": finite == finite_published,
        "comparable": finite & finite_published & calm,
    }
    return pd.DataFrame(columns).reset_index()


def _row(part: pd.DataFrame, bar: Bar) -> dict[str, float]:
    """The agreement of a group at one step."""
    compared = part.loc[part["comparable"], "difference"]
    return {
        "runs": len(part),
        "compared": len(compared),
        "within": float((compared <= bar.tolerance).mean()),
        "median": float(compared.median()),
        "worst": float(compared.max()),
        "divergence_agrees": float(part["same_divergence"].mean()),
    }


def write_comparison(
    table: pd.DataFrame, verdicts: Mapping[str, Mapping[str, Any]], outputs: Mapping[str, Path]
) -> None:
    """Writes a comparison with published numbers.

    Args:
        table: one row per published number.
        verdicts: by figure, how many were `compared`, how many `agree`, the `worst_difference`.
        outputs: `table`; `verdicts`; and `metrics`, four numbers that `dvc metrics` shows.
    """
    write_csv(table, outputs["table"])
    write_json(verdicts, outputs["verdicts"])
    totals = {key: sum(v[key] for v in verdicts.values()) for key in ("compared", "agree")}
    worst = max((v["worst_difference"] for v in verdicts.values()), default=0.0)
    share = totals["agree"] / max(totals["compared"], 1)
    write_json({**totals, "share": share, "worst_difference": worst}, outputs["metrics"])
