"""Linear solvers for A x = b, where A is known by its product with a vector."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

PyTree = Any
MatVec = Callable[[PyTree], PyTree]


class Operator(NamedTuple):
    """What solvers know of A.

    Attributes:
        product: v -> A v; v is an array of shape (n,), for `CG` and `Neumann` any pytree.
        diagonal: an approximation of A's diagonal, None where there is none.
        single: the product in float32, None where there is none.
    """

    product: MatVec
    diagonal: Float[Array, " n"] | None = None
    single: MatVec | None = None


class LinearSolver(Protocol):
    """Solves A x = b."""

    def solve(self, A: Operator, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns x with A x = b."""
        ...


@dataclass(frozen=True)
class Direct:
    """Exact: writes A out as a dense matrix, column by column, and factorises it."""

    def solve(self, A: Operator, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns x with A x = b; O(n^3)."""
        matrix = jax.vmap(A.product, out_axes=1)(jnp.eye(b.shape[0], dtype=b.dtype))
        return jnp.linalg.solve(matrix, b)


@dataclass(frozen=True)
class Elimination:
    """Exact, for a few unknowns: Gaussian elimination written out, without pivoting.

    For diagonally dominant matrices such as I - gamma P and its transpose, where pivoting is
    not needed. Nothing but arithmetic, so batches of small systems run as vector operations
    instead of one library call each; the program grows with n^2.
    """

    def solve(self, A: Operator, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns x with A x = b."""
        n = b.shape[0]
        columns = jax.vmap(A.product)(jnp.eye(n, dtype=b.dtype))
        rows = [jnp.append(columns[:, i], b[i]) for i in range(n)]
        for i in range(n):
            rows[i] = rows[i] / rows[i][i]
            rows = [row if k == i else row - row[i] * rows[i] for k, row in enumerate(rows)]
        return jnp.stack([row[n] for row in rows])


@dataclass(frozen=True)
class GCR:
    """Generalised conjugate residuals: the iterates of GMRES for the first `memory` steps.

    (Eisenstat, Elman & Schultz 1983; beyond `memory` directions the truncated method, Orthomin.)
    One product with A per iteration. On the small dense systems of this project, several times
    faster under XLA on a CPU than a GMRES that rebuilds its least-squares problem (`make bench`).

    Attributes:
        rtol: stops when |b - A x| <= rtol |b| + atol.
        atol: see rtol.
        max_steps: the most products with A; the x so far is returned then.
        memory: how many of the last directions a new one is made orthogonal to.
        passes: how often it is; the second restores what the first one loses to rounding, which
            matters where rtol is near the precision.
    """

    rtol: float = 1e-10
    atol: float | Float[Array, ""] = 0.0
    max_steps: int = 200
    memory: int = 20
    passes: int = 2

    def solve(self, A: Operator, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns x with A x = b to the tolerance, starting from zero.

        A known diagonal scales the directions (Jacobi preconditioning). Where b is not finite,
        neither is x: failure shows in the value.
        """
        target = self.rtol * jnp.linalg.norm(b) + self.atol

        def unfinished(carry):
            _, r, _, _, k = carry
            return (jnp.linalg.norm(r) > target) & (k < self.max_steps)

        def step(carry):
            x, r, directions, images, k = carry
            z = r if A.diagonal is None else r / A.diagonal
            q = A.product(z)
            for _ in range(self.passes):
                overlap = images @ q
                q, z = q - overlap @ images, z - overlap @ directions
            scale = 1 / jnp.linalg.norm(q)
            z, q, slot = z * scale, q * scale, k % self.memory
            along = q @ r
            directions, images = directions.at[slot].set(z), images.at[slot].set(q)
            return x + along * z, r - along * q, directions, images, k + 1

        kept = jnp.zeros((self.memory, b.shape[0]), b.dtype)
        x, *_ = jax.lax.while_loop(unfinished, step, (jnp.zeros_like(b), b, kept, kept, 0))
        return jnp.where(jnp.isfinite(target), x, jnp.nan)


@dataclass(frozen=True)
class Refined:
    """Iterative refinement: directions from float32 products, residuals in b's precision.

    The answer is as exact as that of a solve in b's precision, for half the memory traffic.
    What float32 solves is scaled to 1, so that values beyond its range are no obstacle.

    Attributes:
        inner: the float32 solver; its rtol should be at least 1e-6. Its atol is in b's units.
        rounds: how often the residual is computed and reduced; each gains inner.rtol. One
            round is a solve in float32: enough for a correction to a near solution.
    """

    inner: GCR
    rounds: int = 2

    def solve(self, A: Operator, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """Returns x with A x = b; needs the float32 product of A."""
        if A.single is None:
            raise ValueError("Refined needs an operator with a float32 product")
        diagonal = None if A.diagonal is None else A.diagonal.astype(jnp.float32)
        low = Operator(A.single, diagonal)

        def correction(rest):
            largest = jnp.max(jnp.abs(rest))
            scale = jnp.where(largest > 0, largest, 1)
            solver = replace(self.inner, atol=(self.inner.atol / scale).astype(jnp.float32))
            return scale * solver.solve(low, (rest / scale).astype(jnp.float32)).astype(b.dtype)

        x = correction(b)
        for _ in range(self.rounds - 1):
            x = x + correction(b - A.product(x))
        return x


@dataclass(frozen=True)
class CG:
    """Conjugate gradients, for symmetric positive definite A; on pytrees.

    Where A is not so, or the iterations run out, it returns what it has (`relative_residual`).

    Attributes:
        rtol: stops when |b - A x| <= rtol |b|.
        max_steps: the most products with A.
    """

    rtol: float = 1e-5
    max_steps: int = 100

    def __post_init__(self):
        _check_steps(self.max_steps)

    def solve(self, A: Operator, b: PyTree) -> PyTree:
        """Returns x with A x = b to the tolerance, starting from zero."""
        return cg(A.product, b, tol=self.rtol, maxiter=self.max_steps)[0]


@dataclass(frozen=True)
class Neumann:
    """The truncated Neumann series x = step sum_k (I - step A)^k b, k = 0 .. max_steps; on pytrees.

    It converges where step is below 2 over A's largest eigenvalue, and no eigenvalue is negative.
    """

    step: float = 1e-2
    max_steps: int = 100

    def __post_init__(self):
        _check_steps(self.max_steps)

    def solve(self, A: Operator, b: PyTree) -> PyTree:
        """Returns the sum of the series."""

        def term(_, carry):
            total, power = carry
            power = jax.tree.map(lambda p, h: p - self.step * h, power, A.product(power))
            return jax.tree.map(jnp.add, total, power), power

        total, _ = jax.lax.fori_loop(0, self.max_steps, term, (b, b))
        return jax.tree.map(lambda x: self.step * x, total)


def _check_steps(max_steps: int) -> None:
    if max_steps < 1:
        raise ValueError(f"max_steps={max_steps}: must be at least 1")


def relative_residual(A: Operator, x: PyTree, b: PyTree) -> Float[Array, ""]:
    """How far a solve is from its equation, |A x - b| / |b|; all leaves together."""
    gap = norm(jax.tree.map(jnp.subtract, A.product(x), b))
    scale = norm(b)
    return gap / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)


def norm(tree: PyTree) -> Float[Array, ""]:
    """The 2-norm of all leaves together."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
