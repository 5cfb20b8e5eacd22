"""Linear values V(s) = phi(s) . theta, explicit and implicit (Gehring et al. 2021, section 2).

Explicit: theta is the parameter. Implicit: parameters are rewards w and transition logits F of
a model whose states are the features, and theta solves that model's Bellman equation with the
internal discount eta. One function of plain arrays covers the Markov reward chain (one
pseudo-action, eq. 2) and the MDP (several, with a maximum or a log-sum-exp over them). Which
solver they are used with is the matter of each entry of `diffmbrl.implicit.parameterizations`.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmbrl.mdp.dense import soft_max
from diffmbrl.solve import CONVERGED, Adjoint, Method, Solution, fixed_point

Params = dict[str, Array]


class Values(Protocol):
    """A way to turn parameters into values."""

    def init(self, w: Array, F: Array, eta: Float[Array, ""]) -> Params:
        """Parameters at the start: from rewards (n, actions) and logits (n, actions, n)."""
        ...

    def solve(self, params: Params, eta: Float[Array, ""], guess: Float[Array, " n"]) -> Solution:
        """Finds theta, differentiable in params; `guess` is the last theta."""
        ...


class Models(NamedTuple):
    """One parameterization, solved in two ways.

    Attributes:
        calm: the fastest, for a run whose values are bounded and whose logits move little.
        wild: exact to rounding and started afresh, for a run that blows up. Whether such a run
            overflows in the end is decided by theta's small entries; a solve that starts from
            values of 1e20 gets those wrong by 1e4, its rounding error (docs/implicit.md,
            detail 4).
        width: how many runs are trained as one set. Runs that share a product profit from many;
            where one run fills a processor's cache, it is 1.
        has_backups: whether there is more than one backup, so that results name it.
    """

    calm: Values
    wild: Values
    width: int
    has_backups: bool = False


def centred(F: Float[Array, "n actions n"]) -> Float[Array, "n actions n"]:
    """The same transitions, every row's largest logit 0."""
    return F - F.max(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Explicit:
    """theta itself is learned; it starts at the implicit parameterization's initial values."""

    start: "Implicit"

    def init(self, w: Array, F: Array, eta: Float[Array, ""]) -> Params:
        """Parameters whose values are those of the model (w, F, eta)."""
        return {"theta": self.start.solve({"w": w, "F": F}, eta, jnp.zeros(w.shape[0])).value}

    def solve(self, params: Params, eta: Float[Array, ""], guess: Array) -> Solution:
        """Returns theta, of which there is nothing to solve."""
        return Solution(params["theta"], jnp.int32(CONVERGED), jnp.asarray(0))


@dataclass(frozen=True)
class Implicit:
    """theta is the solution of theta = backup_a(w_a + eta softmax(F_a) theta).

    Attributes:
        method: how the equation is solved.
        adjoint: how its gradient is found.
        backup: `max` or `logsumexp` over pseudo-actions; of one action both are that action.
        temperature: of the log-sum-exp.
        warm: whether a solve starts at the last solution, and is preconditioned; else at w.
    """

    method: Method
    adjoint: Adjoint
    backup: str = "max"
    temperature: float = 1.0
    warm: bool = False

    def init(self, w: Array, F: Array, eta: Float[Array, ""]) -> Params:
        """The model itself: w of shape (n, actions), F of shape (n, actions, n)."""
        return {"w": w, "F": F}

    def solve(self, params: Params, eta: Float[Array, ""], guess: Array) -> Solution:
        """Solves for theta, warm from `guess`, the last solution; differentiable in params.

        A warm model keeps its softmax as weights and their sums. A product is divided by the sums,
        and the gradient in F takes one pass over the matrix, without a row sum of its own; where
        values are huge, that loses the softmax's cancellation and with it the published blow-ups.
        The weights are float32 exponentials of the logits as they are, so each row's largest must
        be near 0 (`centred`): far from it they lose precision, and overflow at 88. Their sums and
        products are float64, so that a solution is moved by about 1e-9 of its size, not by 1e-7.
        """
        w, F = params["w"], params["F"]
        if self.warm:
            weights = jnp.exp(F.astype(jnp.float32)).astype(F.dtype)
            total = weights @ jnp.ones(F.shape[-1])
        else:
            weights, total = jax.nn.softmax(F, axis=-1), jnp.ones(w.shape)
        own = jnp.arange(w.shape[0])
        return fixed_point(
            self._chain if w.shape[1] == 1 else self._mdp,
            guess if self.warm else w.max(axis=1),
            (w, weights, total, eta),
            method=self.method,
            adjoint=self.adjoint,
            diagonal=1 - eta * (weights[own, :, own] / total).mean(axis=1) if self.warm else None,
        )

    @staticmethod
    def _chain(theta: Array, args: tuple) -> Array:
        w, weights, total, eta = args
        return w[:, 0] + eta * (weights[:, 0] @ theta) / total[:, 0]

    def _mdp(self, theta: Array, args: tuple) -> Array:
        w, weights, total, eta = args
        q = w + eta * jnp.einsum("iaj,j->ia", weights, theta) / total
        return q.max(axis=1) if self.backup == "max" else soft_max(q, self.temperature)
