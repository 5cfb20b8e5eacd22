"""Stage: means of gradients on a linear-quadratic system against the closed form."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd
from jax.flatten_util import ravel_pytree

from diffmbrl import keys
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import counts, probe, setup
from diffmbrl.rpg.counts import EXACT_PARTS
from diffmbrl.rpg.objective import Estimator, Objective, Segment, whole
from diffmbrl.rpg.probe import Moments
from diffmbrl.tables import write_parquet

N_STATES, N_ACTIONS = 3, 2
USES = {"exact.estimators": "rpg.estimators"}


def run(job: Job) -> None:
    """Settings: exact, gamma."""
    plan = job.settings["exact"]
    counts.check_multiple("exact.samples", plan["samples"], EXACT_PARTS)
    rows = [
        row(name, setup.estimator(name), h, plan["samples"], job.settings["gamma"])
        for name in plan["estimators"]
        for h in plan["horizons"]
    ]
    write_parquet(pd.DataFrame(rows), job.outputs["exact"])


def row(name: str, estimator: Estimator, h: int, n: int, gamma: float) -> dict[str, Any]:
    """The row of an estimator: its mean's distance from the exact gradient, in errors too.

    `worst_z` is the largest distance of a coordinate, in standard errors of its mean.

    Args:
        name: of the estimator.
        estimator: what is measured.
        h: model steps.
        n: number of samples, a multiple of `EXACT_PARTS`.
        gamma: discount.
    """
    key = keys.fold(jax.random.PRNGKey(0), "linear quadratic")
    system, policy = lq.random_system(key, N_STATES, N_ACTIONS, radius=0.95, noise=0.1)
    critic = lq.true_critic(system, policy, gamma)
    closed_form = lq.gradient(system, policy, critic, jnp.eye(N_STATES), h=h, gamma=gamma)
    target = ravel_pytree(closed_form)[0]
    draw = jax.jit(partial(_sums, estimator, h, n, gamma))
    total, squares, coordinates = draw(key, system, policy, critic)
    found = Moments(jnp.asarray(float(n)), total, squares)
    errors = jnp.sqrt((coordinates / n - found.mean**2) / (n - 1))
    values = {
        "trace": found.trace,
        "mean_square": found.mean_square,
        "samples": found.n,
        "bias_reference": jnp.sum((found.mean - target) ** 2) - found.trace / n,
        "reference_square": jnp.sum(target**2),
        "worst_z": jnp.max(jnp.abs(found.mean - target) / errors),
    }
    what = {"task": "linear_quadratic", "estimator": name, "horizon": h, "sn": "none"}
    where = {"init": "exact", "seed": 0}
    return {**what, **where, **probe.finish(jax.device_get(values))}


def _sums(estimator: Estimator, h: int, n: int, gamma: float, key, system, policy, critic):
    """Sums of the samples, of their squared norms, and of each coordinate's squares."""
    objective = Objective(policy, system, critic, gamma)

    def one(key):
        segment = _real_segment(system, policy, max(h, 1), key)
        return ravel_pytree(estimator.gradient(objective, h, segment, keys.fold(key, "use")))[0]

    def part(part_keys):
        samples = jax.vmap(one)(part_keys)
        return samples.sum(0), jnp.sum(samples**2), jnp.sum(samples**2, 0)

    parts = jax.lax.map(part, jax.random.split(key, (EXACT_PARTS, n // EXACT_PARTS)))
    return jax.tree.map(lambda x: x.sum(0), parts)


def _real_segment(system, policy, steps: int, key) -> Segment:
    """A segment that policy and system make from a standard normal start."""
    s0 = jax.random.normal(keys.fold(key, "start"), (N_STATES,))

    def step(s, key):
        a, _ = policy.sample(s, jax.random.normal(keys.fold(key, "policy"), (N_ACTIONS,)))
        noise = system.noise_scale * jax.random.normal(keys.fold(key, "noise"), (N_STATES,))
        s_next = system.step(s, a, noise)
        return s_next, (s_next, a)

    step_keys = jax.random.split(keys.fold(key, "steps"), steps)
    _, (states, actions) = jax.lax.scan(step, s0, step_keys)
    return whole(jnp.concatenate([s0[None], states]), actions)
