"""Stage: the runs of one setting in continuous control (figure 8): SAC on a learned model.

A setting is a task and an agent with its static structure and rates; its seeds are one compiled
program. Each keeps its checkpoint, so that an interrupted job goes on to the same bytes.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from diffmbrl import registry
from diffmbrl.agents import memory, sac
from diffmbrl.envs import callback
from diffmbrl.envs.distracted import Distracted
from diffmbrl.omd.sac_agent import Critics, Model, with_sac
from diffmbrl.omd.sac_train import Training, program
from diffmbrl.omd.settings import Setting
from diffmbrl.pipeline.stage import Job
from diffmbrl.sweep import engine
from diffmbrl.tables import write_parquet

USES = {"agent": "omd.agents", "task": "rpg.tasks"}
COLUMNS = ("agent", "width", "distractors", "inner_steps", "adjoint")


def build(task: str, setting: Setting, values: Mapping[str, Any], rate: float) -> Training:
    """The training that a setting stands for.

    Args:
        task: entry of `rpg.tasks`.
        setting: what is static in a run.
        values: of the config.
        rate: Adam's, of SAC.
    """
    env = registry.load("rpg.tasks", task).environment()
    env = Distracted(env, setting.distractors) if setting.distractors else env
    inner = sac.SAC(
        env.observation_dim,
        env.action_dim,
        width=values["hidden"],
        entropy=0.5,
        log_std_low=-10.0,
        gamma=values["gamma"],
        tau=values["tau"],
        learning_rate=rate,
        actor_learning_rate=rate,
        alpha=values["alpha"],
    )
    model = Model(env.observation_dim, env.action_dim, setting.width)
    entry = registry.load("omd.agents", setting.agent)
    agent = with_sac(entry.agent(Critics(inner), model, setting, values))
    return Training(
        agent,
        env,
        values["steps"],
        values["warmup"],
        values["evaluate_every"],
        values["batch"],
        values["episodes"],
    )


def train(
    training: Training,
    seeds: int,
    model_lr: float,
    *,
    threads: int = 1,
    checkpoint: Path | None = None,
    label: str = "omd control",
) -> dict[str, np.ndarray]:
    """Metrics of seeds 1, 2, ..., leading axes (seeds, segments).

    Raises:
        ConfigError: the replay does not fit memory, or the simulation becomes unstable.
    """
    on_cpu = jax.default_backend() == "cpu"
    each = memory.bytes_of(training.row, training.steps)
    lanes = memory.lanes(each, seeds, threads if on_cpu else seeds, label)
    configs = {
        "seed": np.arange(1, seeds + 1, dtype=np.uint32),
        "model_lr": np.full(seeds, model_lr, np.float32),
    }
    with callback.one_line():
        return engine.run(
            program(training, gpu_lanes=lanes),
            configs,
            None,
            threads=lanes if on_cpu else 1,
            checkpoint=checkpoint,
            label=label,
        )


def table(
    columns: Mapping[str, Any], metrics: Mapping[str, np.ndarray], segment: int
) -> pd.DataFrame:
    """One row per run and evaluation; a run that diverged is marked in all its rows."""
    n_runs, segments = metrics["eval_return"].shape
    frame = pd.DataFrame(dict(columns), index=range(n_runs * segments))
    frame["seed"] = np.repeat(np.arange(1, n_runs + 1), segments)
    frame["step"] = np.tile(np.arange(1, segments + 1) * segment, n_runs)
    for name, values in metrics.items():
        frame[name] = values.reshape(-1).astype(np.float64)
    finite = np.all([np.isfinite(values).all(axis=1) for values in metrics.values()], axis=0)
    frame["diverged"] = np.repeat(~finite, segments)
    return frame


def run(job: Job) -> None:
    """Trains one setting and writes its evaluations."""
    s = job.settings
    setting, rates = (
        Setting.parse(s["agent"], s["variant"]),
        {name: float(s[name]) for name in ("inner_lr", "model_lr")},
    )
    training = build(s["task"], setting, s, rates["inner_lr"])
    metrics = train(
        training,
        s["seeds"],
        rates["model_lr"],
        threads=job.threads,
        checkpoint=job.scratch,
        label=f"{s['task']} {setting.agent} {setting.variant}",
    )
    columns = {name: value for name, value in asdict(setting).items() if name in COLUMNS}
    what = {"task": s["task"], **columns, **rates}
    write_parquet(table(what, metrics, training.segment), job.outputs["curves"])
