"""Stage: the CartPole runs of one setting (figures 4, 5, 7).

A setting is an agent with its static structure; its runs (seeds x pairs of rates) are one
compiled program. Each block of seeds keeps its own checkpoint, so that an interrupted job goes
on where it stopped and returns the same bytes.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from diffmbrl.agents.soft_q import Batch, SoftQ
from diffmbrl.envs.cartpole import N_ACTIONS, N_PHYSICS, STEP_LIMIT, CartPole
from diffmbrl.errors import ConfigError
from diffmbrl.omd.adjoint import Adjoint
from diffmbrl.omd.agents import MLE, OMD, VEP, Agent
from diffmbrl.omd.models import Model
from diffmbrl.omd.settings import Setting
from diffmbrl.omd.train import Training, program
from diffmbrl.pipeline.stage import Job
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid

SEED_BLOCK = 5
SEGMENTS_PER_CALL = 20
REPORTED_STEPS = 200


def build(setting: Setting, values: Mapping[str, Any], keep_model: bool = False) -> Training:
    """The training that a setting stands for.

    Raises:
        ConfigError: values that do not go together.
    """
    steps, every = values["steps"], values["evaluate_every"]
    warmup, batch = values["warmup"], values["batch"]
    if steps % every:
        raise ConfigError(f"steps = {steps}: must be a multiple of evaluate_every = {every}")
    if warmup > every:
        raise ConfigError(f"warmup = {warmup}: must be at most evaluate_every = {every}")
    if batch > warmup:
        raise ConfigError(f"batch = {batch}: must be at most warmup = {warmup}")
    dtype = {"float32": jnp.float32, "float64": jnp.float64}[values["precision"]]
    env = CartPole(setting.distractors)
    q = SoftQ(
        env.n_obs, N_ACTIONS, values["hidden"], setting.double_q,
        values["alpha"], values["gamma"], dtype,
    )  # fmt: skip
    model = Model(env.n_obs, N_ACTIONS, setting.width, setting.probabilistic, dtype)
    agent: Agent
    if setting.agent == "omd":
        adjoint = Adjoint(setting.adjoint, values["adjoint_iterations"], values["adjoint_damping"])
        warm = setting.inner_optimizer == "warm"
        agent = OMD(q, model, setting.inner_steps, adjoint, warm)
    else:
        agent = {"mle": MLE, "vep": VEP}[setting.agent](q, model, setting.inner_steps)
    return Training(
        agent, env, values["steps"], values["warmup"], values["evaluate_every"],
        values["batch"], values["epsilon"], values["episodes"],
        keep_model,
    )  # fmt: skip


def train(
    setting: Setting, values: Mapping[str, Any], threads: int, checkpoint: Path | None,
    keep_model: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """All runs of a setting: their evaluations, and their models' predictions if kept."""
    training = build(setting, values, keep_model)
    seeds = np.arange(1, values["seeds"] + 1)
    segments = training.steps // training.segment
    per_call = next(n for n in range(SEGMENTS_PER_CALL, 0, -1) if segments % n == 0)
    sweep = program(training, lanes=1, segments_per_call=per_call)
    inner_lrs, taus = np.asarray(values["rates"], float).T
    tables = []
    for block in np.array_split(seeds, range(SEED_BLOCK, len(seeds), SEED_BLOCK)):
        pairs = grid({"pair": np.arange(len(taus)), "seed": block})
        pair = pairs.pop("pair")
        runs = {"inner_lr": inner_lrs[pair], "tau": taus[pair], **pairs}
        configs = {**runs, "model_lr": np.full(len(runs["seed"]), values["model_lr"])}
        metrics = engine.run(
            sweep, configs, None, threads=threads, checkpoint=checkpoint,
            label=f"{setting.agent} {setting.variant}",
        )  # fmt: skip
        models = metrics.pop("model", None)
        curves = tidy(setting, runs, metrics, training)
        shown = pd.DataFrame()
        if models is not None:
            shown = predictions(setting, runs, models[:, -1], training)
        tables.append((curves, shown))
    return pd.concat([c for c, _ in tables]), pd.concat([p for _, p in tables])


def tidy(
    setting: Setting, runs: Mapping[str, np.ndarray], metrics: Mapping[str, np.ndarray],
    training: Training,
) -> pd.DataFrame:  # fmt: skip
    """One row a run and evaluation, axes first; a run that diverged is marked in all its rows."""
    n_runs, segments = metrics["eval_return"].shape
    frame = pd.DataFrame({**asdict(setting)}, index=range(n_runs * segments))
    for name, values in runs.items():
        frame[name] = np.repeat(values, segments)
    frame["step"] = np.tile(np.arange(1, segments + 1) * training.segment, n_runs)
    for name, values in metrics.items():
        frame[name] = values.reshape(-1).astype(np.float64)
    finite = np.isfinite(metrics["q_loss"]) & np.isfinite(metrics["model_mse"])
    frame["diverged"] = np.repeat(~finite.all(axis=1), segments)
    return frame


def predictions(
    setting: Setting, runs: Mapping[str, np.ndarray], models: np.ndarray, training: Training
) -> pd.DataFrame:
    """What each run's final model predicts along one optimal trajectory (figure 5, right)."""
    model = training.agent.model
    states, actions = optimal_trajectory(REPORTED_STEPS)
    one_hot = jax.nn.one_hot(actions, N_ACTIONS, dtype=model.dtype).T
    zero = jnp.zeros(len(actions), model.dtype)
    obs = states[:-1].T.astype(model.dtype)
    batch = Batch(obs, one_hot, zero, obs, zero)
    shape = jax.eval_shape(model.init, jax.random.key(0))
    leaves, structure = jax.tree.flatten(shape)
    cuts = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def predict(flat):
        parts = [
            p.reshape(leaf.shape) for p, leaf in zip(jnp.split(flat, cuts), leaves, strict=True)
        ]
        return model.predict(jax.tree.unflatten(structure, parts), batch)[0]

    predicted = np.asarray(jax.vmap(predict)(jnp.asarray(models)), np.float64)
    tables = []
    for i, run in enumerate(zip(*runs.values(), strict=True)):
        columns = {**asdict(setting), **dict(zip(runs, run, strict=True))}
        for c in range(N_PHYSICS):
            tables.append(pd.DataFrame({
                **columns, "t": np.arange(len(actions)), "coordinate": c,
                "true": np.asarray(states[1:, c], np.float64), "predicted": predicted[i, c],
            }))  # fmt: skip
    return pd.concat(tables)


def optimal_trajectory(length: int) -> tuple[jax.Array, jax.Array]:
    """States (length + 1) and actions of a linear feedback law whose return is 500."""
    env = CartPole()
    state = jnp.array([0.03, 0.02, -0.03, -0.02], jnp.float32)
    gains = jnp.array([0.05, 0.12, 1.0, 0.35], jnp.float32)

    def step(state, _):
        action = (gains @ state > 0).astype(jnp.int32)
        after = env.transition(state, action)
        return after, (after, action)

    _, (states, actions) = jax.lax.scan(step, state, None, length=STEP_LIMIT)
    return jnp.concatenate([state[None], states])[: length + 1], actions[:length]


def run(job: Job) -> None:
    """Trains one setting and writes its evaluations, and its models' predictions if asked to."""
    values = job.settings
    setting = Setting.parse(values["agent"], values["variant"])
    keep_model = "predictions" in job.outputs
    curves, shown = train(setting, values, job.threads, job.scratch, keep_model)
    curves.to_parquet(job.outputs["curves"])
    if keep_model:
        shown.to_parquet(job.outputs["predictions"])
