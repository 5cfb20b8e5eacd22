"""Stage: the theory's statements checked on linear-Gaussian systems with exact gradients.

`study` names them: `growth` (tr(Sigma) in h, by Lipschitz constant), `model` (bias in h, by
Jacobian error), `critic` (bias in h, by gamma).
"""

from functools import partial

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
from diffmbrl.tables import write_parquet


def run(job: Job) -> None:
    """Settings: theory."""
    plan = job.settings["theory"]
    for h in plan["horizons"]:
        check_horizon(h)
    seeds, n = np.arange(plan["seeds"]), plan["samples"]
    lipschitz, gammas = (np.asarray(plan[name], float) for name in ("lipschitz", "gammas"))
    errors = np.asarray(plan["model_errors"], float)
    grown, off_model, off_critic = (
        jax.jit(jax.vmap(jax.vmap(make, (None, 0)), (0, None)))(seeds, xs)
        for make, xs in ((growing, lipschitz), (wrong_model, errors), (wrong_critic, gammas))
    )
    longest, horizons = max(plan["horizons"]), jnp.array(plan["horizons"])
    studies = {
        "growth": (partial(trace, longest=longest, samples=n), grown, lipschitz),
        "model": (lambda one, h: bias(one, h, longest)[1], off_model, errors),
        "critic": (lambda one, h: bias(one, h, longest)[0], off_critic, gammas),
    }
    rows = []
    for study, (compute, problems, xs) in tqdm(studies.items(), desc="rpg theory"):
        table = _table(compute, problems, horizons)
        for k, h in enumerate(plan["horizons"]):
            rows += _rows(study, h, seeds, xs, table[..., k])
    write_parquet(pd.DataFrame(rows), job.outputs["theory"])


def growing(seed, lipschitz) -> Problem:
    """Every singular value of the closed loop is `lipschitz`; no critic, gamma 1."""
    key, system, policy = _system(seed, lipschitz)
    nothing = lq.QuadraticCritic(jnp.zeros((N_STATES + N_ACTIONS,) * 2))
    return Problem(key, jnp.asarray(1.0), system, policy, nothing, (system, nothing))


def wrong_model(seed, error) -> Problem:
    """A model whose Jacobian is off by `error`; L = gamma = 0.95, the critic right."""
    key, system, policy = _system(seed, 0.95)
    critic = lq.true_critic(system, policy, 0.95)
    wrong = disturb(key, system, critic, error, 0.0)
    return Problem(key, jnp.asarray(0.95), system, policy, critic, wrong)


def wrong_critic(seed, gamma) -> Problem:
    """A critic with 10% error; L = 0.95."""
    key, system, policy = _system(seed, 0.95)
    critic = lq.true_critic(system, policy, gamma)
    wrong = disturb(key, system, critic, 0.0, 0.1)
    return Problem(key, gamma, system, policy, critic, wrong)


def trace(given: Problem, h, *, longest: int, samples: int) -> Float[Array, ""]:
    """tr(Sigma) of a sample of rp_dp; h may be traced, up to `longest`.

    A state s_i and its derivative by K both scale as L^i, so that at gamma 1 and L > 1 the trace of
    a sample grows as L^(4 h), up to powers of h; at L <= 1 as a power of h at most.
    """

    def one(key):
        return sampled_gradient(given.right, h, longest, key)

    return probe.pool(probe.measure(one, jax.random.split(given.key, (1, samples)))).trace


def bias(given: Problem, h, longest: int) -> Float[Array, "2"]:
    """|bias| at horizon h, absolute and over |gradient|."""
    right, off = (exact_gradient(one, h, longest) for one in (given.right, given.off))
    size = jnp.linalg.norm(off - right)
    return jnp.stack([size, size / jnp.linalg.norm(right)])


def _system(seed, lipschitz):
    key = jax.random.fold_in(keys.fold(jax.random.PRNGKey(0), "theory"), seed)
    return (key, *lq.random_system(key, N_STATES, N_ACTIONS, radius=lipschitz, noise=0.1))


def _table(compute, problems, horizons) -> np.ndarray:
    """Values by seed, setting and horizon."""
    over = jax.vmap(jax.vmap(compute, (0, None)), (0, None))
    found = jax.jit(lambda: jax.lax.map(partial(over, problems), horizons))()
    return np.moveaxis(np.asarray(found), 0, -1)


def _rows(study, h, seeds, xs, values):
    what = {"task": "linear_quadratic", "study": study, "estimator": "rp_dp", "horizon": h}
    return [
        {
            **what,
            "sn": "none",
            "init": "exact",
            "seed": int(seed),
            "step": 0,
            "x": float(x),
            "value": values[i, j],
            "diverged": not np.isfinite(values[i, j]),
        }
        for i, seed in enumerate(seeds)
        for j, x in enumerate(xs)
    ]
