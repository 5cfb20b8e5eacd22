"""Stage: every run of one domain and parameterization (seeds x rates x etas x offsets)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from diffmbrl import registry
from diffmbrl.errors import ConfigError
from diffmbrl.implicit import dataset, schedule
from diffmbrl.implicit.advance import advance, start
from diffmbrl.implicit.domain import Domain
from diffmbrl.implicit.metrics import METRICS
from diffmbrl.implicit.values import Models
from diffmbrl.pipeline.stage import Job
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid
from diffmbrl.tables import write_parquet

AXES = {  # column: the setting that it spans; what `diffmbrl replay` narrows to a single run
    "seed": "seeds",
    "learning_rate": "learning_rates",
    "eta": "etas",
    "reward_offset": "reward_offsets",
    "backup": "backups",
}

USES = {"domain": "implicit.domains", "parameterization": "implicit.parameterizations"}


def residuals(
    theta: Float[Array, " k"], points: dict[str, Array], offset: Float[Array, ""]
) -> dict[str, Float[Array, ""]]:
    """Norms of the residual (prediction - target), of its mean part and of the rest."""
    residual = points["features"] @ theta - points["returns"] - offset * points["discounts"]
    ones = jnp.full_like(residual, residual.mean())
    return {
        "residual_norm": jnp.linalg.norm(residual),
        "residual_ones_norm": jnp.linalg.norm(ones),
        "residual_ortho_norm": jnp.linalg.norm(residual - ones),
        "mse": jnp.mean(residual**2),
    }


def program(models: Models, updates: int, log_every: int) -> engine.Program:
    """Training by plain SGD of a set of runs, measured before it and every `log_every` updates.

    A config holds seed (index into the data) and eta, scalars, and learning_rate and
    reward_offset, of shape (width,). The runs of a set share their points, batches and initial
    parameters; metrics have a trailing axis of `width`. At width 1 there is no such axis.
    """

    def init(config, data):
        seed = config["seed"]
        return start(models, data["w"][seed], data["F"][seed], config["eta"])

    def measure(config, data, state):
        points = {name: leaf[config["seed"]] for name, leaf in data["evaluation"].items()}
        found = residuals(state["theta"], points, config["reward_offset"])
        return found | {"solver_result": state["result"]}

    def go_on(config, data, state):
        state = advance(models, log_every, config, data, state)
        return state, measure(config, data, state)

    segments = updates // log_every
    if models.width == 1:
        return engine.Program(init, go_on, segments, first=measure)
    config = {"seed": None, "eta": None, "learning_rate": 0, "reward_offset": 0}
    state = {"params": 0, "theta": 0, "step": None, "result": 0}
    return engine.Program(
        jax.vmap(init, (config, None), state),
        jax.vmap(go_on, (config, None, state), (state, 0)),
        segments,
        gpu_lanes=max(1, engine.Program.gpu_lanes // models.width),
        first=jax.vmap(measure, (config, None, state)),
    )


def arrays(
    path: Path, domain: Domain, seeds: Sequence[int], updates: int, batch_size: int, actions: int
) -> dict:
    """What every run of a domain reads: points, initial parameters and batches of each seed."""
    data: dict = dataset.load(path, domain, seeds)
    keys = [schedule.run_keys(seed) for seed in seeds]
    init = [
        schedule.initial_parameters(jnp.asarray(k.init), domain.n_features, actions) for k in keys
    ]
    data["w"], data["F"] = (np.stack(leaves) for leaves in zip(*init, strict=True))
    batches = [
        schedule.batch_indices(jnp.asarray(k.batch), count, updates, batch_size)
        for k, count in zip(keys, data["train"]["count"], strict=True)
    ]
    return data | {"batches": np.stack(batches)}


def sets(
    axes: Mapping[str, np.ndarray], width: int
) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "sets width"]]:
    """Puts runs of one seed and eta together; the last set of each is filled up with its last run.

    Args:
        axes: seed, eta, learning_rate and reward_offset of every run, of shape (runs,).
        width: how many runs a set has.

    Returns:
        The sets' configs, and which runs they hold.
    """
    _, kind = np.unique(np.stack([axes["seed"], axes["eta"]]), axis=1, return_inverse=True)
    members = [
        some[np.arange(first, first + width).clip(max=len(some) - 1)]
        for some in (np.flatnonzero(kind == k) for k in range(kind.max() + 1))
        for first in range(0, len(some), width)
    ]
    runs = np.stack(members)
    shared = {name: axes[name][runs[:, 0]] for name in ("seed", "eta")}
    return shared | {name: axes[name][runs] for name in ("learning_rate", "reward_offset")}, runs


def train(
    program: engine.Program, axes: Mapping[str, np.ndarray], data: dict, width: int, **how: Any
) -> dict[str, np.ndarray]:
    """Metrics of every run, of shape (runs, logged steps); `how` goes to the engine."""
    if width == 1:
        return engine.run(program, axes, data, **how)
    configs, runs = sets(axes, width)
    metrics = engine.run(program, configs, data, **how)
    n_runs = len(axes["seed"])

    def by_run(values):
        ordered = np.empty((n_runs, values.shape[1]), values.dtype)
        ordered[runs] = values.swapaxes(1, 2)
        return ordered

    return jax.tree.map(by_run, metrics)


def table(
    axes: Mapping[str, np.ndarray], metrics: Mapping[str, np.ndarray], log_every: int
) -> pd.DataFrame:
    """One row per run and logged step: axes, step, metrics, diverged, solver_result.

    `solver_result` is how the solve for the logged values ended, an index into
    `diffmbrl.solve.RESULTS`.

    Args:
        axes: arrays of shape (runs,).
        metrics: arrays of shape (runs, logged steps).
        log_every: updates between two logged steps.
    """
    runs, logged = metrics["residual_norm"].shape
    frame = pd.DataFrame({name: np.repeat(values, logged) for name, values in axes.items()})
    frame["step"] = np.tile(np.arange(logged) * log_every, runs)
    for name in METRICS:
        frame[name] = metrics[name].reshape(-1)
    frame["diverged"] = np.repeat(~np.isfinite(metrics["residual_norm"][:, -1]), logged)
    frame["solver_result"] = metrics["solver_result"].reshape(-1).astype(np.int8)
    return frame


def run(job: Job) -> None:
    """Trains the whole grid and writes one table."""
    s = job.settings
    if s["updates"] % s["log_every"]:
        raise ConfigError(
            f"updates = {s['updates']}: must be a multiple of log_every = {s['log_every']}"
        )
    domain = registry.load("implicit.domains", s["domain"]).DOMAIN
    data = arrays(
        job.input("dataset"), domain, s["seeds"], s["updates"], s["batch_size"], s["actions"]
    )
    axes = grid(
        {
            "seed": np.arange(len(s["seeds"])),
            "learning_rate": s["learning_rates"],
            "eta": s["etas"],
            "reward_offset": s["reward_offsets"],
        }
    )
    frames = [train_backup(job, domain.n_features, data, axes, backup) for backup in s["backups"]]
    write_parquet(pd.concat(frames, ignore_index=True), job.outputs["runs"])


def train_backup(
    job: Job, n: int, data: dict, axes: Mapping[str, np.ndarray], backup: str
) -> pd.DataFrame:
    """The table of one backup's runs; only a parameterization that has several names it."""
    s = job.settings
    entry = registry.load("implicit.parameterizations", s["parameterization"])
    models = entry.models(n, backup=backup, temperature=s["temperature"])
    labels = {"domain": s["domain"], "parameterization": s["parameterization"]}
    if models.has_backups:
        labels["backup"] = backup
    together = f", sets of {models.width}" if models.width > 1 else ""
    metrics = train(
        program(models, s["updates"], s["log_every"]),
        axes,
        data,
        models.width,
        threads=job.threads,
        checkpoint=job.scratch / backup,
        label=" ".join(labels.values()) + together,
    )
    named = {**axes, "seed": np.asarray(s["seeds"], dtype=np.int64)[axes["seed"]]}
    frame = table(named, metrics, s["log_every"])
    for position, (name, value) in enumerate(labels.items()):
        frame.insert(position, name, pd.Categorical([value] * len(frame)))
    return frame
