"""Stage: the mean of each table, rounded."""

import pandas as pd
from diffmbrl.toy import pair
from diffmbrl.toy.everyone import write


def run(job):
    """Averages."""
    means = {path.stem: pd.read_parquet(path)["value"].mean() for path in job.inputs["runs"]}
    write(job.outputs["summary"], {k: round(v / pair.SHIFT, 3) for k, v in means.items()})
    write(job.outputs["number"], len(means))
