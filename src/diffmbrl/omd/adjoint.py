"""How OMD inverts the Jacobian of its inner optimality condition, grad_w L(theta, w) = 0."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array

PyTree = Any


@dataclass(frozen=True)
class Adjoint:
    """Solves (H + damping I) z = v for the Hessian H of the inner loss.

    Attributes:
        method: `identity` (z = v), `cg` (conjugate gradients) or `neumann` (the truncated
            series z = step sum_k (I - step H)^k v).
        iterations: at most so many products with H.
        damping: added to H's diagonal.
        step: step size of the Neumann series.
    """

    method: str = "identity"
    iterations: int = 100
    damping: float = 1e-5
    step: float = 1e-2

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"adjoint: {self.method!r} is unknown; use one of {METHODS}")
        if self.iterations < 1:
            raise ValueError(f"adjoint iterations={self.iterations}: must be at least 1")

    def solve(
        self, grad: Callable[[PyTree], PyTree], at: PyTree, vector: PyTree
    ) -> tuple[PyTree, Array]:
        """The adjoint vector z, and the relative residual ||(H + damping I) z - v|| / ||v||.

        The residual is reported, not acted on: a solve that ran out of iterations, or met
        negative curvature, returns what it has. That of the identity is 0 by convention.
        """
        dtype = jax.tree.leaves(vector)[0].dtype
        if self.method == "identity":
            return vector, jnp.zeros((), dtype)
        hessian = jax.linearize(grad, at)[1]

        def product(z):
            return jax.tree.map(lambda h, x: h + self.damping * x, hessian(z), z)

        z = (
            self._neumann(product, vector)
            if self.method == "neumann"
            else self._cg(product, vector)
        )
        gap = jax.tree.map(jnp.subtract, product(z), vector)
        return z, norm(gap) / jnp.maximum(norm(vector), jnp.finfo(dtype).tiny)

    def _cg(self, product: Callable, vector: PyTree) -> PyTree:
        return cg(product, vector, tol=1e-5, maxiter=self.iterations)[0]

    def _neumann(self, product: Callable, vector: PyTree) -> PyTree:
        def term(_, carry):
            total, power = carry
            power = jax.tree.map(lambda p, h: p - self.step * h, power, product(power))
            return jax.tree.map(jnp.add, total, power), power

        total, _ = jax.lax.fori_loop(0, self.iterations, term, (vector, vector))
        return jax.tree.map(lambda x: self.step * x, total)


METHODS = ("identity", "cg", "neumann")
IDENTITY = Adjoint()


def norm(tree: PyTree) -> Array:
    """The 2-norm of all leaves together."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
