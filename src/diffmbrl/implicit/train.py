"""Stage: every run of one domain and parameterization (seeds x rates x etas x offsets)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from diffmbrl.errors import ConfigError
from diffmbrl.implicit import dataset, schedule
from diffmbrl.implicit.domains import DOMAINS
from diffmbrl.implicit.parameterizations import Explicit, Implicit, centred
from diffmbrl.implicit.tables import METRICS, write_parquet
from diffmbrl.pipeline.stage import Job
from diffmbrl.solve import GCR, Direct, Exact, Iterative, Newton, Picard, Refined
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid

AXES = {  # column: the setting that it spans; what `diffmbrl replay` narrows to a single run
    "seed": "seeds",
    "learning_rate": "learning_rates",
    "eta": "etas",
    "reward_offset": "reward_offsets",
    "backup": "backups",
}
BOUNDED = 1e4
DRIFT = 16.0  # of a row's largest logit between two logged steps, for float32 weights to do
SET = 72  # runs; the published grids have 66 a seed and eta
EXACT_BELOW = 32  # features; a factorisation is faster than iterating below, slower above


class Models(NamedTuple):
    """One parameterization, solved in two ways.

    Attributes:
        calm: the fastest, for a run whose values are bounded and whose logits move little.
        wild: exact to rounding and started afresh, for a run that blows up. Whether such a run
            overflows in the end hangs on its small entries, which a start at values of 1e20
            would drown in rounding errors of 1e4 (docs/implicit.md, detail 4).
    """

    calm: Explicit | Implicit
    wild: Explicit | Implicit


def models(parameterization: str, n: int, backup: str = "max", temperature: float = 1.0) -> Models:
    """A parameterization with the solves that measure fastest for n features.

    `explicit` starts at the initial values of the published runs, whose solver stops once no
    value moves by more than 1e-6: with exact ones its runs would differ from theirs by that.
    """
    if parameterization == "explicit":
        start = Explicit(Implicit(Picard(atol=1e-6), Exact()))
        return Models(start, start)
    several = parameterization == "implicit_mdp"
    steps, tolerance = (20, 1e-12) if several else (1, 0.0)
    if n < EXACT_BELOW:
        newton = Newton(Direct(), rtol=tolerance, atol=1e-10, max_steps=steps)
        exact = Implicit(newton, Exact(), backup, temperature)
        return Models(exact, exact)
    # A round of refinement leaves what float32 leaves. Where Newton's steps repeat, the next one
    # takes that away; a gradient needs no more; a solve by itself does (docs/implicit.md).
    full = GCR(rtol=1e-15, atol=1e-8, max_steps=60, memory=20)
    once = Refined(GCR(rtol=1e-6, atol=1e-8, max_steps=60, memory=8, passes=1), rounds=1)
    twice = Refined(GCR(rtol=1e-4, atol=1e-7, max_steps=60, memory=8, passes=1), rounds=2)
    calm, wild = (
        Newton(linear, rtol=tolerance, atol=1e-7, max_steps=steps)
        for linear in (once if several else twice, full)
    )
    return Models(
        Implicit(calm, Iterative(once), backup, temperature, warm=True),
        Implicit(wild, Iterative(full), backup, temperature),
    )


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


def program(models: Models, updates: int, log_every: int, width: int) -> engine.Program:
    """Training by plain SGD of a set of runs, measured before it and every `log_every` updates.

    A config holds seed (index into the data) and eta, scalars, and learning_rate and
    reward_offset, of shape (width,). The runs of a set share their points, batches and initial
    parameters; metrics have a trailing axis of `width`. At width 1 there is no such axis.
    """

    def init(config, data):
        seed, eta = config["seed"], config["eta"]
        params = models.calm.init(data["w"][seed], data["F"][seed], eta)
        theta = models.calm.values(params, eta, jnp.zeros(data["w"].shape[1]))
        return {"params": params, "theta": theta, "step": jnp.asarray(0)}

    def measure(config, data, state):
        points = {name: leaf[config["seed"]] for name, leaf in data["evaluation"].items()}
        return residuals(state["theta"], points, config["reward_offset"])

    def updates_with(model):
        def update(config, data, state, _):
            inputs, target = batch(config, data, state["step"])

            def loss(params):
                theta = model.values(params, config["eta"], state["theta"])
                return 0.5 * jnp.mean((inputs @ theta - target) ** 2), theta

            gradient, theta = jax.grad(loss, has_aux=True)(state["params"])
            params = jax.tree.map(
                lambda p, g: p - config["learning_rate"] * g, state["params"], gradient
            )
            return {"params": params, "theta": theta, "step": state["step"] + 1}, None

        def go_on(config, data, state):
            state, _ = jax.lax.scan(partial(update, config, data), state, None, length=log_every)
            return state | {"theta": model.values(state["params"], config["eta"], state["theta"])}

        return go_on

    def rest(config, data, state):
        return state

    def calm(config, data, state):
        params = state["params"]
        params = params | {"F": centred(params["F"])}
        after = updates_with(models.calm)(config, data, state | {"params": params})
        moved_little = jnp.all(jnp.abs(after["params"]["F"].max(axis=-1)) < DRIFT)
        return jax.lax.cond(moved_little, lambda: after, lambda: wild(config, data, state))

    def wild(config, data, state):
        return updates_with(models.wild)(config, data, state)

    def advance(config, data, state):
        largest = jnp.max(jnp.abs(state["theta"]))
        how = jnp.where(jnp.isfinite(largest), jnp.where(largest < BOUNDED, 0, 1), 2)
        if models.calm is models.wild:
            state = wild(config, data, state)
        else:
            state = jax.lax.switch(how, [calm, wild, rest], config, data, state)
        return state, measure(config, data, state)

    segments = updates // log_every
    if width == 1:
        return engine.Program(init, advance, segments, first=measure)
    config = {"seed": None, "eta": None, "learning_rate": 0, "reward_offset": 0}
    state = {"params": 0, "theta": 0, "step": None}
    return engine.Program(
        jax.vmap(init, (config, None), state),
        jax.vmap(advance, (config, None, state), (state, 0)),
        segments,
        gpu_lanes=max(1, engine.Program.gpu_lanes // width),
        first=jax.vmap(measure, (config, None, state)),
    )


def batch(config, data, step) -> tuple[Float[Array, "b k"], Float[Array, " b"]]:
    """Features and targets of the batch of an update."""
    seed, points = config["seed"], data["train"]
    indices = data["batches"][seed, step]
    offset = config["reward_offset"] * points["discounts"][seed, indices]
    return points["features"][seed, indices], points["returns"][seed, indices] + offset


def arrays(
    path: Path, domain: str, seeds: Sequence[int], updates: int, batch_size: int, actions: int
) -> dict:
    """What every run of a domain reads: points, initial parameters and batches of each seed."""
    data: dict = dataset.load(path, domain, seeds)
    n = DOMAINS[domain].n_features
    keys = [schedule.run_keys(seed) for seed in seeds]
    init = [schedule.initial_parameters(jnp.asarray(k.init), n, actions) for k in keys]
    data["w"], data["F"] = (np.stack(leaves) for leaves in zip(*init, strict=True))
    data["batches"] = np.stack([
        schedule.batch_indices(jnp.asarray(k.batch), count, updates, batch_size)
        for k, count in zip(keys, data["train"]["count"], strict=True)
    ])  # fmt: skip
    return data


def width(parameterization: str, n: int) -> int:
    """How many runs a set has: many where they share a product, one where one fills a cache."""
    return 1 if parameterization != "explicit" and n >= EXACT_BELOW else SET


def sets(
    axes: Mapping[str, np.ndarray], width: int
) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "sets width"]]:
    """Puts runs of one seed and eta together; the last set of each is filled up with its last run.

    Args:
        axes: seed, eta, learning_rate and reward_offset of every run, of shape (runs,).
        width: runs a set.

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
        ordered = np.empty((n_runs, values.shape[1]))
        ordered[runs] = values.swapaxes(1, 2)
        return ordered

    return jax.tree.map(by_run, metrics)


def table(
    axes: Mapping[str, np.ndarray], metrics: Mapping[str, np.ndarray], log_every: int
) -> pd.DataFrame:
    """One row per run and logged step: axis columns, step, metric columns, diverged.

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
    return frame


def run(job: Job) -> None:
    """Trains the whole grid and writes one table."""
    s = job.settings
    if s["updates"] % s["log_every"]:
        raise ConfigError(
            f"updates = {s['updates']}: must be a multiple of log_every = {s['log_every']}"
        )
    domain, parameterization, seeds = s["domain"], s["parameterization"], s["seeds"]
    n = DOMAINS[domain].n_features
    together = width(parameterization, n)
    data = arrays(job.input("dataset"), domain, seeds, s["updates"], s["batch_size"], s["actions"])
    axes = grid(
        {
            "seed": np.arange(len(seeds)),
            "learning_rate": s["learning_rates"],
            "eta": s["etas"],
            "reward_offset": s["reward_offsets"],
        }
    )
    frames = []
    for backup in s["backups"]:
        solved = models(parameterization, n, backup, s["temperature"])
        metrics = train(
            program(solved, s["updates"], s["log_every"], together), axes, data, together,
            threads=job.threads, checkpoint=job.scratch / backup,
            label=f"{domain} {parameterization}" + f" {backup}" * (len(s["backups"]) > 1)
            + f", sets of {together}" * (together > 1),
        )  # fmt: skip
        labels = {"domain": domain, "parameterization": parameterization}
        if parameterization == "implicit_mdp":
            labels["backup"] = backup
        named = {**axes, "seed": np.asarray(seeds, dtype=np.int64)[axes["seed"]]}
        frame = table(named, metrics, s["log_every"])
        for position, (name, value) in enumerate(labels.items()):
            frame.insert(position, name, pd.Categorical([value] * len(frame)))
        frames.append(frame)
    write_parquet(pd.concat(frames, ignore_index=True), job.outputs["runs"])
