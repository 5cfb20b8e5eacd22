"""Stage: statistics over seeds of every setting, and the selection of learning rates."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from diffmbrl.implicit.metrics import ETA, METRICS
from diffmbrl.implicit.published import published
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import read_parquet, write_csv

SETTING = ["domain", "parameterization", "backup", "learning_rate", "eta", "reward_offset"]
FAMILY = ["domain", "parameterization", "backup", "eta"]
COLUMNS = (
    "domain",
    "parameterization",
    "learning_rate",
    "eta",
    "reward_offset",
    "seed",
    "step",
    *METRICS,
    "diverged",
)


def without_floor(runs: pd.DataFrame, floors: Mapping[str, float]) -> pd.Series:
    """The residual norm over the states whose value can be learned.

    Args:
        runs: with domain, reward_offset and residual_norm.
        floors: by domain, the residual norm per unit of offset that no parameters can remove.
    """
    floor = runs["domain"].astype(str).map(floors) * runs["reward_offset"].abs()
    total = runs["residual_norm"] ** 2 - floor**2
    return np.sqrt(total.clip(lower=0.0))


def summarize(runs: pd.DataFrame, floors: Mapping[str, float]) -> pd.DataFrame:
    """Mean and sample standard deviation over the finite seeds, at the start and at the end.

    Returns:
        One row per setting: n_runs, n_diverged, and <metric>_{mean,std} at the last logged step
        and <metric>_t0_{mean,std} at step 0.
    """
    runs = runs.assign(residual_norm_learnable=without_floor(runs, floors))
    metrics = [*METRICS, "residual_norm_learnable"]
    parts = []
    for suffix, step in (("", runs["step"].max()), ("_t0", 0)):
        at = runs[runs["step"] == step].replace([np.inf, -np.inf], np.nan)
        groups = at.groupby(SETTING, observed=True, sort=True)
        for metric in metrics:
            parts.append(groups[metric].mean().rename(f"{metric}{suffix}_mean"))
            parts.append(groups[metric].std(ddof=1).rename(f"{metric}{suffix}_std"))
    last = runs[runs["step"] == runs["step"].max()].groupby(SETTING, observed=True)
    counts = [last.size().rename("n_runs"), last["diverged"].sum().rename("n_diverged")]
    return pd.concat([*counts, *parts], axis=1).reset_index()


def select(runs: pd.DataFrame) -> pd.DataFrame:
    """The learning rate of each domain, parameterization and eta.

    The rule: the lowest final residual norm, the median over seeds (a diverged run counts as
    infinite), averaged over offsets; of equally good rates the larger.
    """
    last = runs[runs["step"] == runs["step"].max()]
    score = last["residual_norm"].where(~last["diverged"], np.inf)
    rates = [*FAMILY, "learning_rate"]
    median = score.groupby([last[name] for name in SETTING], observed=True).median()
    scores = median.groupby(rates, observed=True).mean().rename("score").reset_index()
    scores = scores.sort_values(["score", "learning_rate"], ascending=[True, False])
    best = scores.groupby(FAMILY, observed=True, sort=True).first().reset_index()
    theirs = published()[["domain", "parameterization", "eta", "learning_rate"]].drop_duplicates()
    theirs = theirs.merge(scores.drop(columns="backup"), how="left")
    theirs = theirs.rename(
        columns={"learning_rate": "published_learning_rate", "score": "published_score"}
    )
    return best.merge(theirs, how="left", on=["domain", "parameterization", "eta"])


def curves(summary: pd.DataFrame, selected: pd.DataFrame, eta: float) -> pd.DataFrame:
    """Figure 2 as a wide table: one row per offset, one column per domain and parameterization."""
    chosen = summary.merge(selected[[*FAMILY, "learning_rate"]], on=[*FAMILY, "learning_rate"])
    chosen = chosen[(chosen["eta"] == eta) & (chosen["backup"] == "none")]
    names = chosen["domain"].astype(str) + "_" + chosen["parameterization"].astype(str)
    table = chosen.assign(name=names).pivot(
        index="reward_offset", columns="name", values="residual_norm_mean"
    )
    return table.reset_index()


def run(job: Job) -> None:
    """Writes the summary of all settings, the selection, and the curves of figure 2."""
    domains = job.settings["domains"]
    floors = {name: facts.get("FLOOR", 0.0) for name, facts in domains.items()}
    summaries, selections = [], []
    for path in job.inputs["runs"]:
        runs = read_parquet(path, COLUMNS)
        if "backup" not in runs:
            runs["backup"] = "none"
        with np.errstate(over="ignore", invalid="ignore"):
            summaries.append(summarize(runs, floors))
            selections.append(select(runs))
    summary = pd.concat(summaries, ignore_index=True)
    selected = pd.concat(selections, ignore_index=True)
    write_csv(summary, job.outputs["summary"])
    write_csv(selected, job.outputs["selected"])
    write_csv(curves(summary, selected, ETA), job.outputs["curves"])
