"""Stage: one row per run; can be told by environment variables to dawdle, fail or run full."""

import errno
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
from diffmbrl.toy import pair
from diffmbrl.toy.everyone import read

from diffmbrl import registry
from diffmbrl.pipeline.stage import Job

USES = {"method": "toy.methods"}
AXES = {"rate": "rates", "seed": "seeds"}


def run(job: Job):
    """Trains every rate and seed."""
    from diffmbrl.toy.step import advance

    if os.environ.get("TOY_FAIL") == job.settings["method"]:
        raise RuntimeError("told to fail")
    if os.environ.get("TOY_FULL") == job.settings["method"]:
        job.outputs["runs"].write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    data = read(job.input("data"))
    start = registry.load("toy.methods", job.settings["method"]).start
    rows = [
        {"rate": rate, "seed": seed, "value": advance(start(data) + seed + pair.SHIFT, rate)}
        for rate in job.settings["rates"]
        for seed in job.settings["seeds"]
    ]
    pq.write_table(pa.Table.from_pylist(rows), job.outputs["runs"])
