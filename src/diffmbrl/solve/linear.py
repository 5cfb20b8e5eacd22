"""Linear solvers for A x = b, where A is known by its product with a vector."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MatVec = Callable[[Float[Array, " n"]], Float[Array, " n"]]


class LinearSolver(Protocol):
    """Solves A x = b."""

    def solve(
        self, matvec: MatVec, b: Float[Array, " n"], diagonal: Float[Array, " n"] | None = None
    ) -> Float[Array, " n"]:
        """Returns x with A x = b; `diagonal` is about A's diagonal, where it is known."""
        ...


@dataclass(frozen=True)
class Direct:
    """Exact: writes A out as a dense matrix, column by column, and factorises it."""

    def solve(
        self, matvec: MatVec, b: Float[Array, " n"], diagonal: Float[Array, " n"] | None = None
    ) -> Float[Array, " n"]:
        """Returns x with A x = b; O(n^3). `diagonal` is not needed."""
        matrix = jax.vmap(matvec, out_axes=1)(jnp.eye(b.shape[0], dtype=b.dtype))
        return jnp.linalg.solve(matrix, b)


@dataclass(frozen=True)
class Elimination:
    """Exact, for a few unknowns: Gaussian elimination written out, without pivoting.

    For diagonally dominant matrices such as I - gamma P and its transpose, where pivoting is
    not needed.
    Nothing but arithmetic, so batches of small systems run as vector operations instead of
    one library call each; the program grows with n^2.
    """

    def solve(
        self, matvec: MatVec, b: Float[Array, " n"], diagonal: Float[Array, " n"] | None = None
    ) -> Float[Array, " n"]:
        """Returns x with A x = b. `diagonal` is not needed."""
        n = b.shape[0]
        columns = jax.vmap(matvec)(jnp.eye(n, dtype=b.dtype))
        rows = [jnp.append(columns[:, i], b[i]) for i in range(n)]
        for i in range(n):
            rows[i] = rows[i] / rows[i][i]
            rows = [row if k == i else row - row[i] * rows[i] for k, row in enumerate(rows)]
        return jnp.stack([row[n] for row in rows])


@dataclass(frozen=True)
class GCR:
    """Generalised conjugate residuals: in exact arithmetic the iterates of GMRES.

    (Eisenstat, Elman & Schultz 1983.) One product with A an iteration; forgets its directions
    every `memory` iterations. On the small dense systems of this project, tens of times faster
    under XLA on a CPU than a GMRES that rebuilds its least-squares problem (`make bench`).

    Attributes:
        rtol: stops when |b - A x| <= rtol |b| + atol.
        atol: see rtol.
        max_steps: the most products with A; the best x so far is returned then.
        memory: how many directions are kept.
    """

    rtol: float = 1e-10
    atol: float = 0.0
    max_steps: int = 200
    memory: int = 20

    def solve(
        self, matvec: MatVec, b: Float[Array, " n"], diagonal: Float[Array, " n"] | None = None
    ) -> Float[Array, " n"]:
        """Returns x with A x = b to the tolerance, starting from zero.

        `diagonal`, about the diagonal of A, scales the directions (Jacobi preconditioning).
        Where b or A is not finite, so is x: failure shows in the value.
        """
        target = self.rtol * jnp.linalg.norm(b) + self.atol
        kept = jnp.zeros((self.memory, b.shape[0]), b.dtype)

        def unfinished(carry):
            _, r, _, _, k = carry
            return (jnp.linalg.norm(r) > target) & (k < self.max_steps)

        def step(carry):
            x, r, directions, images, k = carry
            z = r if diagonal is None else r / diagonal
            q = matvec(z)
            for _ in range(2):  # once more, since one pass loses orthogonality to rounding
                overlap = images @ q
                q, z = q - overlap @ images, z - overlap @ directions
            scale = 1 / jnp.linalg.norm(q)
            z, q = z * scale, q * scale
            along = q @ r
            keep = jnp.where(k % self.memory == self.memory - 1, 0.0, 1.0)
            return (
                x + along * z,
                r - along * q,
                directions.at[k % self.memory].set(z) * keep,
                images.at[k % self.memory].set(q) * keep,
                k + 1,
            )

        x, *_ = jax.lax.while_loop(unfinished, step, (jnp.zeros_like(b), b, kept, kept, 0))
        return jnp.where(jnp.isfinite(target), x, jnp.nan)
