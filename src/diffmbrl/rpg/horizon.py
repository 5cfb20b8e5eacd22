"""Stage: the best horizon against the paper's formula, on contractive linear systems.

Errors of known size are injected into model and critic; means are exact.
Proposition 5.7 (as the digest gives it): with all Lipschitz constants at most 1 and gamma near
1, the best h is proportional to e_v / ((1 - gamma) (e_f + e_v)), e_f and e_v the errors of
model and critic (their derivatives').
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from tqdm import tqdm

from diffmbrl import keys
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import estimators, probe
from diffmbrl.sweep.grid import grid

N_STATES, N_ACTIONS = 3, 2


def run(job: Job) -> None:
    """Settings: horizon_study."""
    plan = job.settings["horizon_study"]
    names = ("seed", "gamma", "model_error", "critic_error")
    axes = grid(dict(zip(names, (range(plan["seeds"]), plan["gammas"], plan["model_errors"],
                                 plan["critic_errors"]), strict=True)))  # fmt: skip
    prepare = jax.jit(jax.vmap(partial(problem, plan["radius"])))
    problems = prepare(*(axes[name] for name in names))
    tables = []
    for h in tqdm(plan["horizons"], desc="rpg horizon"):
        estimators.check_horizon(h)
        found = jax.jit(jax.vmap(partial(measure, h=h, samples=plan["samples"])))(problems)
        tables.append(pd.DataFrame(
            {"task": "linear_quadratic", "estimator": "rp_dp", "horizon": h, "sn": "none",
             "init": "exact", **axes, "step": 0, **jax.device_get(found)}
        ))  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    table["formula"] = table.critic_error / (
        (1 - table.gamma) * (table.model_error + table.critic_error)
    )
    table["diverged"] = ~np.isfinite(table[["bias_same", "bias_full", "trace"]]).all(axis=1)
    table.to_parquet(job.outputs["horizon"], index=False)


class Problem(NamedTuple):
    """A system and policy with the true critic, wrong model and critic, and the true gradient."""

    key: Array
    gamma: Float[Array, ""]
    system: lq.System
    policy: lq.LinearPolicy
    critic: lq.QuadraticCritic
    wrong: tuple[lq.System, lq.QuadraticCritic]
    full: Float[Array, "a s"]


def problem(radius, seed, gamma, model_error, critic_error) -> Problem:
    """The problem of a seed, with errors of given sizes."""
    key = jax.random.fold_in(keys.fold(jax.random.PRNGKey(0), "horizon"), seed)
    system, policy = lq.random_system(key, N_STATES, N_ACTIONS, radius=radius, noise=0.05)
    critic = lq.true_critic(system, policy, gamma)
    wrong = disturb(key, system, critic, model_error, critic_error)
    full = full_gradient(system, policy, gamma, jnp.eye(N_STATES))
    return Problem(key, gamma, system, policy, critic, wrong, full)


def measure(given: Problem, *, h: int, samples: int) -> dict[str, Array]:
    """Squared biases of E g_h and tr(Sigma) of one sample, relative to the reference's square.

    `bias_same`: against the same h with the true model and critic; what the injected errors do.
    `bias_full`: against the whole gradient of the true return; also counts that the critic does
    not know how the policy's later actions change with its parameters.
    """
    key, gamma, system, policy, critic, wrong, full = given
    exact = partial(lq.gradient, second_moment=jnp.eye(N_STATES), gamma=gamma)

    def flat(system, critic, h):
        return ravel_pytree(exact(system, policy, critic, h=h).K)[0]

    mine, same = flat(*wrong, h), flat(system, critic, h)
    full = full.reshape(-1)

    def sample(key):
        s0 = jax.random.normal(keys.fold(key, "start"), (N_STATES,))
        eps = jax.random.normal(keys.fold(key, "policy"), (h + 1, N_ACTIONS))
        xi = wrong[0].noise_scale * jax.random.normal(keys.fold(key, "model"), (h, N_STATES))

        def value(p):
            return estimators.unroll(p, *wrong, s0, eps, xi, gamma, 0.0)

        return eqx.filter_grad(value)(policy).K

    draws = jax.random.split(keys.fold(key, "samples"), (1, samples))
    spread = probe.pool(probe.measure(sample, draws)).trace
    return {
        "bias_same": jnp.sum((mine - same) ** 2) / jnp.sum(same**2),
        "bias_full": jnp.sum((mine - full) ** 2) / jnp.sum(full**2),
        "trace": spread / jnp.sum(mine**2),
    }


def disturb(key, system: lq.System, critic: lq.QuadraticCritic, model_error, critic_error):
    """Model and critic whose derivatives are off by given amounts (the critic's relative)."""
    off = jax.random.normal(keys.fold(key, "model error"), system.A.shape)
    half = jax.random.normal(keys.fold(key, "critic error"), critic.H.shape)
    wrong = half + half.T
    A = system.A + model_error * off / jnp.linalg.norm(off, 2)
    scale = critic_error * jnp.linalg.norm(critic.H, 2) / jnp.linalg.norm(wrong, 2)
    return (
        eqx.tree_at(lambda x: x.A, system, A),
        lq.QuadraticCritic(critic.H + scale * wrong),
    )


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
