"""Stage: the CartPole runs of one setting at one pair of rates (figures 4, 5, 7), and their models.

A setting is an agent with its static structure; its runs (seeds) are one compiled program. Each
block of seeds keeps its own checkpoint, so that an interrupted job goes on where it stopped and
returns the same bytes.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree

from diffmbrl import registry
from diffmbrl.agents.replay import Transition
from diffmbrl.agents.soft_q import SoftQ
from diffmbrl.envs.cartpole import N_ACTIONS, N_PHYSICS, STEP_LIMIT, CartPole
from diffmbrl.errors import ConfigError
from diffmbrl.omd.models import Model
from diffmbrl.omd.settings import Setting
from diffmbrl.omd.train import Training, program
from diffmbrl.pipeline.stage import Job
from diffmbrl.sweep import engine
from diffmbrl.tables import write_parquet

SEED_BLOCK = 5
SEGMENTS_PER_CALL = 20
REPORTED_STEPS = 200
RUN = ("inner_lr", "tau", "seed")

USES = {"agent": "omd.agents"}


def build(setting: Setting, values: Mapping[str, Any]) -> Training:
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
        env.n_obs,
        N_ACTIONS,
        values["hidden"],
        setting.double_q,
        values["alpha"],
        values["gamma"],
        dtype,
    )
    frozen = () if setting.frozen == "none" else (setting.frozen,)
    model = Model(
        env.n_obs,
        N_ACTIONS,
        setting.width,
        setting.probabilistic,
        dtype,
        setting.activation,
        frozen,
    )
    agent = registry.load("omd.agents", setting.agent).agent(q, model, setting, values)
    return Training(agent, env, steps, warmup, every, batch, values["epsilon"], values["episodes"])


def train(
    setting: Setting, values: Mapping[str, Any], threads: int, checkpoint: Path | None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All runs of a setting: evaluations, final models, and what these predict."""
    training = build(setting, values)
    seeds = np.arange(1, values["seeds"] + 1)
    segments = training.steps // training.segment
    per_call = next(n for n in range(SEGMENTS_PER_CALL, 0, -1) if segments % n == 0)
    sweep = program(training, lanes=1, segments_per_call=per_call)
    rates = {name: float(values[name]) for name in ("inner_lr", "tau", "model_lr")}
    label = f"{setting.agent} {setting.variant}"
    parts = []
    for block in np.array_split(seeds, range(SEED_BLOCK, len(seeds), SEED_BLOCK)):
        configs = {name: np.full(len(block), rate) for name, rate in rates.items()}
        configs["seed"] = block
        runs = {name: configs[name] for name in RUN}
        metrics = engine.run(
            sweep, configs, None, threads=threads, checkpoint=checkpoint, label=label
        )
        models = metrics.pop("model")[:, 0]
        curves = tidy(setting, runs, metrics, training)
        parts.append(
            (curves, parameters(runs, models), predictions(setting, runs, models, training))
        )
    curves, models, shown = (pd.concat(p, ignore_index=True) for p in zip(*parts, strict=True))
    return curves, models, shown


def tidy(
    setting: Setting,
    runs: Mapping[str, np.ndarray],
    metrics: Mapping[str, np.ndarray],
    training: Training,
) -> pd.DataFrame:
    """One row per run and evaluation, axes first; a run that diverged is marked in all its rows."""
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


def parameters(runs: Mapping[str, np.ndarray], models: np.ndarray) -> pd.DataFrame:
    """The final models as they are, one row per run and parameter (flattened, in order)."""
    n_runs, n = models.shape
    columns = {name: np.repeat(values, n) for name, values in runs.items()}
    columns["parameter"] = np.tile(np.arange(n), n_runs)
    return pd.DataFrame({**columns, "value": models.ravel()})


def predictions(
    setting: Setting, runs: Mapping[str, np.ndarray], models: np.ndarray, training: Training
) -> pd.DataFrame:
    """What each run's final model predicts along one optimal trajectory (figure 5, right).

    Args:
        setting: of the runs.
        runs: their axes, arrays of shape (runs,).
        models: their models' parameters, flattened, shape (runs, parameters).
        training: what they share.

    Returns:
        One row per run, coordinate of the cart and pole, and step. Distractors along the
        trajectory are 0, and their predictions are left out.
    """
    model = training.agent.model
    states, actions = optimal_trajectory(REPORTED_STEPS)
    one_hot = jax.nn.one_hot(actions, N_ACTIONS, dtype=model.dtype).T
    zero = jnp.zeros(len(actions), model.dtype)
    distractors = jnp.zeros((training.env.distractors, len(actions)), model.dtype)
    obs = jnp.concatenate([states[:-1].T.astype(model.dtype), distractors])
    steps = Transition(obs, one_hot, zero, obs, zero)
    _, unflatten = ravel_pytree(model.init(jax.random.key(0)))
    predict = jax.vmap(lambda flat: model.predict(unflatten(flat), steps)[0][:N_PHYSICS])
    predicted = np.asarray(predict(jnp.asarray(models)), np.float64)
    tables = []
    for i, run in enumerate(zip(*runs.values(), strict=True)):
        columns = {**asdict(setting), **dict(zip(runs, run, strict=True))}
        for c in range(N_PHYSICS):
            along = {
                "t": np.arange(len(actions)),
                "coordinate": c,
                "true": np.asarray(states[1:, c], np.float64),
                "predicted": predicted[i, c],
            }
            tables.append(pd.DataFrame({**columns, **along}))
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
    """Trains one setting and writes its evaluations, its models and their predictions."""
    setting = Setting.parse(job.settings["agent"], job.settings["variant"])
    curves, models, shown = train(setting, job.settings, job.threads, job.scratch)
    write_parquet(curves, job.outputs["curves"])
    write_parquet(models, job.outputs["models"])
    write_parquet(shown, job.outputs["predictions"])
