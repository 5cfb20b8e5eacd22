"""Ours against the numbers of Gehring et al. 2021: their summary, and their run logs."""

from pathlib import Path

import numpy as np
import pandas as pd

from diffmbrl.errors import DataError
from diffmbrl.implicit.published import published
from diffmbrl.pipeline.stage import Job
from diffmbrl.stats.parity import Bar, agreement, write_comparison
from diffmbrl.tables import read_parquet

RUN = ("domain", "parameterization", "learning_rate", "eta", "reward_offset", "seed")
FIGURES = {
    "figure 1": ("residual_ones_norm_t0", "residual_ortho_norm_t0"),
    "figures 2 and 3": ("residual_norm",),
}
SUMMARY_TOLERANCE = 1e-3

# The authors' folder layout and column names, and which of their sweeps the paper plots.
SWEEPS = {
    ("chain_rollout", "explicit"): "202105202021",
    ("chain_rollout", "implicit"): "202105261803",
    ("four_rooms_rollout", "explicit"): "202105241245",
    ("four_rooms_rollout", "implicit"): "202105231238",
    ("mountaincar", "explicit"): "202105261546",
    ("mountaincar", "implicit"): "202105261313",
}
DOMAIN_NAMES = {
    "chain_rollout": "chain",
    "four_rooms_rollout": "four_rooms",
    "mountaincar": "mountain_car",
}
RUN_NAMES = {
    "SEED": "seed",
    "LEARNING_RATE": "learning_rate",
    "MDP_MODULE_DISCOUNT": "eta",
    "REWARD_OFFSET": "reward_offset",
}
LOG_NAMES = {
    "timestep": "step",
    "res_ones_norm": "residual_ones_norm",
    "res_ortho_norm": "residual_ortho_norm",
}


def read_published(path: Path) -> pd.DataFrame:
    """The authors' run logs, from a Parquet table or from their folder.

    Args:
        path: a table with columns domain, parameterization, learning_rate, eta, reward_offset,
            seed, step, residual_norm; or a folder
            results/<domain>/<method>/<id>/{<n>/logs.csv, results.csv}, or one that holds it.

    Raises:
        DataError: neither, or a file or column is missing.
    """
    if path.is_file():
        return read_parquet(path, (*RUN, "step", "residual_norm"))
    root = path / "results" if (path / "results").is_dir() else path
    frames = []
    for index in sorted(root.glob("*/*/*/results.csv")):
        domain, method, sweep = index.parts[-4:-1]
        chosen = SWEEPS.get((domain, method))
        if chosen in (None, sweep) or not (index.parents[1] / chosen).is_dir():
            frames.append(_read_sweep(index, DOMAIN_NAMES.get(domain, domain), method))
    frames = [frame for frame in frames if not frame.empty]
    if not frames:
        raise DataError(
            f"{path}: no run logs found; expected a Parquet table, or a folder with "
            "results/<domain>/<method>/<id>/results.csv and <id>/<n>/logs.csv"
        )
    return pd.concat(frames, ignore_index=True)


def _read_sweep(index: Path, domain: str, method: str) -> pd.DataFrame:
    runs = pd.read_csv(index)
    if "REWARD_OFFSET" not in runs:  # an early sweep, of another experiment
        return pd.DataFrame()
    absent = [name for name in ("Seq", *RUN_NAMES) if name not in runs]
    if absent:
        raise DataError(f"{index}: column {absent[0]!r} is missing")
    for name, value in (("BATCH_SIZE", 25), ("USE_BIAS", False)):
        if name in runs:
            runs = runs[runs[name].astype(str) == str(value)]
    frames = []
    for run in runs.rename(columns=RUN_NAMES).itertuples():
        log = pd.read_csv(index.parent / str(run.Seq) / "logs.csv").rename(columns=LOG_NAMES)
        for name in RUN_NAMES.values():
            log[name] = getattr(run, name)
        frames.append(log)
    if not frames:
        return pd.DataFrame()
    return pd.concat(frames, ignore_index=True).assign(domain=domain, parameterization=method)


def compare_runs(ours: pd.DataFrame, theirs: pd.DataFrame, bar: Bar) -> pd.DataFrame:
    """Run-by-run agreement per domain, parameterization and logged step."""
    frames = []
    for frame in (ours, theirs):
        rounded = {
            name: frame[name].astype(float).round(9)
            for name in ("learning_rate", "eta", "reward_offset")
        }
        text = {name: frame[name].astype(str) for name in ("domain", "parameterization")}
        frames.append(frame.assign(**rounded, **text))
    return agreement(
        *frames, run=RUN, by=("domain", "parameterization"), metric="residual_norm", bar=bar
    )


def compare_summary(summary: pd.DataFrame) -> pd.DataFrame:
    """Our means and deviations against the published ones, at the published rates.

    Returns:
        One row per setting and metric: ours, published, difference (of the means, in units of
        the published mean), z (in standard errors of the two means), n_runs, n_diverged and
        the published counterparts, passes.
    """
    keys = ["domain", "parameterization", "learning_rate", "eta", "reward_offset"]
    theirs = published()
    both = summary.drop(columns="backup").merge(theirs, on=keys, suffixes=("", "_published"))
    rows = []
    for figure, metrics in FIGURES.items():
        for metric in metrics:
            mean, spread = both[f"{metric}_mean"], both[f"{metric}_std"]
            target, target_spread = (
                both[f"{metric}_mean_published"],
                both[f"{metric}_std_published"],
            )
            error = np.sqrt(
                spread**2 / both["n_runs"] + target_spread**2 / both["n_runs_published"]
            )
            part = both[keys].assign(
                figure=figure,
                metric=metric,
                ours=mean,
                published=target,
                difference=(mean - target).abs() / target.abs(),
                z=(mean - target) / error.where(error > 0),
                n_runs=both["n_runs"],
                n_diverged=both["n_diverged"],
                n_runs_published=both["n_runs_published"],
                n_diverged_published=both["n_nonfinite"],
            )
            same_count = part["n_diverged"] == part["n_diverged_published"]
            part["passes"] = (part["difference"] <= SUMMARY_TOLERANCE) & same_count
            rows.append(part)
    return pd.concat(rows, ignore_index=True)


def verdicts(table: pd.DataFrame) -> dict:
    """Per figure: how many published means ours agrees with, and the worst difference."""
    result = {}
    for figure, part in table.groupby("figure"):
        complete = bool((part["n_runs"] == part["n_runs_published"]).all())
        agrees = part["passes"].mean() >= Bar().share
        result[str(figure)] = {
            "compared": len(part),
            "agree": int(part["passes"].sum()),
            "worst_difference": float(part["difference"].max()),
            "same_seeds": complete,
            "verdict": "agrees"
            if complete and agrees
            else "differs"
            if complete
            else "not the published seeds",
        }
    return result


def run(job: Job) -> None:
    """Stage: writes the comparison with the published summary: table, verdicts and metrics."""
    table = compare_summary(pd.read_csv(job.input("summary")))
    write_comparison(table, verdicts(table), job.outputs)
