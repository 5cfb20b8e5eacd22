"""Stage: how well each arm learned at each of its rates.

Scale `tuning` gives every arm the same rates and seeds; config/rpg.yaml has the ones chosen there.
"""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg.aggregate import RUN, SETTING, area
from diffmbrl.tables import read_parquet, write_csv


def run(job: Job) -> None:
    """Inputs: returns. Output: one row per arm and rate."""
    frame = pd.concat(map(read_parquet, job.inputs["returns"]), ignore_index=True)
    write_csv(rates(frame), job.outputs["rates"])


def rates(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean return over training by arm and rate, and whether the rate is its arm's best.

    A rate at which a run diverged is none's best; of equals the lowest is.

    Args:
        frame: one row per run and evaluation.
    """
    areas = [
        {**dict(zip(RUN, key, strict=True)), "area": area(part)}
        for key, part in frame.groupby(RUN, sort=True)
    ]
    by_rate = pd.DataFrame(areas).groupby(SETTING, sort=True)["area"]
    table = by_rate.agg(area=lambda values: values.mean(skipna=False), n_runs="size").reset_index()
    arm = [name for name in SETTING if name != "rate"]
    best = table.dropna(subset="area").groupby(arm, sort=False)["area"].idxmax()
    return table.assign(chosen=table.index.isin(best))
