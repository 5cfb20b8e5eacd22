"""What the agents share: soft Q-learning on what a model imagines, which is learned beside it.

An agent is a frozen set of hyperparameters with pure verbs `init`, `act` and `update`. Agents
differ in the gradient that their model gets; each is an entry of `diffmbrl.omd.agents`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from diffmbrl.agents.replay import Transition
from diffmbrl.agents.soft_q import SoftQ
from diffmbrl.keys import fold
from diffmbrl.nets.ensemble import Params
from diffmbrl.omd.models import Model

ADAM = optax.scale_by_adam()


class Rates(NamedTuple):
    """Step sizes of one run: Q networks, their moving average, the model."""

    inner_lr: Array
    tau: Array
    model_lr: Array


class State(NamedTuple):
    """Parameters and optimiser states of one agent."""

    q: Params
    q_target: Params
    q_opt: Any
    model: Params
    model_opt: Any
    probes: Params


class Losses(NamedTuple):
    """What an update reports; `adjoint_residual` is that of the adjoint's linear solve."""

    model_mse: Array
    q_loss: Array
    q_value: Array
    adjoint_residual: Array

    @classmethod
    def zeros(cls, dtype: Any) -> "Losses":
        """What a step without an update reports."""
        return cls(*(jnp.zeros((), dtype) for _ in cls._fields))


@dataclass(frozen=True)
class Agent:
    """Hyperparameters and verbs of an agent that updates its model on its own loss first.

    Attributes:
        q: the Q-learner.
        model: the model's networks.
        inner_steps: K, how many Q steps each update takes.
    """

    q: SoftQ
    model: Model
    inner_steps: int = 1

    @property
    def batches(self) -> int:
        """Batches that an update takes: one for the model, and one per Q step."""
        return 1 + self.inner_steps

    def init(self, key: jax.Array) -> State:
        """Fresh networks and optimisers; the target is a copy of the Q networks."""
        q, model = self.q.init(fold(key, "q")), self.model.init(fold(key, "model"))
        return State(q, q, ADAM.init(q), model, ADAM.init(model), self._probes(key))

    def act(self, state: State, obs: Array, gumbel: Array) -> Array:
        """An action of the softmax policy."""
        return self.q.act(state.q, obs, gumbel)

    def update(
        self, state: State, batches: list[Transition], rates: Rates, key: jax.Array
    ) -> tuple[State, Losses]:
        """One model step, then K steps of Q on batches that the model imagines."""
        (_, mse), grads = jax.value_and_grad(self._model_loss, has_aux=True)(
            state.model, state.probes, batches[0]
        )
        model, model_opt = self._model_step(state, grads, rates)
        q, target, q_opt = state.q, state.q_target, state.q_opt
        for i, batch in enumerate(batches[1:]):
            imagined, _ = self.model.imagine(model, batch, jax.random.fold_in(key, i))
            q, target, q_opt, loss, value = self._q_step(q, target, q_opt, imagined, rates)
        state = State(q, target, q_opt, model, model_opt, state.probes)
        return state, Losses(mse, loss, value, jnp.zeros_like(loss))

    def _model_step(self, state: State, grads: Params, rates: Rates) -> tuple[Params, Any]:
        """The model after a step of Adam, but for its frozen networks."""
        model, opt = adam(grads, state.model_opt, state.model, rates.model_lr)
        return model | {name: state.model[name] for name in self.model.frozen}, opt

    def _q_step(self, q, target, q_opt, batch: Transition, rates: Rates):
        (loss, value), grads = jax.value_and_grad(self.q.loss, has_aux=True)(q, target, batch)
        q, q_opt = adam(grads, q_opt, q, rates.inner_lr)
        target = optax.incremental_update(q, target, rates.tau)
        return q, target, q_opt, loss, value

    def _model_loss(self, model: Params, probes: Params, batch: Transition) -> tuple[Array, Array]:
        """The loss that the model descends, and its error in the next observation."""
        raise NotImplementedError

    def _probes(self, key: jax.Array) -> Params:
        return ()


def adam(grads: Params, opt: Any, params: Params, rate: Array) -> tuple[Params, Any]:
    """One step of Adam at a step size that may differ from run to run."""
    updates, opt = ADAM.update(grads, opt)
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), opt
