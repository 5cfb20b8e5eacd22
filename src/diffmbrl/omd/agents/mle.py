"""MLE: a model that fits the data by likelihood, as Dyna's does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffmbrl.agents.soft_q import SoftQ
from diffmbrl.omd.agent import Agent
from diffmbrl.omd.models import Model
from diffmbrl.omd.settings import Setting

LABEL = "MLE"
ORDER = 1
COLOR = 0
SMOKE = {
    "rates": {
        "width": [[0.001, 0.01]],
        "selection": [[0.001, 0.01], [0.003, 0.005]],
        "distractors": [[0.001, 0.01]],
    }
}


@dataclass(frozen=True)
class MLE(Agent):
    """Fits the model to the data by likelihood (eq. 1), as Dyna does."""

    def _model_loss(self, model, probes, batch):
        return self.model.likelihood_loss(model, batch)


def agent(q: SoftQ, model: Model, setting: Setting, values: Mapping[str, Any]) -> MLE:
    """The agent of a setting."""
    return MLE(q, model, setting.inner_steps)
