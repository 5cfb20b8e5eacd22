"""Tabular model learning: what is optimised, under which bound, through which adjoint.

A model is transition logits F[a, s, s'] and rewards w[s, a]; its transitions are
softmax(F / alpha), and the agent's Q is the fixed point of its soft Bellman operator.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffmbrl.mdp.dense import DenseMDP, expected_return, soft_bellman
from diffmbrl.solve import (
    CONVERGED,
    GCR,
    Adjoint,
    Elimination,
    Identity,
    Iterative,
    Newton,
    Solution,
    fixed_point,
)

OBJECTIVES = ("return", "bellman", "likelihood")
PROJECTIONS = ("published", "joint", "none")
ADJOINTS: dict[str, Adjoint] = {
    "exact": Iterative(Elimination()),
    "iterative": Iterative(GCR()),
    "identity": Identity(),
}
TOLERANCE = 1e-10
ADAM = optax.scale_by_adam()


class Model(NamedTuple):
    """Parameters of a tabular model."""

    logits: Float[Array, "a s s"]
    rewards: Float[Array, "s a"]


@dataclass(frozen=True)
class Problem:
    """What a model is learned for.

    Attributes:
        mdp: the true MDP.
        start: its distribution of first states.
        alpha: temperature of the policy, of the soft maximum and of the transition logits.
        objective: `return` (eq. 2), `bellman` (eq. 6) or `likelihood` (the MLE agent).
        projection: how a norm bound is imposed, see `project`.
        adjoint: how the gradient of the fixed point is found.
    """

    mdp: DenseMDP
    start: Array
    alpha: float
    objective: str
    projection: str
    adjoint: str

    def __post_init__(self):
        for name, known in (
            ("objective", OBJECTIVES),
            ("projection", PROJECTIONS),
            ("adjoint", tuple(ADJOINTS)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} is unknown; use one of {', '.join(known)}"
                )


class State(NamedTuple):
    """A training between two steps.

    Attributes:
        q: of the last solve, at the parameters before the step.
        model: the parameters.
        opt: Adam's state.
        steps: how many were taken.
        converged: whether the last one moved neither Q nor the parameters.
        result: the worst result of all solves, an index into `diffmbrl.solve.RESULTS`.
    """

    q: Float[Array, "s a"]
    model: Model
    opt: optax.OptState
    steps: Array
    converged: Array
    result: Array


def model_mdp(model: Model, gamma: float | Array, alpha: float) -> DenseMDP:
    """The MDP that a model stands for: p = softmax(F / alpha), r = w."""
    return DenseMDP(jax.nn.softmax(model.logits / alpha), model.rewards, gamma)


def solve(problem: Problem, model: Model, q0: Float[Array, "s a"]) -> tuple[Array, Solution]:
    """Q* = B_theta Q* from a warm start, differentiable in theta (eqs. 3 and 7)."""

    def operator(q, model):
        mdp = model_mdp(model, problem.mdp.gamma, problem.alpha)
        return soft_bellman(mdp, q.reshape(q0.shape), problem.alpha).ravel()

    found = fixed_point(
        operator,
        q0.ravel(),
        model,
        method=Newton(Elimination(), rtol=TOLERANCE, atol=TOLERANCE),
        adjoint=ADJOINTS[problem.adjoint],
    )
    return found.value.reshape(q0.shape), found


def policy_return(problem: Problem, q: Float[Array, "s a"]) -> Array:
    """J(pi_Q), the true return of the softmax policy (eq. 2)."""
    return expected_return(problem.mdp, jax.nn.softmax(q / problem.alpha), problem.start)


def bellman_error(problem: Problem, q: Float[Array, "s a"]) -> Array:
    """Mean over (s, a) of (Q - B Q)^2, B the true soft operator (eq. 6)."""
    return jnp.mean((soft_bellman(problem.mdp, q, problem.alpha) - q) ** 2)


def likelihood_loss(problem: Problem, model: Model) -> Array:
    """Mean over (s, a) of KL(p || p_theta), plus the mean squared reward error (section 4.2).

    The logarithm is of the softmax, not a log-softmax, as in the released program: under a
    bound Adam never settles (docs/omd.md), so that results depend on rounding.
    """
    P = problem.mdp.P
    learned = jax.nn.softmax(model.logits / problem.alpha)
    kl = jnp.sum(P * (jnp.log(P) - jnp.log(learned)), axis=-1)
    return jnp.mean(kl) + jnp.mean((model.rewards - problem.mdp.r) ** 2)


def loss(problem: Problem, model: Model, q0: Array, noise: Array) -> tuple[Array, tuple]:
    """The agent's loss of a model, the Q that it was solved for (noise added), and the result."""
    q, found = solve(problem, model, q0)
    q = q + noise
    match problem.objective:
        case "return":
            value = -policy_return(problem, q)
        case "bellman":
            value = bellman_error(problem, q)
        case _:
            value = likelihood_loss(problem, model)
    return value, (q, found.result)


def project(model: Model, bound: Array, alpha: float, projection: str) -> Model:
    """Scales parameters back into the norm bound kappa.

    `joint` is as the paper states: the norm of (F / alpha, w), all of it scaled.
    `published` is as its curves were made (deviation 1 in docs/omd.md): each array x by
    itself, when the norm of (x[0] / alpha, x[1]) exceeds kappa.
    """
    if projection == "none":
        return model
    if projection == "joint":
        scale = _shrink(_norm(model.logits / alpha, model.rewards), bound)
        return jax.tree.map(lambda x: x * scale, model)
    return jax.tree.map(lambda x: x * _shrink(_norm(x[0] / alpha, x[1]), bound), model)


def _norm(*arrays: Array) -> Array:
    return jnp.sqrt(sum(jnp.sum(x**2) for x in arrays))


def _shrink(norm: Array, bound: Array) -> Array:
    return jnp.where(norm > bound, bound / jnp.where(norm > 0, norm, 1), 1)


def init(problem: Problem, seed: Array) -> State:
    """Uniform [0, 1) Q, logits and rewards, by the published schedule of keys."""
    keys = jax.random.split(jax.random.PRNGKey(seed), 3)
    r, P = problem.mdp.r, problem.mdp.P
    q = jax.random.uniform(keys[0], r.shape)
    model = Model(jax.random.uniform(keys[1], P.shape), jax.random.uniform(keys[2], r.shape))
    none = jnp.zeros((), jnp.int32)
    return State(q, model, ADAM.init(model), none, jnp.asarray(False), jnp.int32(CONVERGED))


def step(problem: Problem, state: State, bound: Array, rate: float | Array, noise: Array) -> State:
    """One projected Adam step; converged when neither Q nor the parameters move."""

    def of(model):
        return loss(problem, model, state.q, noise)

    grads, (q, result) = jax.grad(of, has_aux=True)(state.model)
    return descend(problem, state, grads, q, result, bound, rate)


def descend(
    problem: Problem,
    state: State,
    grads: Model,
    q: Array,
    result: Array,
    bound: Array,
    rate: float | Array,
) -> State:
    """The state after a projected Adam step along a gradient that was found at `q`."""
    updates, opt = ADAM.update(grads, state.opt)
    moved = jax.tree.map(lambda p, u: p - rate * u, state.model, updates)
    model = project(moved, bound, problem.alpha, problem.projection)
    still = jax.tree.map(_unmoved, (q, model), (state.q, state.model))
    converged = jnp.all(jnp.stack(jax.tree.leaves(still)))
    return State(q, model, opt, state.steps + 1, converged, jnp.maximum(state.result, result))


def _unmoved(new: Array, old: Array) -> Array:
    return jnp.all(jnp.abs(new - old) <= TOLERANCE + TOLERANCE * jnp.abs(old))


def report(problem: Problem, state: State, true_q: Array) -> dict[str, Array]:
    """Return, error of Q* and the bounds on it (theorem 2), from a training's last solve."""
    mdp, gamma = problem.mdp, problem.mdp.gamma
    learned = model_mdp(state.model, gamma, problem.alpha)
    if problem.objective == "likelihood":
        reward_gap = jnp.max(jnp.abs(mdp.r - learned.r))
        dynamics_gap = jnp.max(jnp.sum(jnp.abs(mdp.P - learned.P), axis=-1))
        bound = likelihood_bound(reward_gap, dynamics_gap, jnp.max(jnp.abs(mdp.r)), gamma)
    else:
        gap = soft_bellman(mdp, state.q, problem.alpha) - soft_bellman(
            learned, state.q, problem.alpha
        )
        bound = operator_bound(jnp.max(jnp.abs(gap)), gamma)
    return {
        "return": policy_return(problem, state.q),
        "q_error": jnp.max(jnp.abs(true_q - state.q)),
        "bound": bound,
        "bellman_error": bellman_error(problem, state.q),
        "steps": state.steps,
        "converged": state.converged,
        "solved": state.result == CONVERGED,
        "solver_result": state.result,
        "logits": state.model.logits,
        "rewards": state.model.rewards,
        "q": state.q,
    }


def likelihood_bound(
    reward_gap: Array, dynamics_gap: Array, r_max: Array, gamma: float | Array
) -> Array:
    """MLE's: eps_r / (1 - gamma) + gamma eps_p r_max / (2 (1 - gamma)^2) (theorem 2)."""
    return reward_gap / (1 - gamma) + gamma * dynamics_gap * r_max / (2 * (1 - gamma) ** 2)


def operator_bound(gap: Array, gamma: float | Array) -> Array:
    """The operator bound, eps / (1 - gamma), eps = max |B Q - B_theta Q| (theorem 2)."""
    return gap / (1 - gamma)
