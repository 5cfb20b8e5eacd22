"""Stage: the training curves of all estimators in one table."""

import pandas as pd

from diffmbrl.pipeline.stage import Job


def run(job: Job) -> None:
    """Inputs: the tables of `rpg.train`, one an estimator."""
    parts = [pd.read_parquet(path) for path in job.inputs["parts"]]
    pd.concat(parts, ignore_index=True).to_parquet(job.outputs["returns"], index=False)
