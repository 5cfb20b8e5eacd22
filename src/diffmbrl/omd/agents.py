"""OMD, MLE and VEP: three ways to learn a model for the same soft Q-learning.

An agent is a frozen set of hyperparameters with pure verbs `init`, `act` and `update`. They
share the Q networks' side and differ in the gradient that their model gets.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from diffmbrl.agents.soft_q import Batch, Params, SoftQ, apply_mlp, init_mlp
from diffmbrl.keys import fold
from diffmbrl.omd.adjoint import IDENTITY, Adjoint
from diffmbrl.omd.models import Model, squared_error

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
    """What the three agents share.

    Attributes:
        q: the Q-learner.
        model: the model's networks.
        inner_steps: K, Q steps an update.
    """

    q: SoftQ
    model: Model
    inner_steps: int = 1

    @property
    def batches(self) -> int:
        """Batches that an update takes: one for the model, one a Q step."""
        return 1 + self.inner_steps

    def init(self, key: jax.Array) -> State:
        """Fresh networks and optimisers; the target is a copy of the Q networks."""
        q, model = self.q.init(fold(key, "q")), self.model.init(fold(key, "model"))
        return State(q, q, ADAM.init(q), model, ADAM.init(model), self._probes(key))

    def act(self, state: State, obs: Array, gumbel: Array) -> Array:
        """An action of the softmax policy."""
        return self.q.act(state.q, obs, gumbel)

    def update(
        self, state: State, batches: list[Batch], rates: Rates, key: jax.Array
    ) -> tuple[State, Losses]:
        """One model step, then K steps of Q on batches that the model imagines."""
        (_, mse), grads = jax.value_and_grad(self._model_loss, has_aux=True)(
            state.model, state.probes, batches[0]
        )
        model, model_opt = adam(grads, state.model_opt, state.model, rates.model_lr)
        q, target, q_opt = state.q, state.q_target, state.q_opt
        for i, batch in enumerate(batches[1:]):
            imagined, _ = self.model.imagine(model, batch, jax.random.fold_in(key, i))
            q, target, q_opt, loss, value = self._q_step(q, target, q_opt, imagined, rates)
        state = State(q, target, q_opt, model, model_opt, state.probes)
        return state, Losses(mse, loss, value, jnp.zeros_like(loss))

    def _q_step(self, q, target, q_opt, batch: Batch, rates: Rates):
        (loss, value), grads = jax.value_and_grad(self.q.loss, has_aux=True)(q, target, batch)
        q, q_opt = adam(grads, q_opt, q, rates.inner_lr)
        target = optax.incremental_update(q, target, rates.tau)
        return q, target, q_opt, loss, value

    def _model_loss(self, model: Params, probes: Params, batch: Batch) -> tuple[Array, Array]:
        raise NotImplementedError

    def _probes(self, key: jax.Array) -> Params:
        return ()


@dataclass(frozen=True)
class MLE(Agent):
    """Fits the model to the data by likelihood (eq. 1), as Dyna does."""

    def _model_loss(self, model, probes, batch):
        return self.model.likelihood_loss(model, batch)


@dataclass(frozen=True)
class VEP(Agent):
    """Fits the values of predicted next states under fixed random value networks (eq. 14)."""

    n_values: int = 5

    def _model_loss(self, model, probes, batch):
        mean, _, reward = self.model.predict(model, batch)
        true, predicted = (apply_mlp(probes, obs)[:, 0] for obs in (batch.next_obs, mean))
        gap = jnp.sum(jnp.mean((true - predicted) ** 2, axis=-1))
        mse = squared_error(mean, batch.next_obs)
        return gap + jnp.mean((reward - batch.reward) ** 2), mse

    def _probes(self, key):
        sizes = (self.q.n_obs, self.q.hidden, self.q.hidden, 1)
        return init_mlp(fold(key, "values"), sizes, self.n_values, self.q.dtype)


@dataclass(frozen=True)
class OMD(Agent):
    """Trains the model for the true Bellman error of the Q that it induces (eqs. 12 and 13).

    Attributes:
        adjoint: how the Jacobian of the inner optimality condition is inverted.
        warm_optimizer: keep Q's Adam state between outer steps instead of starting it anew
            (as the released program does: at K = 1, a step of about lr times the sign).
    """

    adjoint: Adjoint = IDENTITY
    warm_optimizer: bool = False

    @property
    def batches(self) -> int:
        """One batch serves the inner and the outer loss."""
        return 1

    def update(self, state, batches, rates, key):
        """K steps of Q on the model, then a model step along the implicit gradient."""
        (batch,) = batches
        imagined, mse = self.model.imagine(state.model, batch, key)
        q, target = state.q, state.q_target
        q_opt = state.q_opt if self.warm_optimizer else ADAM.init(q)
        for _ in range(self.inner_steps):
            q, target, q_opt, loss, value = self._q_step(q, target, q_opt, imagined, rates)
        grads, residual = self.implicit_gradient(state.model, q, target, batch, key)
        model, model_opt = adam(grads, state.model_opt, state.model, rates.model_lr)
        state = State(q, target, q_opt, model, model_opt, state.probes)
        return state, Losses(mse, loss, value, residual)

    def implicit_gradient(self, model, q, target, batch: Batch, key) -> tuple[Params, Array]:
        """Gradient of L_true: -(d L_true / d w) H^-1 (d^2 L / d w d theta) (eqs. 7 and 13).

        H is the Hessian of the inner loss L in w, as the adjoint sees it. The mixed term is
        the gradient, in theta, of L's derivative along the adjoint vector: forward over w,
        then one reverse pass that reaches theta only through the targets.

        Returns:
            The gradient, and the relative residual of the adjoint's linear solve.
        """

        def inner(w, theta):
            return self.q.loss(w, target, self.model.imagine(theta, batch, key)[0])[0]

        outer = jax.grad(lambda w: self.q.loss(w, target, batch)[0])(q)
        vector, residual = self.adjoint.solve(jax.grad(lambda w: inner(w, model)), q, outer)

        def along(theta):
            return -jax.jvp(lambda w: inner(w, theta), (q,), (vector,))[1]

        return jax.grad(along)(model), residual


def adam(grads: Params, opt: Any, params: Params, rate: Array) -> tuple[Params, Any]:
    """One step of Adam at a step size that may differ from run to run."""
    updates, opt = ADAM.update(grads, opt)
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), opt
