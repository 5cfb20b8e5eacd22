"""Stage: the mean of each table, rounded."""

from statistics import mean

import pyarrow.parquet as pq
from diffmbrl.toy import pair
from diffmbrl.toy.everyone import write


def run(job):
    """Averages."""
    tables = {path.stem: pq.read_table(path) for path in job.inputs["runs"]}
    means = {name: mean(table["value"].to_pylist()) for name, table in tables.items()}
    write(job.outputs["summary"], {k: round(v / pair.SHIFT, 3) for k, v in means.items()})
    write(job.outputs["number"], len(means))
