"""VEP: a model that is to be right about the values of its next states, not about the states."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from diffmbrl.agents.soft_q import SoftQ
from diffmbrl.keys import fold
from diffmbrl.nets import ensemble
from diffmbrl.omd.agent import Agent
from diffmbrl.omd.models import Model, squared_error
from diffmbrl.omd.settings import Setting

LABEL = "VEP"
ORDER = 2
COLOR = 2
SMOKE = {
    "rates": {
        "width": [[0.001, 0.01]],
        "selection": [[0.001, 0.01], [0.003, 0.005]],
        "distractors": [[0.001, 0.01]],
    }
}


@dataclass(frozen=True)
class VEP(Agent):
    """Fits the values of predicted next states under fixed random value networks (eq. 14)."""

    n_values: int = 5

    def _model_loss(self, model, probes, batch):
        mean, _, reward = self.model.predict(model, batch)
        true, predicted = (ensemble.apply(probes, obs)[:, 0] for obs in (batch.obs_next, mean))
        gap = jnp.sum(jnp.mean((true - predicted) ** 2, axis=-1))
        mse = squared_error(mean, batch.obs_next)
        return gap + jnp.mean((reward - batch.reward) ** 2), mse

    def _probes(self, key):
        sizes = (self.q.n_obs, self.q.hidden, self.q.hidden, 1)
        return ensemble.init(fold(key, "values"), sizes, self.n_values, self.q.dtype)


def agent(q: SoftQ, model: Model, setting: Setting, values: Mapping[str, Any]) -> VEP:
    """The agent of a setting."""
    return VEP(q, model, setting.inner_steps)
