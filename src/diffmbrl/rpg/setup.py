"""From configuration to environments, learners and runs, with what is wrong named."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from diffmbrl import registry
from diffmbrl.agents import sac
from diffmbrl.envs.functional import Environment
from diffmbrl.errors import ConfigError
from diffmbrl.nets import mlp as nets
from diffmbrl.nets import spectral
from diffmbrl.rpg.learner import Learner
from diffmbrl.rpg.objective import Estimator
from diffmbrl.rpg.schedule import Schedule
from diffmbrl.rpg.training import Training

Run = dict[str, Any]


def training(settings: Mapping[str, Any], estimator: str) -> Training:
    """What the settings `task`, `horizon`, `learner` and `schedule` describe.

    Args:
        settings: of a stage.
        estimator: that is trained with.

    Raises:
        ConfigError: an unknown name, or counts that do not fit together.
    """
    env, schedule = environment(settings["task"]), Schedule(**settings["schedule"])
    schedule.check()
    h = steps(settings["horizon"])
    made = learner(settings["learner"], estimator, h, env, schedule.steps)
    return Training(made, env, schedule)


def steps(horizon: str) -> int:
    """Model steps of a horizon's name: 8 for `h8`."""
    return int(horizon.removeprefix("h"))


def environment(task: str) -> Environment:
    """The environment of a task.

    Raises:
        ConfigError: unknown task.
    """
    return registry.load("rpg.tasks", task).environment()


def estimator(name: str) -> Estimator:
    """The estimator of a name.

    Raises:
        ConfigError: unknown estimator.
    """
    return registry.load("rpg.estimators", name).ESTIMATOR


def learner(
    settings: Mapping[str, Any], name: str, h: int, env: Environment, capacity: int
) -> Learner:
    """The learner that the config's `learner` section describes.

    Raises:
        ConfigError: unknown estimator, or a horizon that cannot be.
    """
    agent = sac.SAC(env.observation_dim, env.action_dim, **_fields(sac.SAC, settings))
    made = Learner(
        agent,
        estimator(name),
        h,
        terminates=env.terminates,
        state_dim=env.state_dim,
        capacity=capacity,
        **_fields(Learner, settings),
    )
    for key, count in (("horizon", made.h), ("learner.model_steps", made.model_steps)):
        if count > env.time_limit:
            raise ConfigError(
                f"{key} = {count}: longer than any stored segment ({env.time_limit} steps); "
                "lower it"
            )
    return made


def runs(arms: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Every run: of each arm, seeds 0, 1, ... at every rate.

    Raises:
        ConfigError: unknown placement, choice of layers or initialisation.
    """
    known = {"sn": spectral.PLACEMENTS, "layers": spectral.LAYERS, "init": nets.INITS}
    for arm in arms:
        for key, names in known.items():
            if arm[key] not in names:
                raise ConfigError(f"{key} = {arm[key]!r}: unknown; use one of {', '.join(names)}")
    same = ("sn", "layers", "init", "clip")
    return [
        {**{key: arm[key] for key in same}, "rate": rate, "seed": seed}
        for arm in arms
        for rate in arm["rates"]
        for seed in range(arm["seeds"])
    ]


def configs(all_runs: list[Run], target: float) -> dict[str, np.ndarray]:
    """The runs as arrays for the sweep engine, one entry per run; see `arm.Arm`."""
    clips = [run["clip"] or np.inf for run in all_runs]
    return {
        "seed": np.array([run["seed"] for run in all_runs], np.uint32),
        "model": np.array([spectral.covers(run["sn"], "model") for run in all_runs]),
        "policy": np.array([spectral.covers(run["sn"], "policy") for run in all_runs]),
        "every": np.array([run["layers"] == "all" for run in all_runs]),
        "target": np.full(len(all_runs), target, np.float32),
        "uniform": np.array([run["init"] == "uniform" for run in all_runs]),
        "rate": np.array([run["rate"] for run in all_runs], np.float32),
        "clip": np.array(clips, np.float32),
    }


def _fields(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are hyperparameters of a kind of module, by name."""
    return {f.name: settings[f.name] for f in fields(kind) if f.name in settings}
