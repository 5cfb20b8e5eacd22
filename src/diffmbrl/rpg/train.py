"""Stage: trains every run of one estimator; returns over steps, and snapshots to measure on."""

from typing import Any

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import setup, training
from diffmbrl.sweep import engine


def run(job: Job) -> None:
    """Settings: estimator, task, horizon, learner, schedule, runs."""
    s = job.settings
    env = setup.environment(s["task"])
    schedule = setup.schedule(s["schedule"])
    learner = setup.learner(s["learner"], s["estimator"], s["horizon"], env, schedule.steps)
    target = s["learner"]["sn_target"]
    runs = setup.runs(s["runs"], target)
    metrics = engine.run(
        training.program(learner, env, schedule, lanes=1), setup.configs(runs, target), {},
        threads=job.threads, checkpoint=job.scratch, label=f"rpg {s['estimator']}",
    )  # fmt: skip
    snapshots = metrics.pop("snapshot")
    table(runs, metrics, schedule, s["task"], s["estimator"], learner.h).to_parquet(
        job.outputs["returns"], index=False
    )
    with open(job.outputs["snapshots"], "wb") as file:
        np.save(file, join(snapshots))


def table(
    runs: list[dict[str, Any]], metrics: dict[str, np.ndarray], schedule: training.Schedule,
    task: str, estimator: str, h: int,
) -> pd.DataFrame:  # fmt: skip
    """One row a run and evaluation: mean and standard deviation of its episodes' returns."""
    returns = join(metrics["returns"])
    logs = {name: join(value) for name, value in metrics.items() if name != "returns"}
    steps = schedule.random_steps + schedule.evaluate_every * np.arange(returns.shape[1])
    rows = []
    for i, one in enumerate(runs):
        finite = np.isfinite(returns[i]).all()
        rows.append(pd.DataFrame({
            "task": task, "estimator": estimator, "horizon": h, **one, "step": steps,
            "return_mean": returns[i].mean(-1), "return_sd": returns[i].std(-1, ddof=1),
            "episodes": returns.shape[-1],
            **{name: value[i] for name, value in logs.items()}, "diverged": not finite,
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def join(values: np.ndarray) -> np.ndarray:
    """(runs, segments, entries, ...) to (runs, entries, ...).

    Each segment's first entry repeats the last one of the segment before it.
    """
    first, rest = values[:, :1, 0], values[:, :, 1:]
    return np.concatenate([first, rest.reshape(len(values), -1, *rest.shape[3:])], axis=1)
