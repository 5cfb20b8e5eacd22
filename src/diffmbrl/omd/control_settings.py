"""The settings of figure 8: which agents are run in a task, at which widths and distractors."""

from collections.abc import Mapping
from typing import Any

from diffmbrl.omd.settings import Setting


def settings_of(task: Mapping[str, Any], adjoint: str) -> list[Setting]:
    """The settings of a task: every width without distractors, and every number of them at one.

    Args:
        task: one of the config's `control.tasks`.
        adjoint: OMD's.
    """
    pairs = [(width, 0) for width in task["widths"]]
    pairs += [(task["model_width"], n) for n in task["distractors"]]
    own: dict[str, Any] = {"adjoint": adjoint, "inner_optimizer": "warm"}  # SAC's go on
    found = [
        Setting(agent, width, n, k, **(own if agent == "omd" else {}))
        for agent in task["rates"]
        for k in task["inner_steps"]
        for width, n in pairs
    ]
    return list(dict.fromkeys(found))
