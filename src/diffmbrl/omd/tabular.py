"""Stage: all tabular trainings, as three tables (figures 2, 3 and 6)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array

from diffmbrl.mdp.dense import soft_bellman
from diffmbrl.mdp.known import two_state, uniform_start
from diffmbrl.omd import tabular_agents as agents
from diffmbrl.omd.tabular_agents import Problem, State
from diffmbrl.pipeline.stage import Job
from diffmbrl.solve import Elimination, Newton, fixed_point
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid
from diffmbrl.tables import write_parquet

STEPS_PER_SEGMENT = 250
LANES = 50
SCALARS = (
    "return",
    "q_error",
    "bound",
    "bellman_error",
    "steps",
    "converged",
    "solved",
    "solver_result",
)
RANGED = ("return", "q_error", "bound")
ARRAYS = ("logits", "rewards", "q")


def true_q(alpha: float) -> Array:
    """The fixed point of the true soft Bellman operator, shape (s, a)."""
    mdp = two_state()
    found = fixed_point(
        lambda q, mdp: soft_bellman(mdp, q.reshape(mdp.r.shape), alpha).ravel(),
        jnp.zeros(mdp.r.size),
        mdp,
        method=Newton(Elimination(), atol=1e-13),
        adjoint=agents.ADJOINTS["exact"],
    )
    return found.value.reshape(mdp.r.shape)


def training(
    problem: Problem, max_steps: int, rate: float, noisy: bool, step: Callable = agents.step
) -> engine.Program:
    """Training as a sweep program over configs of `seed`, `norm_bound` and `sigma`.

    Stops by itself once converged; with noise (figure 6) it never is, and the key of step i
    of a seed is PRNGKey(10000 seed + i), the published schedule.
    """
    per_segment = next(n for n in range(STEPS_PER_SEGMENT, 0, -1) if max_steps % n == 0)
    target = true_q(problem.alpha)

    def advance(config, data, state: State):
        end = state.steps + per_segment

        def one(state: State) -> State:
            noise = jnp.zeros_like(state.q)
            if noisy:
                key = jax.random.PRNGKey(10000 * config["seed"] + state.steps)
                noise = config["sigma"] * jax.random.normal(key, state.q.shape)
            return step(problem, state, config["norm_bound"], rate, noise)

        state = jax.lax.while_loop(lambda s: (s.steps < end) & ~s.converged, one, state)
        return state, agents.report(problem, state, target)

    return engine.Program(
        init=lambda config, data: agents.init(problem, config["seed"]),
        advance=advance,
        segments=max_steps // per_segment,
        lanes=LANES,
    )


def train(
    problem: Problem,
    axes: Mapping[str, Sequence],
    max_steps: int,
    rate: float,
    threads: int,
    checkpoint=None,
    step: Callable = agents.step,
) -> pd.DataFrame:
    """The table of all trainings of a problem, by one step or another."""
    runs = grid(axes)
    name = f"{problem.objective}-{problem.projection}-{problem.adjoint}"
    noisy = bool(np.any(runs["sigma"] > 0))
    metrics = engine.run(
        training(problem, max_steps, rate, noisy, step),
        runs,
        None,
        threads=threads,
        label=name,
        checkpoint=None if checkpoint is None else checkpoint / name,
    )
    return table(problem, runs, metrics)


def table(
    problem: Problem, runs: Mapping[str, np.ndarray], metrics: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """One row per training, at its last step; `solver_result` is the worst of its solves.

    `<metric>_low` and `_high` are the extremes over the second half of training: where Adam
    under a bound does not settle, the last step is one draw from that range.
    """
    frame = pd.DataFrame(
        {
            "agent": "mle" if problem.objective == "likelihood" else "omd",
            "objective": problem.objective,
            "projection": problem.projection,
            "adjoint": problem.adjoint,
            **runs,
        }
    )
    for key in SCALARS:
        frame[key] = metrics[key][:, -1]
    half = metrics["return"].shape[1] // 2
    for key in RANGED:
        frame[f"{key}_low"] = metrics[key][:, half:].min(axis=1)
        frame[f"{key}_high"] = metrics[key][:, half:].max(axis=1)
    for key in ARRAYS:
        flat = metrics[key][:, -1].reshape(len(frame), -1)
        for i in range(flat.shape[1]):
            frame[f"{key}_{i}"] = flat[:, i]
    frame["diverged"] = ~np.isfinite(frame["return"])
    return frame


def run(job: Job) -> None:
    """Trains the bounded sweeps of figures 2 and 3 and the noisy one of figure 6."""
    s = job.settings
    mdp = two_state()
    bounds = np.linspace(0.0, s["norm_bound_max"], s["norm_bounds"])
    low, high = s["sigma_exponents"]
    sigmas = np.logspace(low, high, s["sigmas"])
    seeds = np.arange(1, s["seeds"] + 1)

    def sweep(objective: str, projection: str, adjoint: str = "exact", **axes: Any):
        problem = Problem(mdp, uniform_start(mdp), s["alpha"], objective, projection, adjoint)
        full: dict[str, Any] = {"norm_bound": [np.inf], "sigma": [0.0], "seed": seeds} | axes
        return train(problem, full, s["steps"], s["learning_rate"], job.threads, job.scratch)

    def bounded(objective: str) -> list[pd.DataFrame]:
        return [sweep(objective, p, norm_bound=bounds) for p in s["projections"]]

    mle = bounded("likelihood")
    tables = {
        "misspecification": [*bounded("return"), *mle],
        "bounds": [*bounded("bellman"), sweep("bellman", "none"), *mle],
        "noise": [sweep("bellman", "none", name, sigma=sigmas) for name in s["adjoints"]],
    }
    for name, parts in tables.items():
        write_parquet(pd.concat(parts, ignore_index=True), job.outputs[name])
