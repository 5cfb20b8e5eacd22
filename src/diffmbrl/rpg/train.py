"""Stage: trains every run of a task, estimator and horizon; returns, and snapshots to measure.

Snapshots of estimators that no stage measures are not kept: their table is empty.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from diffmbrl.envs import callback
from diffmbrl.errors import ConfigError
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import setup, snapshots
from diffmbrl.rpg.learner import Learner
from diffmbrl.rpg.schedule import Schedule
from diffmbrl.sweep import engine
from diffmbrl.tables import write_parquet

USES = {"estimator": "rpg.estimators", "task": "rpg.tasks"}


def run(job: Job) -> None:
    """Settings: task, estimator, horizon, learner, schedule, arms."""
    s = job.settings
    training = setup.training(s, s["estimator"])
    target, runs = s["learner"]["sn_target"], setup.runs(s["arms"])
    groups = math.ceil(len(runs) / training.schedule.lanes)
    with callback.one_line():
        metrics = engine.run(
            training.program(lanes=math.ceil(len(runs) / groups)),
            setup.configs(runs, target),
            {},
            threads=job.threads,
            checkpoint=job.scratch,
            label=f"rpg {s['task']} {s['estimator']} {s['horizon']}",
        )
    check_lengths(training.learner, metrics["longest"])
    taken = join(metrics.pop("snapshot")) if training.schedule.snapshots else snapshots.NONE
    kept = taken if s["estimator"] == snapshots.MEASURED else snapshots.NONE
    snapshots.write(kept, job.outputs["snapshots"])
    what = {"task": s["task"], "estimator": s["estimator"], "horizon": training.learner.h}
    write_parquet(table(what, runs, metrics, training.schedule), job.outputs["returns"])


def check_lengths(learner: Learner, longest: Int[np.ndarray, "runs segments entries"]) -> None:
    """Refuses a horizon, or model segments, longer than any segment that a run came to store.

    Raises:
        ConfigError: names the count and the longest stored segment.
    """
    if not learner.unrolls:
        return
    least = int(longest[:, -1, -1].min())
    for key, steps in (("horizon", learner.h), ("learner.model_steps", learner.model_steps)):
        if steps > least:
            raise ConfigError(
                f"{key} = {steps}: longer than any segment that a run stored ({least} steps of one "
                "episode); lower it or train longer"
            )


def table(
    what: dict[str, Any],
    runs: list[setup.Run],
    metrics: dict[str, np.ndarray],
    schedule: Schedule,
) -> pd.DataFrame:
    """One row per run and evaluation: mean and standard deviation of its episodes' returns.

    Args:
        what: columns that are the same in every row.
        runs: of the sweep.
        metrics: of the sweep, with leading axes (runs, segments, entries).
        schedule: of the training.
    """
    returns = join(metrics["returns"])
    logs = {name: join(value) for name, value in metrics.items() if name != "returns"}
    steps = schedule.random_steps + schedule.evaluate_every * np.arange(returns.shape[1])
    parts = [
        pd.DataFrame(
            {
                **what,
                **one,
                "step": steps,
                "return_mean": returns[i].mean(-1),
                "return_sd": returns[i].std(-1, ddof=1),
                "episodes": returns.shape[-1],
                **{name: value[i] for name, value in logs.items()},
                "diverged": not np.isfinite(returns[i]).all(),
            }
        )
        for i, one in enumerate(runs)
    ]
    return pd.concat(parts, ignore_index=True)


def join(values: np.ndarray) -> np.ndarray:
    """(runs, segments, entries, ...) to (runs, entries, ...).

    Each segment's first entry repeats the last one of the segment before it.
    """
    first, rest = values[:, :1, 0], values[:, :, 1:]
    return np.concatenate([first, rest.reshape(len(values), -1, *rest.shape[3:])], axis=1)
