"""One differentiable solve: x = f(x, args), with a chosen forward method and a chosen adjoint.

The derivative does not depend on how x was found. With J = df/dx at the solution, the implicit
function theorem gives dx/dargs = (I - J)^-1 df/dargs (Gehring et al. 2021, section 2.3;
Nikishin et al. 2022, section 3.2); an `Adjoint` says how (I - J)^-1 is applied in reverse mode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffmbrl.solve.adjoint import Adjoint
from diffmbrl.solve.linear import LinearSolver, Operator

PyTree = Any
Map = Callable[[Float[Array, " n"], PyTree], Float[Array, " n"]]

CONVERGED, MAX_STEPS, NON_FINITE = 0, 1, 2
RESULTS = ("converged", "reached max_steps", "not finite")


class Solution(NamedTuple):
    """A fixed point and how it was found.

    Attributes:
        value: x, shape (n,).
        result: an index into RESULTS; failure is data, never an exception.
        steps: how many iterations the forward method took.
    """

    value: Float[Array, " n"]
    result: Int[Array, ""]
    steps: Int[Array, ""]


class Method(Protocol):
    """A forward method: from a start to a fixed point."""

    def solve(
        self, f: Map, x0: Float[Array, " n"], args: PyTree, diagonal: Float[Array, " n"] | None
    ) -> Solution:
        """Iterates x = f(x, args) from x0; `diagonal` approximates the diagonal of I - J."""
        ...


@dataclass(frozen=True)
class Picard:
    """x <- f(x) until no entry moves by more than atol + rtol |x|; for contractions."""

    rtol: float = 0.0
    atol: float = 1e-10
    max_steps: int = 5000

    def solve(
        self,
        f: Map,
        x0: Float[Array, " n"],
        args: PyTree,
        diagonal: Float[Array, " n"] | None = None,
    ) -> Solution:
        """Iterates from x0."""
        return _iterate(lambda x: f(x, args), f, x0, args, self)


@dataclass(frozen=True)
class Newton:
    """x <- x + (I - J)^-1 (f(x) - x) until the update is small, as for Picard.

    Exact after one step where f is affine: say so with `max_steps=1`, which skips the check.
    Where f takes a maximum over actions, this is policy iteration.
    """

    linear: LinearSolver
    rtol: float = 0.0
    atol: float = 1e-10
    max_steps: int = 50

    def solve(
        self,
        f: Map,
        x0: Float[Array, " n"],
        args: PyTree,
        diagonal: Float[Array, " n"] | None = None,
    ) -> Solution:
        """Iterates from x0."""
        single = _single(args)

        def step(x):
            after, push = jax.linearize(lambda x: f(x, args), x)
            _, push_single = jax.linearize(lambda x: _single(f(x, single)), _single(x))
            A = Operator(lambda v: v - push(v), diagonal, lambda v: v - push_single(v))
            return x + self.linear.solve(A, after - x)

        if self.max_steps > 1:
            return _iterate(step, f, x0, args, self)
        x = step(x0)
        result = jnp.where(jnp.all(jnp.isfinite(x)), CONVERGED, NON_FINITE)
        return Solution(x, result.astype(jnp.int32), jnp.asarray(1))


def _iterate(step, f: Map, x0, args, method) -> Solution:
    def unfinished(carry):
        x, moved, k = carry
        return (k < method.max_steps) & jnp.any(moved > method.atol + method.rtol * jnp.abs(x))

    def go_on(carry):
        x, _, k = carry
        after = step(x)
        return after, jnp.abs(after - x), k + 1

    x, moved, steps = jax.lax.while_loop(
        unfinished, go_on, (x0, jnp.full_like(x0, jnp.inf), jnp.asarray(0))
    )
    small = jnp.all(moved <= method.atol + method.rtol * jnp.abs(x))
    finite = jnp.all(jnp.isfinite(x))
    result = jnp.where(finite, jnp.where(small, CONVERGED, MAX_STEPS), NON_FINITE)
    return Solution(x, result.astype(jnp.int32), steps)


def _single(tree: PyTree) -> PyTree:
    def cast(leaf):
        return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def fixed_point(
    f: Map,
    x0: Float[Array, " n"],
    args: PyTree,
    *,
    method: Method,
    adjoint: Adjoint,
    diagonal: Float[Array, " n"] | None = None,
) -> Solution:
    """Solves x = f(x, args); the value is differentiable with respect to args (reverse mode).

    Args:
        f: a pure function of x and args; it must not close over traced values.
        x0: where to start, for instance the last solution; no gradient flows to it.
        args: a pytree of arrays or numbers, what the gradient is with respect to.
        method: how x is found.
        adjoint: how the gradient is found.
        diagonal: an approximation of the diagonal of I - J, where there is one: iterative linear
            solvers, forward and adjoint, precondition with it. It changes the speed, not the
            solution; no gradient flows to it.
    """
    constants = jax.lax.stop_gradient((x0, diagonal))
    return _fixed_point(f, method, adjoint, constants, jax.tree.map(jnp.asarray, args))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _fixed_point(f, method, adjoint, constants, args):
    x0, diagonal = constants
    return method.solve(f, x0, args, diagonal)


def _forward(f, method, adjoint, constants, args):
    solution = _fixed_point(f, method, adjoint, constants, args)
    return solution, (solution.value, constants, args)


def _backward(f, method, adjoint, saved, cotangent):
    x, constants, args = saved
    _, pull = jax.vjp(lambda x: f(x, args), x)
    single = _single(args)
    _, pull_single = jax.vjp(lambda x: _single(f(x, single)), _single(x))
    A = Operator(lambda v: v - pull(v)[0], constants[1], lambda v: v - pull_single(v)[0])
    weights = adjoint.solve(A, cotangent.value)
    _, pull_args = jax.vjp(lambda args: f(x, args), args)
    return jax.tree.map(jnp.zeros_like, constants), pull_args(weights)[0]


_fixed_point.defvjp(_forward, _backward)
