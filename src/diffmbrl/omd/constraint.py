"""Stage: the tabular trainings of figures 3 and 6 with a gradient constraint (appendix E).

Instead of Q = B_theta Q the model has to satisfy f(theta, Q) = dL/dQ = 0 for the inner loss
L = mean (Q - B_theta Q)^2 / 2, as it does with networks (eq. 12). Where Q solves the constraint,
the implicit function theorem gives the same derivative. It differs from it in two cases: where the
inverse is replaced by the identity, and where noise has moved Q away from the solution.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl.mdp.dense import soft_bellman
from diffmbrl.mdp.known import two_state, uniform_start
from diffmbrl.omd import tabular
from diffmbrl.omd import tabular_agents as agents
from diffmbrl.omd.tabular_agents import Model, Problem, State
from diffmbrl.pipeline.stage import Job
from diffmbrl.solve import at_minimum
from diffmbrl.tables import write_parquet


def inner_loss(
    problem: Problem, q: Float[Array, "s a"], target: Float[Array, "s a"], model: Model
) -> Array:
    """Half the mean of (Q - B_theta Q)^2, the operator applied to `target` (eq. 10)."""
    mdp = agents.model_mdp(model, problem.mdp.gamma, problem.alpha)
    return jnp.mean((q - soft_bellman(mdp, target, problem.alpha)) ** 2) / 2


def gradient(problem: Problem, model: Model, q: Float[Array, "s a"], frozen: bool = False) -> Model:
    """The gradient of the true Bellman error through dL/dQ = 0: -(dL_true/dQ) H^-1 df/dtheta.

    H is the derivative of f in Q at this Q, or the identity (`problem.adjoint`).

    Args:
        problem: what the model is learned for.
        model: its parameters.
        q: where derivatives are taken, the constraint's solution or near it.
        frozen: the operator's argument does not move with Q, as a target network (eq. 10).
    """

    def constraint(flat, model):
        q = flat.reshape(problem.mdp.r.shape)

        def of(q):
            target = jax.lax.stop_gradient(q) if frozen else q
            return inner_loss(problem, q, target, model)

        return jax.grad(of)(q).ravel()

    def outer(flat):
        return agents.bellman_error(problem, flat.reshape(problem.mdp.r.shape))

    flat = q.ravel()
    weights, _ = at_minimum(
        agents.ADJOINTS[problem.adjoint],
        lambda w: constraint(w, model),
        flat,
        jax.grad(outer)(flat),
    )
    return jax.grad(lambda model: -jnp.vdot(weights, constraint(flat, model)))(model)


def step(problem: Problem, state: State, bound: Array, rate: float, noise: Array) -> State:
    """One projected Adam step of the model along `gradient`, at Q with noise."""
    q, found = agents.solve(problem, state.model, state.q)
    q = q + noise
    grads = gradient(problem, state.model, q)
    return agents.descend(problem, state, grads, q, found.result, bound, rate)


def run(job: Job) -> None:
    """Trains under every bound of figure 3 and every noise level of figure 6."""
    s = job.settings
    mdp = two_state()
    low, high = s["sigma_exponents"]
    seeds = np.arange(1, s["seeds"] + 1)
    sweeps: list[tuple[str, Any, Any]] = [
        (s["projections"][0], np.linspace(0.0, s["norm_bound_max"], s["norm_bounds"]), [0.0]),
        ("none", [np.inf], np.logspace(low, high, s["sigmas"])),
    ]
    tables = []
    for adjoint in ("exact", "identity"):
        for projection, bounds, sigmas in sweeps:
            problem = Problem(mdp, uniform_start(mdp), s["alpha"], "bellman", projection, adjoint)
            axes = {"norm_bound": bounds, "sigma": sigmas, "seed": seeds}
            size = (s["steps"], s["learning_rate"], job.threads, job.scratch)
            tables.append(tabular.train(problem, axes, *size, step=step))
    write_parquet(pd.concat(tables, ignore_index=True), job.outputs["runs"])
