"""Stage: the paper's statements that need no training, computed on many random instances.

`identities`: the implicit function theorem, the gradient constraint, proposition 1; `bounds`:
theorem 2 and lemma 1; `temperature`: soft against hard values; `alignment`: what noise in Q does to
the implicit gradient.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array

from diffmbrl.mdp.dense import DenseMDP, bellman, expected_return, greedy, optimal_q
from diffmbrl.mdp.known import two_state, uniform_start
from diffmbrl.omd import constraint
from diffmbrl.omd import tabular_agents as agents
from diffmbrl.omd.bounds import ratios
from diffmbrl.omd.tabular_agents import Model, Problem
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import write_parquet

STATES, ACTIONS, GAMMA = 3, 2, 0.9
TEMPERATURE = 0.2  # of the random instances: derivatives of a softmax at 0.01 are near 0 or 100
STEP = 1e-4  # of the finite differences
TIGHT = 1e-13  # of value iteration


def random_mdp(rng: np.random.Generator, gamma: float = GAMMA) -> DenseMDP:
    """Transitions uniform on the simplex, rewards uniform in [0, 1]."""
    P = rng.dirichlet(np.ones(STATES), size=(ACTIONS, STATES))
    return DenseMDP(jnp.asarray(P), jnp.asarray(rng.random((STATES, ACTIONS))), gamma)


def random_model(rng: np.random.Generator) -> Model:
    """Normal parameters, logits on the scale of the temperature."""
    logits = TEMPERATURE * rng.normal(size=(ACTIONS, STATES, STATES))
    return Model(jnp.asarray(logits), jnp.asarray(rng.normal(size=(STATES, ACTIONS))))


@jax.jit
def identity_errors(mdp: DenseMDP, model: Model, direction: Model, P: Array) -> dict[str, Array]:
    """By how much each identity is missed on one instance, relative to what is compared.

    Args:
        mdp: the true MDP.
        model: where derivatives are taken.
        direction: along which the implicit derivative is held against finite differences.
        P: transitions of an equivalent model, whose rewards follow.
    """
    start = jnp.full(STATES, 1 / STATES)
    exact = Problem(mdp, start, TEMPERATURE, "bellman", "none", "exact")
    plain = Problem(mdp, start, TEMPERATURE, "bellman", "none", "identity")
    zeros = jnp.zeros((STATES, ACTIONS))

    def value(t):
        moved = jax.tree.map(lambda p, d: p + t * d, model, direction)
        return agents.loss(exact, moved, zeros, zeros)[0]

    near, far = ((value(k * STEP) - value(-k * STEP)) / (2 * k * STEP) for k in (1, 2))
    slope = (4 * near - far) / 3  # fourth order
    grads = {
        problem.adjoint: jax.grad(lambda m, p=problem: agents.loss(p, m, zeros, zeros)[0])(model)
        for problem in (exact, plain)
    }
    q, _ = agents.solve(exact, model, zeros)
    parallel = constraint.gradient(plain, model, q, frozen=True)
    return {
        "implicit": _gap(_dot(grads["exact"], direction), slope),
        "gradient_constraint": _gap(constraint.gradient(exact, model, q), grads["exact"]),
        "semi_gradient": 1 - _cosine(parallel, grads["identity"]),
        **equivalence_errors(mdp, P, start),
    }


def equivalence_errors(mdp: DenseMDP, P: Array, start: Array) -> dict[str, Array]:
    """Proposition 1: a model whose operator agrees at Q* solves both problems (hard operators)."""
    q = optimal_q(mdp, TIGHT)
    rewards = q - mdp.gamma * jnp.einsum("ast,t->sa", P, q.max(axis=-1))
    found = optimal_q(DenseMDP(P, rewards, mdp.gamma), TIGHT)
    best = expected_return(mdp, greedy(q), start)
    return {
        "equation_6": jnp.max(jnp.abs(bellman(mdp, found) - found)) / jnp.max(jnp.abs(q)),
        "equation_2": jnp.abs(expected_return(mdp, greedy(found, 1e-9), start) - best) / best,
        "distance": jnp.max(jnp.abs(P - mdp.P)),
    }


def _dot(a: Any, b: Any) -> Array:
    return jnp.sum(jnp.stack(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b))))


def _cosine(a: Any, b: Any) -> Array:
    return _dot(a, b) / jnp.sqrt(_dot(a, a) * _dot(b, b))


def _gap(a: Any, b: Any) -> Array:
    difference = jax.tree.map(jnp.subtract, a, b)
    return jnp.sqrt(_dot(difference, difference) / _dot(b, b))


def identities(count: int) -> pd.DataFrame:
    """One row per random instance: by how much each identity is missed."""
    rows = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        mdp, other = random_mdp(rng), random_mdp(rng)
        found = identity_errors(mdp, random_model(rng), random_model(rng), other.P)
        rows.append({"instance": seed, **{name: float(x) for name, x in found.items()}})
    return pd.DataFrame(rows)


def temperature(alphas: np.ndarray, count: int) -> pd.DataFrame:
    """Soft against hard, at each temperature: the two-state MDP (instance -1) and random ones.

    Columns: largest difference of Q* over the largest |Q*|, what theory allows of it
    (gamma alpha log A / (1 - gamma)), and the return that the softmax policy loses, over the
    difference between the best and the worst policy's.
    """
    rows = []
    for instance in range(-1, count):
        mdp = two_state() if instance < 0 else random_mdp(np.random.default_rng(instance))
        start = uniform_start(mdp)
        q = optimal_q(mdp, TIGHT)
        best = expected_return(mdp, greedy(q), start)
        negative = DenseMDP(mdp.P, -mdp.r, mdp.gamma)
        worst = expected_return(mdp, greedy(optimal_q(negative, TIGHT)), start)
        size = jnp.max(jnp.abs(q))
        for alpha in alphas:
            soft, returned = _soft(mdp, start, float(alpha))
            allowed = mdp.gamma * alpha * np.log(mdp.n_actions) / (1 - mdp.gamma)
            rows.append(
                {
                    "instance": instance,
                    "alpha": alpha,
                    "difference": float(jnp.max(jnp.abs(soft - q)) / size),
                    "allowed": float(allowed / size),
                    "regret": float((best - returned) / (best - worst)),
                }
            )
    return pd.DataFrame(rows)


@jax.jit
def _soft(mdp: DenseMDP, start: Array, alpha: float) -> tuple[Array, Array]:
    """Soft Q*, by value iteration, and the true return of its softmax policy."""

    def backup(carry):
        q, _ = carry
        new = agents.soft_bellman(mdp, q, alpha)
        return new, jnp.max(jnp.abs(new - q))

    q, _ = jax.lax.while_loop(lambda c: c[1] > TIGHT, backup, (mdp.r, jnp.asarray(jnp.inf)))
    return q, expected_return(mdp, jax.nn.softmax(q / alpha), start)


def alignment(sigmas: np.ndarray, count: int, alpha: float) -> pd.DataFrame:
    """Cosines with the exact implicit gradient when Q is off by noise (appendix C's conjecture).

    The two-state MDP, models as they are drawn for a training; derivatives at the noisy Q, with
    the inverse Jacobian there (`exact`) and without it (`identity`).
    """
    mdp = two_state()
    problem = {
        name: Problem(mdp, uniform_start(mdp), alpha, "bellman", "none", name)
        for name in ("exact", "identity")
    }

    @jax.jit
    def cosines(seed, sigma):
        state = agents.init(problem["exact"], seed)
        q, _ = agents.solve(problem["exact"], state.model, state.q)
        noise = sigma * jax.random.normal(jax.random.fold_in(jax.random.key(1), seed), q.shape)
        true = _through(problem["exact"], state.model, q)
        return {n: _cosine(_through(p, state.model, q + noise), true) for n, p in problem.items()}

    rows = [
        {"instance": seed, "sigma": sigma} | {n: float(x) for n, x in cosines(seed, sigma).items()}
        for sigma in sigmas
        for seed in range(1, count + 1)
    ]
    return pd.DataFrame(rows)


def _through(problem: Problem, model: Model, q: Array) -> Model:
    """The gradient of the true Bellman error through Q = B_theta Q, everything taken at this Q."""
    v = jax.grad(lambda q: agents.bellman_error(problem, q))(q).ravel()

    def operator(flat, model):
        mdp = agents.model_mdp(model, problem.mdp.gamma, problem.alpha)
        return agents.soft_bellman(mdp, flat.reshape(q.shape), problem.alpha).ravel()

    _, pull = jax.vjp(operator, q.ravel(), model)
    if problem.adjoint == "exact":
        jacobian = jax.jacrev(lambda w: operator(w, model))(q.ravel())
        v = jnp.linalg.solve(jnp.eye(v.size) - jacobian.T, v)
    return pull(v)[1]


def tables(settings: Any) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each output's name and table."""
    count = settings["instances"]
    low, high = settings["alpha_exponents"]
    yield "identities", identities(count)
    yield "temperature", temperature(np.logspace(low, high, settings["alphas"]), count)
    yield "bounds", ratios(settings["reward_errors"], settings["dynamics_errors"], count)
    low, high = settings["sigma_exponents"]
    sigmas = np.logspace(low, high, settings["sigmas"])
    yield "alignment", alignment(sigmas, count, settings["alpha"])


def run(job: Job) -> None:
    """Writes one table per kind of statement."""
    for name, table in tables(job.settings):
        write_parquet(table, job.outputs[name])
