"""Stage: a saddle point against the implicit function theorem in the two-state MDP (section 8).

Problem (6), min over Q and theta of L_true(Q) subject to Q = B_theta Q, is solved in three ways:
`ift` descends in theta along the implicit gradient and solves for Q; `lagrangian` descends in Q and
theta and ascends in multipliers; `augmented` adds half the squared violation to the Lagrangian.
All use Adam at one rate, which is varied, from the same initial values.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl.mdp.dense import soft_bellman
from diffmbrl.mdp.known import two_state, uniform_start
from diffmbrl.omd import tabular
from diffmbrl.omd import tabular_agents as agents
from diffmbrl.omd.tabular_agents import ADAM, Model, Problem
from diffmbrl.pipeline.stage import Job
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid
from diffmbrl.tables import write_parquet

PENALTIES = {"lagrangian": 0.0, "augmented": 1.0}  # weight of the squared violation
METHODS = ("ift", *PENALTIES)
SEGMENTS = 20
LANES = 50


class Saddle(NamedTuple):
    """Primal variables, multipliers, and Adam's state of either."""

    primal: tuple[Float[Array, "s a"], Model]
    multipliers: Float[Array, "s a"]
    descent: Any
    ascent: Any


def violation(problem: Problem, q: Float[Array, "s a"], model: Model) -> Float[Array, "s a"]:
    """Q - B_theta Q."""
    mdp = agents.model_mdp(model, problem.mdp.gamma, problem.alpha)
    return q - soft_bellman(mdp, q, problem.alpha)


def lagrangian(problem: Problem, primal, multipliers: Array, penalty: float) -> Array:
    """L_true(Q) + <multipliers, Q - B_theta Q> + penalty / 2 |Q - B_theta Q|^2."""
    gap = violation(problem, *primal)
    return (
        agents.bellman_error(problem, primal[0])
        + jnp.sum(multipliers * gap)
        + penalty / 2 * jnp.sum(gap**2)
    )


def saddle_step(problem: Problem, state: Saddle, rate: Array, penalty: float) -> Saddle:
    """One simultaneous Adam step: down in Q and theta, up in the multipliers."""

    def of(primal, multipliers):
        return lagrangian(problem, primal, multipliers, penalty)

    down, up = jax.grad(of, argnums=(0, 1))(state.primal, state.multipliers)
    down, descent = ADAM.update(down, state.descent)
    up, ascent = ADAM.update(up, state.ascent)
    primal = jax.tree.map(lambda p, u: p - rate * u, state.primal, down)
    return Saddle(primal, state.multipliers + rate * up, descent, ascent)


def training(problem: Problem, method: str, max_steps: int) -> engine.Program:
    """Training as a sweep program over configs of `seed` and `rate`.

    Judged by what its model is good for: Q is solved for the model, whatever Q the method holds.
    """
    target = tabular.true_q(problem.alpha)
    every = max_steps // SEGMENTS

    def init(config, data):
        start = agents.init(problem, config["seed"])
        if method == "ift":
            return start
        primal = (start.q, start.model)
        zero = jnp.zeros_like(start.q)
        return Saddle(primal, zero, ADAM.init(primal), ADAM.init(zero))

    def one(config, state):
        if method == "ift":
            zero = jnp.zeros_like(state.q)
            return agents.step(problem, state, jnp.asarray(jnp.inf), config["rate"], zero)
        return saddle_step(problem, state, config["rate"], PENALTIES[method])

    def advance(config, data, state):
        state = jax.lax.fori_loop(0, every, lambda _, s: one(config, s), state)
        held, model = (state.q, state.model) if method == "ift" else state.primal
        q, _ = agents.solve(problem, model, jnp.zeros_like(held))
        return state, {
            "return": agents.policy_return(problem, q),
            "q_error": jnp.max(jnp.abs(target - q)),
            "violation": jnp.max(jnp.abs(violation(problem, held, model))),
        }

    return engine.Program(init=init, advance=advance, segments=SEGMENTS, lanes=LANES)


def run(job: Job) -> None:
    """Trains every method at every rate; one row per run and logged step."""
    s, mdp = job.settings, two_state()
    problem = Problem(mdp, uniform_start(mdp), s["alpha"], "bellman", "none", "exact")
    tables = []
    for method in METHODS:
        runs = grid({"rate": s["rates"], "seed": np.arange(1, s["seeds"] + 1)})
        program = training(problem, method, s["steps"])
        found = engine.run(program, runs, None, threads=job.threads, label=method)
        frame = pd.DataFrame({name: np.repeat(values, SEGMENTS) for name, values in runs.items()})
        frame.insert(0, "method", method)
        steps = np.arange(1, SEGMENTS + 1) * (s["steps"] // SEGMENTS)
        frame["step"] = np.tile(steps, len(runs["seed"]))
        for name, values in found.items():
            frame[name] = values.ravel()
        tables.append(frame)
    write_parquet(pd.concat(tables, ignore_index=True), job.outputs["runs"])
