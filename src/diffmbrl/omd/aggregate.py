"""Stage: statistics over seeds of the CartPole runs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from diffmbrl.omd.selection import CURVES, RATES, SETTING, final, read_cartpole, select
from diffmbrl.pipeline.stage import Job
from diffmbrl.stats.intervals import bootstrap, iqm
from diffmbrl.tables import write_csv

BOOTSTRAP_SEED = 20220222


def summarize(frame: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Mean, sample sd, standard error, and interquartile mean with its 95% bootstrap interval.

    Statistics are over the runs whose metric is finite; n_runs and n_diverged say how many
    there are, and how many are left out.
    """
    rows = []
    for key, part in frame.groupby(list(by), observed=True, dropna=False, sort=True):
        rng = np.random.default_rng(BOOTSTRAP_SEED)  # anew: an interval is of its own runs alone
        row = dict(zip(by, key, strict=True))
        row |= {"n_runs": len(part), "n_diverged": int(part["diverged"].sum())}
        for metric in metrics:
            values = part[metric].to_numpy(dtype=float)
            values = values[np.isfinite(values)]
            row |= {f"{metric}_{name}": v for name, v in _statistics(values, rng).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _statistics(values: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    nan = float("nan")
    if len(values) == 0:
        return dict.fromkeys(("mean", "std", "stderr", "iqm", "iqm_low", "iqm_high"), nan)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else nan
    low, high = bootstrap(values, rng) if len(values) > 1 else (nan, nan)
    return {
        "mean": float(np.mean(values)),
        "std": spread,
        "stderr": spread / len(values) ** 0.5,
        "iqm": float(iqm(values)),
        "iqm_low": low,
        "iqm_high": high,
    }


def tried(runs: pd.DataFrame) -> pd.DataFrame:
    """How many pairs of rate and tau each setting was run at, as `tried`."""
    pairs = runs[[*SETTING, *RATES]].drop_duplicates()
    return pairs.groupby(SETTING, observed=True).size().rename("tried").reset_index()


def run(job: Job) -> None:
    """Writes the final results, which pair of rates was selected, and curves."""
    runs = read_cartpole(job.inputs["cartpole"])
    # Experiments may have different numbers of steps: each is cut at its own last one.
    parts = runs.groupby("experiment", sort=True)
    evaluations = job.settings["final_evaluations"]
    finals = pd.concat([final(part, evaluations) for _, part in parts])
    selected, pairs = select(finals), tried(finals)
    chosen = [*SETTING, *RATES]
    summary = summarize(finals, chosen, CURVES).merge(
        selected.assign(selected=True), how="left", on=chosen
    )
    summary["selected"] = summary["selected"].eq(True)
    curves = summarize(runs.merge(selected, on=chosen), [*SETTING, "step"], CURVES)
    write_csv(summary.merge(pairs, on=SETTING), job.outputs["cartpole"])
    write_csv(curves.merge(pairs, on=SETTING), job.outputs["curves"])
