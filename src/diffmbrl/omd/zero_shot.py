"""Stage: planning with a learned model of CartPole for another reward (section 8's conjecture).

The model's dynamics are kept and its rewards replaced: the cart is to stay upright and near x = 1,
not anywhere on the track. Q is learned from what the dynamics predict for states and actions spread
over the task's box, then acts in the true environment.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from diffmbrl.agents.replay import Transition
from diffmbrl.envs.cartpole import N_ACTIONS, CartPole
from diffmbrl.keys import fold
from diffmbrl.omd import cartpole
from diffmbrl.omd.agent import ADAM, adam
from diffmbrl.omd.settings import Setting
from diffmbrl.omd.train import Training
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import read_parquet, write_parquet

GOAL, REACH = 1.0, 0.5  # the new reward is 1 while |x - GOAL| < REACH, 0 elsewhere
BOX = (2.4, 2.0, 0.21, 2.0)  # states are uniform within these bounds, either side of 0
STEPS = 200  # of an evaluation episode
SOURCES = ("model", "true", "untrained")  # of the dynamics that are planned with
BASELINE = "omd"  # the agent beside whose models the last two are planned with

USES = {"agents": "omd.agents"}


def reward(obs: Array) -> Array:
    """The new reward of the state that is reached, observations in columns."""
    return (jnp.abs(obs[0] - GOAL) < REACH).astype(obs.dtype)


def transitions(env: CartPole, key: Array, n: int, dtype: Any) -> tuple[Transition, Array]:
    """True transitions under the new reward from uniform states and actions."""
    box = jnp.asarray(BOX, jnp.float32)
    states = jax.random.uniform(fold(key, "states"), (n, len(BOX)), jnp.float32, -box, box)
    actions = jax.random.randint(fold(key, "actions"), (n,), 0, N_ACTIONS)
    after = jax.vmap(env.transition)(states, actions)
    one_hot = jax.nn.one_hot(actions, N_ACTIONS, dtype=dtype).T
    ended = jax.vmap(env.terminal)(after).astype(dtype)
    obs, obs_next = states.T.astype(dtype), after.T.astype(dtype)
    return Transition(obs, one_hot, reward(obs_next), obs_next, ended), actions


def plan(training: Training, model: Any, true: bool, rates: Mapping, updates: int, key: Array):
    """The Q of the new task, learned on what a model predicts, or on true transitions."""
    agent = training.agent
    q = agent.q.init(fold(key, "q"))

    def update(i, carry):
        q, target, opt = carry
        here = jax.random.fold_in(fold(key, "batches"), i)
        batch, _ = transitions(training.env, here, training.batch, agent.q.dtype)
        if not true:
            obs_next, _, _ = agent.model.predict(model, batch)
            batch = batch._replace(obs_next=obs_next, reward=reward(obs_next))
        grads = jax.grad(lambda q: agent.q.loss(q, target, batch)[0])(q)
        q, opt = adam(grads, opt, q, rates["inner_lr"])
        target = jax.tree.map(lambda t, p: t + rates["tau"] * (p - t), target, q)
        return q, target, opt

    return jax.lax.fori_loop(0, updates, update, (q, q, ADAM.init(q)))[0]


def evaluate(training: Training, q: Any, key: Array, episodes: int) -> Array:
    """Mean return under the new reward in the true environment, at most `STEPS`."""
    env, agent = training.env, training.agent
    physics = jax.vmap(env.initial)(jax.random.split(fold(key, "reset"), episodes))
    gumbels = jax.random.gumbel(fold(key, "policy"), (STEPS, N_ACTIONS, episodes), agent.q.dtype)

    def step(carry, gumbel):
        physics, alive = carry
        actions = agent.q.act(q, physics.T.astype(agent.q.dtype), gumbel)
        physics = jax.vmap(env.transition)(physics, actions)
        earned = alive * reward(physics.T)
        return (physics, alive & ~jax.vmap(env.terminal)(physics)), earned

    _, earned = jax.lax.scan(step, (physics, jnp.ones(episodes, bool)), gumbels)
    return jnp.mean(jnp.sum(earned, axis=0))


def setting_of(path: Path) -> Setting:
    """The setting that a table of models is named after."""
    agent, variant, *_ = re.split(r"_lr|_tau|_", path.stem)
    return Setting.parse(agent, variant)


def study(path: Path, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per run and source of dynamics: the return with the new reward."""
    setting = setting_of(path)
    training = cartpole.build(setting, values)
    _, unflatten = ravel_pytree(training.agent.model.init(jax.random.key(0)))

    @partial(jax.jit, static_argnums=0)
    def returned(true, flat, key, rates):
        q = plan(training, unflatten(flat), true, rates, values["updates"], key)
        return evaluate(training, q, fold(key, "evaluation"), values["episodes"])

    rows = []
    table = read_parquet(path)
    for (inner_lr, tau, seed), run in table.groupby(["inner_lr", "tau", "seed"]):
        rates = {"inner_lr": jnp.asarray(inner_lr, run["value"].dtype)}
        rates["tau"] = jnp.asarray(tau, run["value"].dtype)
        flat = jnp.asarray(run.sort_values("parameter")["value"].to_numpy())
        axes = {"agent": setting.agent, "width": setting.width, "inner_lr": inner_lr, "tau": tau}
        for source in SOURCES if setting.agent == BASELINE else SOURCES[:1]:
            key = fold(jax.random.key(int(seed)), "zero shot")
            model = flat
            if source == "untrained":
                model = ravel_pytree(training.agent.model.init(fold(key, "model")))[0]
            value = float(returned(source == "true", model, key, rates))
            rows.append({**axes, "seed": seed, "source": source, "return": value})
    return rows


def run(job: Job) -> None:
    """Plans with the models of the widths that are asked for."""
    values = dict(job.settings)
    chosen = [p for p in job.inputs["models"] if setting_of(p).width in values["widths"]]
    rows = [row for path in chosen for row in study(path, values)]
    columns = ["agent", "width", "inner_lr", "tau", "seed", "source", "return"]
    write_parquet(pd.DataFrame(rows, columns=columns), job.outputs["runs"])
