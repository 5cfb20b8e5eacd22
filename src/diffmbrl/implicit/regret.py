"""Stage: what three rules for choosing eta cost, against the best eta of each run in hindsight.

`true discount`: the eta nearest to gamma, in log(1 - eta). `held out`: the eta of the lowest
residual on trajectories left out (`implicit.choice`), then trained on all. `spectrum`: the eta of
the smallest lambda_max / lambda_min of P G at the start (`implicit.rates`). And each eta, fixed.
"""

import numpy as np
import pandas as pd

from diffmbrl.implicit.names import CHOOSERS, WAY
from diffmbrl.pipeline.stage import Job
from diffmbrl.stats.claims import t_interval
from diffmbrl.tables import read_parquet, write_csv


def run(job: Job) -> None:
    """Writes one row per domain and rule."""
    ends, rates, choice = (
        pd.concat([read_parquet(path) for path in job.inputs[name]])
        for name in ("ends", "rates", "choice")
    )
    ends = ends[(ends["parameterization"] == WAY) & (ends["rates"] == "selected")]
    rates = rates[rates["parameterization"] == WAY]
    rows = []
    for domain, part in ends.groupby("domain"):
        mine = (t[t["domain"] == domain] for t in (rates, choice))
        rows += [{"domain": domain, **row} for row in regrets(part, *mine)]
    write_csv(pd.DataFrame(rows), job.outputs["regret"])


def regrets(ends: pd.DataFrame, rates: pd.DataFrame, choice: pd.DataFrame) -> list[dict]:
    """Regret of each rule in one domain: mean over seeds and its 99% t interval.

    Returns:
        Rows with rule, eta (mean of those chosen), regret (of the final residual, in shares of the
        best one's mean), low, high, and n, how many seeds had no run that diverged.
    """
    offsets = choice["reward_offset"].unique()
    ends = ends[ends["reward_offset"].isin(offsets)]
    final = ends.pivot_table(
        index=["seed", "reward_offset"], columns="eta", values="residual_norm", dropna=False
    )
    etas = final.columns.to_numpy()
    picks = {
        rule: picked.reindex(final.index)
        for rule, picked in picked_etas(ends, rates, choice, etas).items()
    }
    picks |= {f"eta {eta:g}": pd.Series(eta, index=final.index) for eta in etas}
    best, rows = final.min(axis=1), []
    for rule, picked in picks.items():
        at = np.take_along_axis(
            final.to_numpy(), np.searchsorted(etas, picked.to_numpy())[:, None], axis=1
        )
        regret = pd.Series(at[:, 0] - best, index=final.index) / best.mean()
        by_seed = regret.groupby("seed").mean()
        by_seed = by_seed[np.isfinite(by_seed)]
        row = {"rule": rule, "eta": picked.mean(), "regret": by_seed.mean(), "n": len(by_seed)}
        if len(by_seed) > 1:
            _, row["low"], row["high"] = t_interval(by_seed)
        rows.append({"low": np.nan, "high": np.nan} | row)
    return rows


def picked_etas(
    ends: pd.DataFrame, rates: pd.DataFrame, choice: pd.DataFrame, etas: np.ndarray
) -> dict[str, pd.Series]:
    """The eta that each rule picks, by seed and offset."""
    gamma = ends["gamma"].iloc[0]
    nearest = etas[np.abs(np.log(1 - etas) - np.log(1 - gamma)).argmin()]
    validation = choice[choice["step"] == choice["step"].max()]
    held_out = validation.pivot_table(
        index=["seed", "reward_offset"], columns="eta", values="residual_norm"
    ).idxmin(axis=1)
    ratio = rates.assign(ratio=rates["largest"] / rates["smallest"])
    flattest = ratio.pivot_table(index="seed", columns="eta", values="ratio").idxmin(axis=1)
    by_seed = held_out.index.get_level_values("seed").map(flattest)
    return dict(
        zip(
            CHOOSERS,
            (
                pd.Series(nearest, index=held_out.index),
                held_out,
                pd.Series(by_seed, index=held_out.index),
            ),
            strict=True,
        )
    )
