"""How a run goes on: calmly while its values are bounded, wildly once it blows up, then not at all.

Each way is plain SGD; they differ in how the values are solved for (`values.Models`).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmbrl.implicit.values import Models, Values, centred

Config = dict[str, Array]
State = dict[str, Any]

BOUNDED = 1e4
DRIFT = 16.0  # float32 weights serve while a row's largest logit moves less between logged steps


def start(models: Models, w: Array, F: Array, eta: Float[Array, ""]) -> State:
    """The state before training: parameters, their theta, and how the solve for it ended."""
    params = models.calm.init(w, F, eta)
    solution = models.calm.solve(params, eta, jnp.zeros(F.shape[-1]))
    state = {"params": params, "theta": solution.value, "step": jnp.asarray(0)}
    return state | {"result": solution.result}


def advance(models: Models, updates: int, config: Config, data: dict, state: State) -> State:
    """The state after some updates, in the way that fits the run."""

    def calm(config, data, state):
        params = state["params"]
        params = params | {"F": centred(params["F"])}
        after = _descend(models.calm, updates, config, data, state | {"params": params})
        moved_little = jnp.all(jnp.abs(after["params"]["F"].max(axis=-1)) < DRIFT)
        return jax.lax.cond(moved_little, lambda: after, lambda: wild(config, data, state))

    def wild(config, data, state):
        return _descend(models.wild, updates, config, data, state)

    def rest(config, data, state):
        return state

    if models.calm is models.wild:
        return wild(config, data, state)
    largest = jnp.max(jnp.abs(state["theta"]))
    how = jnp.where(jnp.isfinite(largest), jnp.where(largest < BOUNDED, 0, 1), 2)
    return jax.lax.switch(how, [calm, wild, rest], config, data, state)


def _descend(model: Values, updates: int, config: Config, data: dict, state: State) -> State:
    """Some updates of SGD, and the values after the last one."""

    def update(config, data, state, _):
        inputs, target = batch(config, data, state["step"])

        def loss(params):
            theta = model.solve(params, config["eta"], state["theta"]).value
            return 0.5 * jnp.mean((inputs @ theta - target) ** 2), theta

        gradient, theta = jax.grad(loss, has_aux=True)(state["params"])
        params = jax.tree.map(
            lambda p, g: p - config["learning_rate"] * g, state["params"], gradient
        )
        return {"params": params, "theta": theta, "step": state["step"] + 1}, None

    state = {name: state[name] for name in ("params", "theta", "step")}
    state, _ = jax.lax.scan(partial(update, config, data), state, None, length=updates)
    solution = model.solve(state["params"], config["eta"], state["theta"])
    return state | {"theta": solution.value, "result": solution.result}


def batch(
    config: Config, data: dict, step: Array
) -> tuple[Float[Array, "b k"], Float[Array, " b"]]:
    """Features and targets of the batch of an update."""
    seed, points = config["seed"], data["train"]
    indices = data["batches"][seed, step]
    offset = config["reward_offset"] * points["discounts"][seed, indices]
    return points["features"][seed, indices], points["returns"][seed, indices] + offset
