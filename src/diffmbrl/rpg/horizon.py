"""Stage: the best horizon against the paper's formula, on contractive linear systems.

Errors of known size are injected into model and critic; means are exact.
Proposition 5.7 (as the digest gives it): with all Lipschitz constants at most 1 and gamma near
1, the best h is proportional to e_v / ((1 - gamma) (e_f + e_v)), e_f and e_v the errors of
model and critic (their derivatives').
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from tqdm import tqdm

from diffmbrl import keys
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import probe
from diffmbrl.rpg.linear import (
    N_ACTIONS,
    N_STATES,
    Problem,
    disturb,
    exact_gradient,
    sampled_gradient,
)
from diffmbrl.rpg.objective import check_horizon
from diffmbrl.sweep.grid import grid
from diffmbrl.tables import write_parquet


def run(job: Job) -> None:
    """Settings: horizon_study."""
    plan = job.settings["horizon_study"]
    for h in plan["horizons"]:
        check_horizon(h)
    axes = grid(
        {
            "seed": range(plan["seeds"]),
            "radius": plan["radii"],
            "gamma": plan["gammas"],
            "model_error": plan["model_errors"],
            "critic_error": plan["critic_errors"],
        }
    )
    cases = jax.jit(jax.vmap(case))(*axes.values())
    what = {"task": "linear_quadratic", "estimator": "rp_dp"}
    longest = max(plan["horizons"])
    one = partial(measure, longest=longest, samples=plan["samples"])
    compute = jax.jit(jax.vmap(one, (0, None)))
    tables = []
    for h in tqdm(plan["horizons"], desc="rpg horizon"):
        found = compute(cases, h)
        where = {"horizon": h, "sn": "none", "init": "exact", **axes, "step": 0}
        tables.append(pd.DataFrame({**what, **where, **jax.device_get(found)}))
    table = pd.concat(tables, ignore_index=True)
    table["formula"] = table.critic_error / (
        (1 - table.gamma) * (table.model_error + table.critic_error)
    )
    table["diverged"] = ~np.isfinite(table[["bias_same", "bias_full", "trace"]]).all(axis=1)
    write_parquet(table, job.outputs["horizon"])


class Case(NamedTuple):
    """A problem, and the gradient of its whole return."""

    problem: Problem
    full: Float[Array, "a s"]


def case(seed, radius, gamma, model_error, critic_error) -> Case:
    """The problem of a seed, with errors of given sizes."""
    key = jax.random.fold_in(keys.fold(jax.random.PRNGKey(0), "horizon"), seed)
    system, policy = lq.random_system(key, N_STATES, N_ACTIONS, radius=radius, noise=0.05)
    critic = lq.true_critic(system, policy, gamma)
    wrong = disturb(key, system, critic, model_error, critic_error)
    full = full_gradient(system, policy, gamma, jnp.eye(N_STATES))
    return Case(Problem(key, gamma, system, policy, critic, wrong), full)


def measure(given: Case, h, *, longest: int, samples: int) -> dict[str, Array]:
    """Squared biases of E g_h and tr(Sigma) of one sample, relative to the reference's square.

    `bias_same`: against the same h with the true model and critic; what the injected errors do.
    `bias_full`: against the whole gradient of the true return; also counts that the critic does
    not know how the policy's later actions change with its parameters. h may be traced.
    """
    problem, off = given.problem, given.problem.off
    mine, same = (exact_gradient(one, h, longest).reshape(-1) for one in (off, problem.right))
    full = given.full.reshape(-1)

    def sample(key):
        return sampled_gradient(off, h, longest, key)

    draws = jax.random.split(keys.fold(problem.key, "samples"), (1, samples))
    spread = probe.pool(probe.measure(sample, draws)).trace
    return {
        "bias_same": jnp.sum((mine - same) ** 2) / jnp.sum(same**2),
        "bias_full": jnp.sum((mine - full) ** 2) / jnp.sum(full**2),
        "trace": spread / jnp.sum(mine**2),
    }


def whole_return(system: lq.System, policy: lq.LinearPolicy, gamma, second_moment):
    """The discounted return over all time, g = gamma (1 - ends), W the noise of a next state.

    J = -tr(P M_0) - g / (1 - g) tr(P W) - tr(R S) / (1 - g), S the policy's covariance.
    """
    g, S = gamma * (1 - system.ends), jnp.diag(jnp.exp(2 * policy.log_std))
    H = lq.true_critic(system, policy, gamma).H
    both = jnp.concatenate([jnp.eye(policy.K.shape[1]), policy.K])
    P = both.T @ H @ both
    W = system.B @ S @ system.B.T + jnp.diag(system.noise_scale**2)
    own = jnp.trace(system.R @ S)
    return -jnp.trace(P @ second_moment) - (g * jnp.trace(P @ W) + own) / (1 - g)


def full_gradient(system: lq.System, policy: lq.LinearPolicy, gamma, second_moment):
    """dJ/dK of the discounted return over all time: -2 [R K + g B'P(A + BK)] sum_i g^i M_i."""
    g, K = gamma * (1 - system.ends), policy.K
    closed, n = system.A + system.B @ K, K.shape[1]
    stage = system.Q + K.T @ system.R @ K
    eye = jnp.eye(n * n)
    P = jnp.linalg.solve(eye - g * jnp.kron(closed.T, closed.T), stage.reshape(-1)).reshape(n, n)
    push = system.B @ jnp.diag(jnp.exp(2 * policy.log_std)) @ system.B.T
    source = second_moment + g / (1 - g) * (push + jnp.diag(system.noise_scale**2))
    total = jnp.linalg.solve(eye - g * jnp.kron(closed, closed), source.reshape(-1)).reshape(n, n)
    return -2 * (system.R @ K + g * system.B.T @ P @ closed) @ total
