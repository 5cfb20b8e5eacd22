"""Stage: statistics over seeds of the tabular trainings."""

import pandas as pd

from diffmbrl.omd.aggregate import summarize
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import read_parquet, write_csv

SETTING = ["table", "agent", "objective", "projection", "adjoint", "norm_bound", "sigma"]
METRICS = ("return", "q_error", "bound", "bellman_error")


def tabular(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per table, agent and bound or noise level."""
    runs = pd.concat([frame.assign(table=name) for name, frame in frames.items()])
    ranges = [f"{m}_{end}" for m in ("return", "q_error", "bound") for end in ("low", "high")]
    summary = summarize(runs, SETTING, METRICS)
    others = runs.groupby(SETTING, observed=True, sort=True)[["converged", *ranges]].mean()
    return summary.merge(others.reset_index(), on=SETTING)


def run(job: Job) -> None:
    """Inputs: runs. Outputs: their summary."""
    tables = {path.stem.removeprefix("tabular_"): path for path in job.inputs["runs"]}
    summary = tabular({name: read_parquet(path) for name, path in tables.items()})
    write_csv(summary, job.outputs["tabular"])
