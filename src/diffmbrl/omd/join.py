"""Stage: the tables of one experiment's settings as one table, in the order of the settings."""

import pandas as pd

from diffmbrl.pipeline.stage import Job


def run(job: Job) -> None:
    """Joins every input into the output of the same name."""
    for name, output in job.outputs.items():
        tables = [pd.read_parquet(path) for path in job.inputs[name]]
        pd.concat(tables, ignore_index=True).to_parquet(output)
