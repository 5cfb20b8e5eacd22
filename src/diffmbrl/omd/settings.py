"""The settings of the CartPole experiments: what is static in a run, and its name in a path."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from diffmbrl.errors import ConfigError

FLAGS = {
    "single": ("double_q", False),
    "warm": ("inner_optimizer", "warm"),
    "cg": ("adjoint", "cg"),
    "neumann": ("adjoint", "neumann"),
    "gaussian": ("probabilistic", True),
    "leaky": ("activation", "leaky"),
    "frozendynamics": ("frozen", "dynamics"),
    "frozenreward": ("frozen", "reward"),
}
NUMBERS = {"width": "width", "distractors": "distractors", "k": "inner_steps"}


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
    activation: str = "relu"
    frozen: str = "none"

    @property
    def variant(self) -> str:
        """Everything but the agent, what is as by default left out: `width32-k3-warm`."""
        default = Setting(self.agent, 0)
        parts = [
            f"{word}{getattr(self, field)}"
            for word, field in NUMBERS.items()
            if getattr(self, field) != getattr(default, field)
        ]
        return "-".join(
            [*parts, *(word for word, (field, v) in FLAGS.items() if getattr(self, field) == v)]
        )

    @classmethod
    def parse(cls, agent: str, variant: str) -> "Setting":
        """The setting that has this agent and variant.

        Raises:
            ConfigError: a word that names no option, or no width.
        """
        values: dict[str, Any] = {}
        for word in variant.split("-"):
            number = re.fullmatch(r"([a-z]+)(\d+)", word)
            if number and number[1] in NUMBERS:
                values[NUMBERS[number[1]]] = int(number[2])
            elif word in FLAGS:
                values.update([FLAGS[word]])
            else:
                known = [f"{name}<number>" for name in NUMBERS] + list(FLAGS)
                raise ConfigError(f"{variant}: {word!r} is none of {', '.join(known)}")
        if values.get("width", 0) < 1:
            raise ConfigError(f"{variant}: must give the model's width, such as width3")
        return cls(agent, **values)


def settings_of(experiment: str, axes: Mapping[str, Any], agents: list[str]) -> list[Setting]:
    """The settings of an experiment, in the order of its table.

    Args:
        experiment: `width` (figures 4 left and 5), `selection` (the same, every pair of rates),
            `distractors` (figure 4 right), `parts` (which part of a model matters) or `ablation`
            (figure 7, and the effect of the inner optimiser's state).
        axes: the experiment's own keys of the config.
        agents: that take part; `ablation` is of OMD.
    """
    if experiment in ("width", "selection"):
        return [Setting(agent, width) for width in axes["widths"] for agent in agents]
    if experiment == "parts":
        return [
            part
            for width in axes["widths"]
            for agent in agents
            for part in _parts(Setting(agent, width))
        ]
    width = axes["model_width"]
    if experiment == "distractors":
        return [Setting(agent, width, n) for n in axes["distractors"] for agent in agents]
    base = Setting("omd", width)
    variants = [replace(base, inner_steps=k) for k in axes["inner_steps"]]
    variants += [replace(base, double_q=False), replace(base, inner_optimizer="warm")]
    variants += [replace(base, adjoint=name) for name in axes["adjoints"]]
    variants += [replace(base, probabilistic=True)] if axes["probabilistic"] else []
    return list(dict.fromkeys(variants))


def _parts(base: Setting) -> list[Setting]:
    """An agent, with leaky units, and if it is OMD with each network of its model frozen."""
    frozen = ("dynamics", "reward") if base.agent == "omd" else ()
    return [base, replace(base, activation="leaky"), *(replace(base, frozen=f) for f in frozen)]
