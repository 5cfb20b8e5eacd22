"""The matrix P of Gehring et al. 2021, theorem 1, and what its statements are made of.

A model is rewards w (K,), logits F (K, K) and an internal discount eta. With S = softmax(F) and
A = I - eta S its values are theta = A^-1 w, and gradient flow of a loss L in (w, F) moves them by
-P grad L, where P = A^-1 (eta^2 D + I) A^-T. All in NumPy; leading axes are instances.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Array = np.ndarray


class Model(NamedTuple):
    """A model solved.

    Attributes:
        S: transitions softmax(F), (..., K, K).
        inverse: A^-1, (..., K, K).
        theta: values A^-1 w, (..., K).
        D: the diagonal d of theorem 1, (..., K).
        eta: the internal discount, (...).
    """

    S: Array
    inverse: Array
    theta: Array
    D: Array
    eta: Array

    @property
    def root(self) -> Float[Array, "... K K"]:
        """A^-1 (eta^2 D + I)^(1/2), so that P is its product with its transpose."""
        scale = np.sqrt(np.asarray(self.eta)[..., None] ** 2 * self.D + 1)
        return self.inverse * scale[..., None, :]

    @property
    def P(self) -> Float[Array, "... K K"]:
        """The matrix of theorem 1."""
        return self.root @ np.swapaxes(self.root, -1, -2)

    def precondition(self, r: Float[Array, "K n"]) -> Float[Array, "K n"]:
        """P r of one instance, without forming P."""
        root = self.root
        return root @ (root.T @ r)

    @property
    def perron(self) -> Float[Array, "..."]:
        """The factor v' (eta^2 D + I) v of theorem 4; at least |v|^2 >= 1/K."""
        scale = np.asarray(self.eta)[..., None] ** 2 * self.D + 1
        return (stationary(self.S) ** 2 * scale).sum(-1)


def solve(w: Float[Array, "... K"], F: Float[Array, "... K K"], eta: Array | float) -> Model:
    """The model's transitions, values, and the parts of P (theorem 1)."""
    weights = np.exp(F - F.max(axis=-1, keepdims=True))
    S = weights / weights.sum(axis=-1, keepdims=True)
    discount = np.broadcast_to(np.asarray(eta, float), S.shape[:-2])
    inverse = np.linalg.inv(np.eye(S.shape[-1]) - discount[..., None, None] * S)
    theta = (inverse @ w[..., None])[..., 0]
    off = theta[..., None, :] - (S @ theta[..., None])
    return Model(S, inverse, theta, (S**2 * off**2).sum(-1), discount)


def stationary(S: Float[Array, "... K K"]) -> Float[Array, "... K"]:
    """The distribution v with v'S = v' of irreducible transitions."""
    K = S.shape[-1]
    system = np.swapaxes(np.eye(K) - S, -1, -2).copy()
    system[..., -1, :] = 1.0
    last = np.zeros((*S.shape[:-2], K, 1))
    last[..., -1, 0] = 1.0
    return np.linalg.solve(system, last)[..., 0]


def smallest_allowed(K: int, eta: Array | float) -> Array | float:
    """A bound that lambda_min(P) cannot pass: 1 / (1 + eta sqrt(K))^2, since |S| <= sqrt(K)."""
    return 1 / (1 + eta * np.sqrt(K)) ** 2


def pull(model: Model, r: Array) -> tuple[Array, Array]:
    """The gradient in w and F of a loss whose gradient in theta is r, (..., K)."""
    back = (np.swapaxes(model.inverse, -1, -2) @ r[..., None])[..., 0]
    mean = (model.S @ model.theta[..., None])[..., 0]
    off = model.theta[..., None, :] - mean[..., None]
    return back, model.eta[..., None, None] * back[..., None] * model.S * off
