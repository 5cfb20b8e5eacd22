"""Stage: a setting of `selection` at the pair of rates selected there, on further seeds.

What the best of several pairs returns on the seeds that selected it is too good (winner's curse);
these seeds took no part in that.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from diffmbrl.omd import cartpole
from diffmbrl.omd.selection import RATES, final, read_cartpole, select
from diffmbrl.omd.settings import Setting
from diffmbrl.omd.train import program
from diffmbrl.pipeline.stage import Job
from diffmbrl.sweep import engine
from diffmbrl.tables import write_parquet

USES = {"agent": "omd.agents"}


def train(
    setting: Setting,
    values: Mapping[str, Any],
    seeds: Int[np.ndarray, " runs"],
    threads: int,
    checkpoint: Path | None,
) -> pd.DataFrame:
    """The evaluations of some seeds' runs, as `omd.cartpole` has them."""
    training = cartpole.build(setting, values)
    segments = training.steps // training.segment
    per_call = next(n for n in range(cartpole.SEGMENTS_PER_CALL, 0, -1) if segments % n == 0)
    rates = {name: float(values[name]) for name in ("inner_lr", "tau", "model_lr")}
    configs = {name: np.full(len(seeds), rate) for name, rate in rates.items()} | {"seed": seeds}
    metrics = engine.run(
        program(training, lanes=1, segments_per_call=per_call), configs, None,
        threads=threads, checkpoint=checkpoint, label=f"{setting.agent} {setting.variant}",
    )  # fmt: skip
    del metrics["model"]
    runs = {name: configs[name] for name in cartpole.RUN}
    return cartpole.tidy(setting, runs, metrics, training)


def run(job: Job) -> None:
    """Selects a pair, trains, and writes the evaluations."""
    s = job.settings
    setting = Setting.parse(s["agent"], s["variant"])
    runs = read_cartpole(job.inputs["runs"])
    (pair,) = select(final(runs, s["final_evaluations"]))[RATES].to_dict("records")
    seeds = int(runs["seed"].max()) + np.arange(1, s["fresh_seeds"] + 1)
    curves = train(setting, {**s, **pair}, seeds, job.threads, job.scratch)
    write_parquet(curves, job.outputs["curves"])
