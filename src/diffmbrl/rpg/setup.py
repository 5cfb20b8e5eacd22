"""From configuration to environments, learners and runs, with what is wrong named."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffmbrl.agents import sac
from diffmbrl.envs.functional import Environment
from diffmbrl.envs.hybrid import Hybrid
from diffmbrl.envs.pendulum import Pendulum
from diffmbrl.errors import ConfigError
from diffmbrl.nets import mlp as nets
from diffmbrl.nets import spectral
from diffmbrl.rpg.learner import ESTIMATORS, Learner
from diffmbrl.rpg.training import Schedule

TASKS: dict[str, type] = {"pendulum": Pendulum, "hybrid": Hybrid}


def environment(task: str) -> Environment:
    """The environment of a task.

    Raises:
        ConfigError: unknown task.
    """
    if task not in TASKS:
        raise ConfigError(f"task = {task!r}: unknown; use one of {', '.join(TASKS)}")
    return TASKS[task]()


def learner(
    settings: Mapping[str, Any], estimator: str, h: int, env: Environment, capacity: int
) -> Learner:
    """The learner that the config's `learner` section describes.

    Raises:
        ConfigError: unknown estimator or choice of layers, or a horizon that cannot be.
    """
    if estimator not in ESTIMATORS:
        raise ConfigError(f"estimator = {estimator!r}: unknown; use one of {', '.join(ESTIMATORS)}")
    if settings["sn_layers"] not in spectral.LAYERS:
        raise ConfigError(
            f"learner.sn_layers = {settings['sn_layers']!r}: unknown; use one of "
            f"{', '.join(spectral.LAYERS)}"
        )
    agent = sac.SAC(
        env.observation_dim, env.action_dim,
        actor_learning_rate=settings["actor_learning_rate"][estimator],
        **{name: settings[name]
           for name in ("width", "depth", "gamma", "tau", "learning_rate", "alpha")},
    )  # fmt: skip
    names = (
        "model_steps", "batch", "model_width", "model_depth", "model_learning_rate", "sn_layers",
        "sn_iterations", "recent", "model_noise",
    )  # fmt: skip
    made = Learner(
        agent, estimator, 0 if estimator == "sac" else h, terminates=env.terminates,
        capacity=capacity, **{name: settings[name] for name in names},
    )  # fmt: skip
    longest = env.time_limit
    for name, steps in (("horizon", made.h), ("learner.model_steps", made.model_steps)):
        if steps > longest:
            raise ConfigError(
                f"{name} = {steps}: longer than any stored segment ({longest} steps); lower it"
            )
    return made


def schedule(settings: Mapping[str, Any]) -> Schedule:
    """The schedule that the config's `schedule` section describes."""
    return Schedule(**settings)


def runs(settings: list[tuple[str, str, int]], target: float) -> list[dict[str, Any]]:
    """Every run: seeds 0, 1, ... of each setting (placement, initialisation, number of seeds).

    Raises:
        ConfigError: unknown placement or initialisation, or a target that is not above 0.
    """
    if target <= 0:
        raise ConfigError(f"learner.sn_target = {target}: must be above 0")
    for placement, init, _ in settings:
        if placement not in spectral.PLACEMENTS:
            known = ", ".join(spectral.PLACEMENTS)
            raise ConfigError(f"runs: placement {placement!r} is unknown; use one of {known}")
        if init not in nets.INITS:
            raise ConfigError(f"runs: init {init!r} is unknown; use one of {', '.join(nets.INITS)}")
    return [
        {"sn": placement, "init": init, "seed": seed}
        for placement, init, seeds in settings
        for seed in range(seeds)
    ]


def configs(all_runs: list[dict[str, Any]], target: float) -> dict[str, np.ndarray]:
    """The runs as arrays for the sweep engine."""
    return {
        "seed": np.array([run["seed"] for run in all_runs], np.uint32),
        "sn_model": np.array([spectral.covers(run["sn"], "model") for run in all_runs]),
        "sn_policy": np.array([spectral.covers(run["sn"], "policy") for run in all_runs]),
        "uniform": np.array([run["init"] == "uniform" for run in all_runs]),
        "target": np.full(len(all_runs), target, np.float32),
    }
