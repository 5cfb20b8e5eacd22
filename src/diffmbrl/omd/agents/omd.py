"""OMD: a model that is learned for the true Bellman error of the Q networks that it induces."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array

from diffmbrl.agents.replay import Transition
from diffmbrl.agents.soft_q import SoftQ
from diffmbrl.nets.ensemble import Params
from diffmbrl.omd.agent import ADAM, Agent, Losses, State
from diffmbrl.omd.models import Model
from diffmbrl.omd.settings import Setting
from diffmbrl.solve import CG, IDENTITY, Adjoint, Iterative, Neumann, at_minimum

LABEL = "OMD"
ORDER = 0
COLOR = 3
SMOKE = {
    "rates": {
        "width": [[0.001, 0.01]],
        "selection": [[0.001, 0.01], [0.003, 0.005]],
        "distractors": [[0.001, 0.01]],
        "parts": [[0.001, 0.01]],
        "ablation": [[0.001, 0.01]],
    }
}


@dataclass(frozen=True)
class OMD(Agent):
    """Trains the model for the true Bellman error of the Q that it induces (eqs. 12 and 13).

    Attributes:
        adjoint: how the Jacobian of the inner optimality condition is inverted.
        damping: added to that Jacobian's diagonal.
        warm_optimizer: keep Q's Adam state between outer steps instead of starting it anew
            (as the released program does; at K = 1 that is a step of lr, up or down).
    """

    adjoint: Adjoint = IDENTITY
    damping: float = 1e-5
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
        model, model_opt = self._model_step(state, grads, rates)
        state = State(q, target, q_opt, model, model_opt, state.probes)
        return state, Losses(mse, loss, value, residual)

    def implicit_gradient(self, model, q, target, batch: Transition, key) -> tuple[Params, Array]:
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
        inner_grad = jax.grad(lambda w: inner(w, model))
        vector, residual = at_minimum(self.adjoint, inner_grad, q, outer, self.damping)

        def along(theta):
            return -jax.jvp(lambda w: inner(w, theta), (q,), (vector,))[1]

        return jax.grad(along)(model), residual


def adjoint(name: str, iterations: int) -> Adjoint:
    """The adjoint of a setting; iterative ones take at most so many products with the Jacobian.

    Raises:
        ValueError: unknown name, or iterations below 1.
    """
    match name:
        case "identity":
            return IDENTITY
        case "cg":
            return Iterative(CG(max_steps=iterations))
        case "neumann":
            return Iterative(Neumann(max_steps=iterations))
    raise ValueError(f"adjoint: {name!r} is unknown; use identity, cg or neumann")


def agent(q: SoftQ, model: Model, setting: Setting, values: Mapping[str, Any]) -> OMD:
    """The agent of a setting."""
    return OMD(
        q,
        model,
        setting.inner_steps,
        adjoint(setting.adjoint, values["adjoint_iterations"]),
        values["adjoint_damping"],
        setting.inner_optimizer == "warm",
    )
