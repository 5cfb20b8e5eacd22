"""Stage: the theory's statements checked on linear-Gaussian systems with exact gradients.

`study` names them: `growth` (tr(Sigma) in h, by Lipschitz constant), `batch` (tr Cov of a
mean of n samples; n stands in `horizon` too), `model` (bias in h, by Jacobian error), `critic`
(bias in h, by gamma).
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float
from tqdm import tqdm

from diffmbrl import keys
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import estimators, horizon, probe

N_STATES, N_ACTIONS = horizon.N_STATES, horizon.N_ACTIONS


def run(job: Job) -> None:
    """Settings: theory."""
    plan = job.settings["theory"]
    seeds, n = np.arange(plan["seeds"]), plan["samples"]
    lipschitz, gammas = (np.asarray(plan[name], float) for name in ("lipschitz", "gammas"))
    errors = np.asarray(plan["model_errors"], float)
    grown, off_model, off_critic = (
        jax.jit(jax.vmap(jax.vmap(make, (None, 0)), (0, None)))(seeds, xs)
        for make, xs in ((growing, lipschitz), (wrong_model, errors), (wrong_critic, gammas))
    )
    rows = []
    for h in tqdm(plan["horizons"], desc="rpg theory"):
        estimators.check_horizon(h)
        rows += _rows("growth", h, seeds, lipschitz, _table(partial(trace, h=h, samples=n), grown))
        rows += _rows("model", h, seeds, errors, _table(partial(bias, h=h), off_model)[..., 1])
        rows += _rows("critic", h, seeds, gammas, _table(partial(bias, h=h), off_critic)[..., 0])
    averaged = jax.jit(jax.vmap(jax.vmap(wrong_critic, (None, 0)), (0, None)))(seeds, gammas[-1:])
    for size in plan["batches"]:
        measure = partial(trace, h=5, samples=n, batch=size)
        rows += _rows("batch", size, seeds, [size], _table(measure, averaged))
    pd.DataFrame(rows).to_parquet(job.outputs["theory"], index=False)


class Problem(NamedTuple):
    """A system and policy, the right critic, and a model and critic that are off."""

    key: Array
    gamma: Float[Array, ""]
    system: lq.System
    policy: lq.LinearPolicy
    critic: lq.QuadraticCritic
    wrong: tuple[lq.System, lq.QuadraticCritic]


def growing(seed, lipschitz) -> Problem:
    """Every singular value of the closed loop is `lipschitz`; no critic, gamma 1."""
    key, system, policy = _system(seed, lipschitz)
    nothing = lq.QuadraticCritic(jnp.zeros((N_STATES + N_ACTIONS,) * 2))
    return Problem(key, jnp.asarray(1.0), system, policy, nothing, (system, nothing))


def wrong_model(seed, error) -> Problem:
    """A model whose Jacobian is off by `error`; L = gamma = 0.95, the critic right."""
    key, system, policy = _system(seed, 0.95)
    critic = lq.true_critic(system, policy, 0.95)
    wrong = horizon.disturb(key, system, critic, error, 0.0)
    return Problem(key, jnp.asarray(0.95), system, policy, critic, wrong)


def wrong_critic(seed, gamma) -> Problem:
    """A critic with 10% error; L = 0.95."""
    key, system, policy = _system(seed, 0.95)
    critic = lq.true_critic(system, policy, gamma)
    wrong = horizon.disturb(key, system, critic, 0.0, 0.1)
    return Problem(key, gamma, system, policy, critic, wrong)


def trace(given: Problem, *, h: int, samples: int, batch: int = 1) -> Float[Array, ""]:
    """Tr Cov of the mean of `batch` samples of rp_dp.

    A state s_i and its derivative by K both scale as L^i, so that at gamma 1 and L > 1 the trace of
    a sample grows as L^(4 h), up to powers of h; at L <= 1 as a power of h at most.
    """

    def one(key):
        s0 = jax.random.normal(keys.fold(key, "start"), (N_STATES,))
        eps = jax.random.normal(keys.fold(key, "policy"), (h + 1, N_ACTIONS))
        xi = given.system.noise_scale * jax.random.normal(keys.fold(key, "xi"), (h, N_STATES))

        def value(p):
            return estimators.unroll(p, given.system, given.critic, s0, eps, xi, given.gamma, 0.0)

        return eqx.filter_grad(value)(given.policy).K

    def mean(key):
        return jax.vmap(one)(jax.random.split(key, batch)).mean(0)

    return probe.pool(probe.measure(mean, jax.random.split(given.key, (1, samples)))).trace


def bias(given: Problem, *, h: int) -> Float[Array, "2"]:
    """|bias| at horizon h, absolute and over |gradient|."""
    right, off = _gradients(given, h)
    size = jnp.linalg.norm(off - right)
    return jnp.stack([size, size / jnp.linalg.norm(right)])


def _gradients(given: Problem, h: int):
    exact = partial(lq.gradient, second_moment=jnp.eye(N_STATES), h=h, gamma=given.gamma)
    right = exact(given.system, given.policy, given.critic)
    return right.K, exact(given.wrong[0], given.policy, given.wrong[1]).K


def _system(seed, lipschitz):
    key = jax.random.fold_in(keys.fold(jax.random.PRNGKey(0), "theory"), seed)
    return (key, *lq.random_system(key, N_STATES, N_ACTIONS, radius=lipschitz, noise=0.1))


def _table(compute, problems) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(jax.vmap(compute)))(problems))


def _rows(study, h, seeds, xs, values):
    return [
        {"task": "linear_quadratic", "study": study, "estimator": "rp_dp", "horizon": h,
         "sn": "none", "init": "exact", "seed": int(seed), "step": 0, "x": float(x),
         "value": values[i, j], "diverged": not np.isfinite(values[i, j])}
        for i, seed in enumerate(seeds)
        for j, x in enumerate(xs)
    ]  # fmt: skip
