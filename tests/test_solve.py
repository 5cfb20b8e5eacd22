"""The differentiable solve: every method and adjoint in one table, under jit, vmap and grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl import solve
from diffmbrl.solve import (
    GCR,
    Direct,
    Elimination,
    Exact,
    Identity,
    Iterative,
    Newton,
    Operator,
    Picard,
    Refined,
    fixed_point,
)

METHODS = {
    "picard": Picard(atol=1e-13),
    "newton_direct": Newton(Direct()),
    "newton_gcr": Newton(GCR(rtol=1e-13)),
    "affine_direct": Newton(Direct(), max_steps=1),
    "affine_gcr": Newton(GCR(rtol=1e-13), max_steps=1),
    "affine_elimination": Newton(Elimination(), max_steps=1),
    "affine_refined": Newton(Refined(GCR(rtol=1e-5, atol=1e-14), rounds=4), max_steps=1),
}
ADJOINTS = {
    "exact": Exact(),
    "iterative": Iterative(GCR(rtol=1e-13)),
    "refined": Iterative(Refined(GCR(rtol=1e-5, atol=1e-14), rounds=4)),
}


def affine(x, args):
    b, A = args
    return b + 0.8 * (A @ x)


def soft(x, args):
    b, A = args
    return 0.1 * jax.nn.logsumexp((b[:, None] + 0.8 * A * x[None, :]) / 0.1, axis=1)


@pytest.fixture
def problem():
    key = jax.random.PRNGKey(0)
    b = jax.random.normal(key, (6,))
    A = jax.nn.softmax(jax.random.normal(jax.random.fold_in(key, 1), (6, 6)), axis=-1)
    return b, A


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_affine_value_and_gradient_in_closed_form(problem, method, adjoint):
    b, A = problem
    weights = jnp.arange(1.0, 7.0)

    @jax.jit
    def loss(b, A):
        found = fixed_point(
            affine, jnp.zeros(6), (b, A), method=METHODS[method], adjoint=ADJOINTS[adjoint]
        )
        return weights @ found.value

    inverse = np.linalg.inv(np.eye(6) - 0.8 * np.asarray(A))
    value, (grad_b, grad_A) = jax.value_and_grad(loss, argnums=(0, 1))(b, A)
    x = inverse @ np.asarray(b)
    np.testing.assert_allclose(value, weights @ x, rtol=1e-10)
    adjoint_vector = inverse.T @ np.asarray(weights)
    np.testing.assert_allclose(grad_b, adjoint_vector, rtol=1e-8)
    np.testing.assert_allclose(grad_A, 0.8 * np.outer(adjoint_vector, x), rtol=1e-8)


@pytest.mark.parametrize("method", ["picard", "newton_direct", "newton_gcr"])
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_nonlinear_gradient_by_finite_differences(problem, method, adjoint, rank_promotion_allowed):
    b, A = problem

    @jax.jit
    def loss(b):
        found = fixed_point(
            soft, jnp.zeros(6), (b, A), method=METHODS[method], adjoint=ADJOINTS[adjoint]
        )
        return jnp.sum(found.value**2)

    gradient = jax.jit(jax.grad(loss))(b)
    for i in range(6):
        step = 1e-6 * jnp.eye(6)[i]
        slope = (loss(b + step) - loss(b - step)) / 2e-6
        assert gradient[i] == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("method", ["picard", "newton_direct", "affine_gcr", "affine_refined"])
def test_arguments_may_be_numbers_and_indices(problem, method):
    b, A = problem
    order = jnp.array([2, 0, 1, 5, 4, 3])

    def value(b, scale):
        found = fixed_point(
            lambda x, args: args[0] + args[1] * (A @ x)[args[2]], jnp.zeros(6), (b, scale, order),
            method=METHODS[method], adjoint=ADJOINTS["refined"],
        )  # fmt: skip
        return found.value.sum()

    inverse = np.linalg.inv(np.eye(6) - 0.8 * np.asarray(A)[np.asarray(order)])
    found, gradient = jax.jit(jax.value_and_grad(value))(b, 0.8)
    np.testing.assert_allclose(found, (inverse @ np.asarray(b)).sum(), rtol=1e-10)
    np.testing.assert_allclose(gradient, inverse.sum(0), rtol=1e-8)


def test_vmap_equals_one_by_one(problem):
    b, A = problem
    stack = jnp.stack([b, 2 * b, -b])

    @jax.jit
    def value(b):
        return fixed_point(
            affine, jnp.zeros(6), (b, A), method=METHODS["affine_gcr"], adjoint=Exact()
        ).value

    together = jax.vmap(value)(stack)
    np.testing.assert_allclose(together, jnp.stack([value(b) for b in stack]), rtol=1e-12)


def test_identity_adjoint_by_definition(problem):
    b, A = problem

    def loss(b):
        found = fixed_point(
            affine, jnp.zeros(6), (b, A), method=METHODS["affine_direct"], adjoint=Identity()
        )
        return jnp.sum(found.value)

    np.testing.assert_allclose(jax.grad(loss)(b), jnp.ones(6))


def test_preconditioner_changes_speed_only(problem):
    b, A = problem
    diagonal = 1 - 0.8 * jnp.diag(A)
    for method in ("newton_gcr", "affine_gcr"):
        plain, scaled = (
            fixed_point(
                affine, jnp.zeros(6), (b, A), method=METHODS[method],
                adjoint=Exact(), diagonal=d,
            ).value
            for d in (None, diagonal)
        )  # fmt: skip
        np.testing.assert_allclose(plain, scaled, rtol=1e-10)


def test_failure_is_data(problem):
    b, A = problem
    short = fixed_point(affine, jnp.zeros(6), (b, A), method=Picard(max_steps=2), adjoint=Exact())
    assert int(short.result) == solve.MAX_STEPS
    assert int(short.steps) == 2
    broken = fixed_point(
        affine, jnp.zeros(6), (b * jnp.nan, A), method=METHODS["affine_gcr"], adjoint=Exact()
    )
    assert int(broken.result) == solve.NON_FINITE
    good = fixed_point(affine, jnp.zeros(6), (b, A), method=METHODS["picard"], adjoint=Exact())
    assert int(good.result) == solve.CONVERGED


def test_gcr_needs_its_memory_no_more_than_dimension():
    """On an n x n system it is exact after n products, as GMRES is."""
    key = jax.random.PRNGKey(1)
    matrix = jnp.eye(5) + 0.3 * jax.random.normal(key, (5, 5))
    b = jnp.arange(1.0, 6.0)
    x = GCR(rtol=0.0, atol=1e-12, max_steps=6).solve(Operator(lambda v: matrix @ v), b)
    np.testing.assert_allclose(matrix @ x, b, atol=1e-10)
    restarted = GCR(rtol=1e-12, memory=2, max_steps=500).solve(Operator(lambda v: matrix @ v), b)
    np.testing.assert_allclose(matrix @ restarted, b, atol=1e-9)
