"""Stage: the CartPole experiments, one table of evaluations a set of settings (figures 4, 5, 7).

A setting is an agent with its static structure; its runs (seeds x pairs of rates) are
one compiled program. Each setting and block of seeds keeps its own checkpoint, so that an
interrupted job goes on where it stopped and returns the same bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
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
from diffmbrl.omd.train import Training, program
from diffmbrl.pipeline.stage import Job
from diffmbrl.sweep import engine
from diffmbrl.sweep.grid import grid

SEED_BLOCK = 5
SEGMENTS_PER_CALL = 20
REPORTED_STEPS = 200


@dataclass(frozen=True)
class Setting:
    """What is static in a run; the columns that name it in the results."""

    agent: str
    width: int
    distractors: int = 0
    inner_steps: int = 1
    double_q: bool = True
    adjoint: str = "identity"
    inner_optimizer: str = "fresh"
    probabilistic: bool = False


def settings_of(experiment: str, axes: Mapping[str, Any], agents: list[str]) -> list[Setting]:
    """The settings of an experiment, in the order in which they are run.

    Args:
        experiment: `width` (figures 4 left and 5), `distractors` (figure 4 right) or
            `ablation` (figure 7, and the effect of the inner optimiser's state).
        axes: the experiment's own keys of the config.
        agents: of the first two experiments.
    """
    if experiment == "width":
        return [Setting(agent, width) for agent, width in _pairs(agents, axes["widths"])]
    width = axes["model_width"]
    if experiment == "distractors":
        pairs = _pairs(agents, axes["distractors"])
        return [Setting(agent, width, n) for agent, n in pairs]
    base = Setting("omd", width)
    variants = [replace(base, inner_steps=k) for k in axes["inner_steps"]]
    variants += [replace(base, double_q=False), replace(base, inner_optimizer="warm")]
    variants += [replace(base, adjoint=name) for name in axes["adjoints"]]
    variants += [replace(base, probabilistic=True)] if axes["probabilistic"] else []
    return list(dict.fromkeys(variants))


def _pairs(agents: list[str], sizes: list[int]) -> Iterator[tuple[str, int]]:
    """Every size with OMD and MLE first: what the comparison rests on comes before VEP."""
    for group in ([a for a in agents if a != "vep"], [a for a in agents if a == "vep"]):
        yield from ((agent, size) for size in sizes for agent in group)


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
        keep_model=setting.distractors == 0 and setting.width <= 3,
    )  # fmt: skip


def train(
    setting: Setting, values: Mapping[str, Any], threads: int, checkpoint: Path | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All runs of a setting: their evaluations, and their models' predictions if kept."""
    training = build(setting, values)
    seeds = np.arange(1, values["seeds"] + 1)
    segments = training.steps // training.segment
    per_call = next(n for n in range(SEGMENTS_PER_CALL, 0, -1) if segments % n == 0)
    sweep = program(training, lanes=1, segments_per_call=per_call)
    inner_lrs, taus = np.asarray(values["rates"][setting.agent], float).T
    tables = []
    for block in np.array_split(seeds, range(SEED_BLOCK, len(seeds), SEED_BLOCK)):
        pairs = grid({"pair": np.arange(len(taus)), "seed": block})
        pair = pairs.pop("pair")
        runs = {"inner_lr": inner_lrs[pair], "tau": taus[pair], **pairs}
        configs = {**runs, "model_lr": np.full(len(runs["seed"]), values["model_lr"])}
        folder = None if checkpoint is None else checkpoint / _name(setting)
        metrics = engine.run(
            sweep, configs, None, threads=threads, checkpoint=folder, label=_name(setting)
        )
        models = metrics.pop("model", None)
        curves = tidy(setting, runs, metrics, training)
        shown = pd.DataFrame()
        if models is not None:
            shown = predictions(setting, runs, models[:, -1], training)
        tables.append((curves, shown))
    return pd.concat([c for c, _ in tables]), pd.concat([p for _, p in tables])


def _name(setting: Setting) -> str:
    return "-".join(str(value) for value in asdict(setting).values())


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
    """Trains every setting of one experiment and writes its tables."""
    values = dict(job.settings)
    curves, shown = [], []
    for setting in settings_of(values["experiment"], values["axes"], values["agents"]):
        table, predicted = train(setting, values, job.threads, job.scratch)
        curves.append(table)
        shown.append(predicted)
    pd.concat(curves, ignore_index=True).to_parquet(job.outputs["curves"])
    if "predictions" in job.outputs:
        pd.concat(shown, ignore_index=True).to_parquet(job.outputs["predictions"])
