"""Adjoints: how the inverse in the implicit function theorem is applied to a cotangent.

Of a fixed point x = f(x) the system is I - J^T, J = df/dx (`fixed_point`); of a minimum, where
the gradient of a loss is zero, it is the loss's Hessian (`at_minimum`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffmbrl.solve.linear import Direct, LinearSolver, Operator, relative_residual

PyTree = Any


class Adjoint(Protocol):
    """Solves A z = v for a cotangent v."""

    def solve(self, A: Operator, cotangent: PyTree) -> PyTree:
        """Returns z."""
        ...

    def residual(self, A: Operator, z: PyTree, cotangent: PyTree) -> Float[Array, ""]:
        """Returns |A z - v| / |v|, or 0 where no system is meant to be solved."""
        ...


@dataclass(frozen=True)
class Iterative:
    """The implicit function theorem, the linear system solved to a tolerance."""

    linear: LinearSolver

    def solve(self, A: Operator, cotangent: PyTree) -> PyTree:
        """Solves A z = cotangent as well as the linear solver does."""
        return self.linear.solve(A, cotangent)

    def residual(self, A: Operator, z: PyTree, cotangent: PyTree) -> Float[Array, ""]:
        """The relative residual of the solve."""
        return relative_residual(A, z, cotangent)


@dataclass(frozen=True)
class Exact(Iterative):
    """The implicit function theorem, the linear system factorised."""

    linear: LinearSolver = field(default_factory=Direct)


@dataclass(frozen=True)
class Identity:
    """Replaces the inverse by the identity: z = cotangent (Nikishin et al. 2022)."""

    def solve(self, A: Operator, cotangent: PyTree) -> PyTree:
        """Returns the cotangent."""
        return cotangent

    def residual(self, A: Operator, z: PyTree, cotangent: PyTree) -> Float[Array, ""]:
        """0 by convention: the identity solves no system."""
        return jnp.zeros((), jax.tree.leaves(cotangent)[0].dtype)


IDENTITY = Identity()


def at_minimum(
    adjoint: Adjoint,
    grad: Callable[[PyTree], PyTree],
    at: PyTree,
    cotangent: PyTree,
    damping: float = 0.0,
) -> tuple[PyTree, Float[Array, ""]]:
    """Solves (H + damping I) z = cotangent for the Hessian H of a loss (Nikishin et al., eq. 7).

    The residual is reported, not acted on: a solve that ran out of iterations, or met negative
    curvature, returns what it has.

    Args:
        adjoint: how the system is solved.
        grad: the loss's gradient.
        at: the parameters.
        cotangent: as the parameters.
        damping: added to H's diagonal.

    Returns:
        z, and its relative residual.
    """
    hessian = jax.linearize(grad, at)[1]
    A = Operator(lambda z: jax.tree.map(lambda h, x: h + damping * x, hessian(z), z))
    z = adjoint.solve(A, cotangent)
    return z, adjoint.residual(A, z, cotangent)
