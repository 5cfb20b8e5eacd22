"""Stage: plain stochastic gradient ascent, and what its progress depends on (corollary 5.9).

The corollary bounds the mean of |grad J|^2 over T updates at a constant rate eta by
(J_T - J_0) / (eta T) plus the mean of b^2 + v / N: bias and variance of the gradients, N of which
are averaged. Here all of them are measured, on linear-quadratic systems (J: the whole
discounted return; gradients through a model [A B] that is normalised, with the true critic) and
on the bouncing ball (J: the return of h true steps; gradients through a fitted network).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from diffmbrl import keys
from diffmbrl.agents.sac import TanhGaussian
from diffmbrl.envs import linear_quadratic as lq
from diffmbrl.nets import mlp as nets
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import probe, smoothness
from diffmbrl.rpg.fitting import Target
from diffmbrl.rpg.horizon import full_gradient, whole_return
from diffmbrl.rpg.linear import N_ACTIONS, N_STATES, exact_gradient, sampled_gradient
from diffmbrl.rpg.objective import Ends, Objective, unroll
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid
from diffmbrl.tables import write_parquet

PyTree = Any
Vector = Float[Array, " p"]


class Problem(NamedTuple):
    """An objective J of a flat vector of the policy's parameters, and an estimate of its gradient.

    Attributes:
        start: first parameters.
        sample: `(parameters, key)` -> one sample of the gradient that is used.
        look: `(parameters, key)` -> |grad J|^2, b^2 and v at these parameters, and J.
        slope: `(parameters, key)` -> grad J, exact or from many samples, the same for one key.
    """

    start: Vector
    sample: Callable[[Vector, Array], Vector]
    look: Callable[[Vector, Array], dict[str, Array]]
    slope: Callable[[Vector, Array], Vector]


def run(job: Job) -> None:
    """Settings: convergence. Target 0 stands for the plain model."""
    plan = job.settings["convergence"]
    tables = []
    for system, make in (("linear_quadratic", linear), ("hybrid", hybrid)):
        axes = settings_of(plan, system)
        for batch in plan["batches"]:
            program = engine.Program(
                lambda config, _: config, partial(_advance, plan, make, batch), segments=1, lanes=1
            )
            types = {"target": np.float32, "every": bool, "h": np.int32, "step": np.float32,
                     "seed": np.uint32}  # fmt: skip
            configs = {name: axes[name].astype(dtype) for name, dtype in types.items()}
            label = f"rpg convergence {system} N = {batch}"
            found = engine.run(program, configs, {}, threads=job.threads, label=label)
            tables.append(_table(system, batch, axes, found))
    write_parquet(pd.concat(tables, ignore_index=True), job.outputs["convergence"])


def settings_of(plan: Mapping[str, Any], system: str) -> dict[str, np.ndarray]:
    """Target, choice of layers, h, relative step and seed of every run; a matrix is one layer."""
    one = {"h": plan["horizons"], "step": plan["steps"], "seed": range(plan["seeds"])}
    every = [True] if system == "linear_quadratic" else [False, True]
    plain = grid({**one, "target": [0.0], "every": [False]})
    normalised = grid({**one, "target": plan["targets"], "every": every})
    return {name: np.concatenate([plain[name], normalised[name]]) for name in plain}


def _table(system: str, batch: int, axes, found) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "task": system,
            "estimator": "rp_dp",
            "horizon": axes["h"],
            "sn": np.where(axes["target"] > 0, "model", "none"),
            "layers": np.where(axes["every"], "all", "hidden"),
            "target": axes["target"],
            "batch": batch,
            "relative_step": axes["step"],
            "seed": axes["seed"],
            **{name: value[:, 0] for name, value in found.items()},
        }
    )
    return table.assign(diverged=~np.isfinite(table[["grad_square", "return_end"]]).all(axis=1))


def _advance(plan, make, batch, config, _, state):
    target = Target(config["target"], config["every"])
    key = keys.fold(jax.random.PRNGKey(config["seed"]), "convergence")
    return state, ascend(plan, make(plan, target, config["h"], key), batch, config["step"], key)


def ascend(plan: Mapping[str, Any], problem: Problem, batch: int, step, key) -> dict[str, Array]:
    """Gradient ascent at a constant rate, and what the corollary is made of, averaged over it.

    Args:
        plan: settings.
        problem: what is climbed.
        batch: N, gradients per update.
        step: length of the first step as root mean square; the rate follows from it.
        key: of everything that is drawn.
    """

    def mean(x, key):
        return jnp.mean(jax.vmap(partial(problem.sample, x))(jax.random.split(key, batch)), 0)

    first = jax.vmap(partial(mean, problem.start))(jax.random.split(keys.fold(key, "first"), 8))
    rate = step / jnp.sqrt(jnp.mean(jnp.sum(first**2, -1)))

    def block(x, key):
        found = problem.look(x, keys.fold(key, "look"))
        updates = jax.random.split(keys.fold(key, "updates"), plan["look_every"])
        x, _ = jax.lax.scan(lambda x, key: (x + rate * mean(x, key), None), x, updates)
        return x, found

    looks = plan["updates"] // plan["look_every"]
    x, found = jax.lax.scan(block, problem.start, jax.random.split(key, looks))
    last = problem.look(x, keys.fold(key, "last"))
    return {
        "grad_square": jnp.mean(found["grad_square"]),
        "bias_square": jnp.mean(found["bias_square"]),
        "noise": jnp.mean(found["trace"]) / batch,
        "progress": (last["value"] - found["value"][0]) / (rate * plan["updates"]),
        "return_start": found["value"][0],
        "return_end": last["value"],
        "rate": rate,
        "smoothness": largest_curvature(problem.slope, x, keys.fold(key, "curvature")),
    }


def largest_curvature(slope, x: Vector, key, iterations: int = 10) -> Float[Array, ""]:
    """The spectral norm of J's Hessian at x, by power iteration."""

    def once(v, _):
        product = jax.jvp(lambda x: slope(x, key), (x,), (v,))[1]
        size = jnp.linalg.norm(product)
        return product / jnp.maximum(size, 1e-30), size

    start = jax.random.normal(keys.fold(key, "start"), x.shape, x.dtype)
    return jax.lax.scan(once, start / jnp.linalg.norm(start), None, iterations)[1][-1]


def linear(plan: Mapping[str, Any], target: Target, h, key) -> Problem:
    """A linear-quadratic system, its model's matrix [A B] normalised to the target."""
    gamma, eye, n = plan["gamma"], jnp.eye(N_STATES), N_STATES
    system, first = lq.random_system(keys.fold(key, "system"), n, N_ACTIONS, radius=0.95)
    both = jnp.concatenate([system.A, system.B], axis=1)
    scaled = both * jnp.where(target.sigma > 0, target.sigma / jnp.linalg.norm(both, 2), 1.0)
    model = eqx.tree_at(lambda x: (x.A, x.B), system, (scaled[:, :n], scaled[:, n:]))
    longest = max(plan["horizons"])

    def policy(x):
        return lq.LinearPolicy(x.reshape(first.K.shape), first.log_std)

    def used(x):
        critic = lq.true_critic(system, policy(x), gamma)
        return Objective(policy(x), model, critic, gamma)

    def sample(x, key):
        return sampled_gradient(used(x), h, longest, key).ravel()

    def slope(x, _):
        return full_gradient(system, policy(x), gamma, eye).ravel()

    def look(x, key):
        true = slope(x, key)
        draws = jax.vmap(partial(sample, x))(jax.random.split(key, plan["samples"]))
        return {
            "grad_square": jnp.sum(true**2),
            "bias_square": jnp.sum((exact_gradient(used(x), h, longest).ravel() - true) ** 2),
            "trace": probe.moments(draws).trace,
            "value": whole_return(system, policy(x), gamma, eye),
        }

    return Problem(first.K.ravel(), sample, look, slope)


def hybrid(plan: Mapping[str, Any], target: Target, h, key) -> Problem:
    """The bouncing ball at one stiffness, through a network fitted to its data."""
    longest = max(plan["horizons"])
    fitting = {**plan["model"], "horizon": longest}
    dial = smoothness.make(fitting, plan["stiffness"], target, key)
    net = nets.mlp(keys.fold(key, "policy"), [2, 16, 2], activation="tanh", gain=1.0,
                   last_gain=0.5, dtype=jnp.float32)  # fmt: skip
    start, restore = ravel_pytree(TanhGaussian(net, low=-3.0, high=0.0))
    within = (jnp.arange(longest) < h).astype(jnp.float32)
    ends = Ends(jnp.zeros(longest, jnp.float32), within)

    def drawn(key):
        s0 = dial.starts(keys.fold(key, "start"), 1)[0]
        return s0, jax.random.normal(keys.fold(key, "eps"), (longest + 1, 1), jnp.float32)

    def value(world, x, key):
        s0, eps = drawn(key)
        quiet = jnp.zeros((longest, 2), jnp.float32)
        objective = Objective(restore(x), world, smoothness.nothing, 1.0)
        return unroll(objective, s0, eps, quiet, ends)

    used, true = partial(value, dial.learned), partial(value, dial.true)

    def slope(x, key):
        each = jax.random.split(key, plan["samples"])
        return jnp.mean(jax.vmap(lambda key: jax.grad(true)(x, key))(each), 0)

    def look(x, key):
        group = jax.random.split(key, (1, plan["samples"]))
        pairs = probe.measure_pairs(
            lambda key: jax.grad(used)(x, key), lambda key: jax.grad(true)(x, key), group
        )
        ours, real, apart = map(probe.pool, pairs)
        return {
            "grad_square": real.mean_square,
            "bias_square": apart.mean_square,
            "trace": ours.trace,
            "value": jnp.mean(jax.vmap(partial(true, x))(group[0])),
        }

    return Problem(start, jax.grad(used), look, slope)
