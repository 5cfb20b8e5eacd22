"""Stage: the theorems of Gehring et al. 2021 on random small problems, in double precision.

One row per instance and point of a check. `check` names the statement; `measured` is what was
computed, `stated` what the statement says of it, `x` what the check runs over:

- `gradient` (section 2.3), `jacobian` (theorem 1): relative errors of the implicit derivative
  against central differences, and of J J' against P; stated 0.
- `unrolled` (section 2.3): relative error of the derivative through x iterations of the solver.
- `bound` (theorem 1): lambda_min(P), stated the constant c below it.
- `flow` (corollary 1): L - L* at time x, stated its bound.
- `decrease_explicit`, `decrease_implicit` (theorems 2, 3): E[dL] / alpha at alpha = x, stated
  -|r|^2 / n and -<P r, r> / n.
- `level` (theorem 2): |r|^2, stated 2 |XX'| L, which it is at most.
- `expansion_inverse`, `expansion_P` (eq. 5): relative error of the leading term at 1 - eta = x.
- `ones` (theorem 4): the factor v'(eta^2 D + I)v at 1 - eta = x, measured from the change of r's
  1-part.
- `moments_explicit`, `moments_implicit` (theorem 5): E|d theta|^2 / |E d theta|^2 at 1 - eta = x.
- `tabular_explicit`, `tabular_implicit` (corollaries 2, 3): the same with one-hot features.
"""

import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.integrate import solve_ivp

from diffmbrl.implicit.preconditioner import pull, smallest_allowed, solve
from diffmbrl.implicit.theory_sgd import (
    Rows,
    batches,
    decrease,
    draw,
    expansion,
    ones,
    tabular,
)
from diffmbrl.implicit.values import Implicit
from diffmbrl.pipeline.stage import Job
from diffmbrl.solve import Direct, Exact, Newton
from diffmbrl.tables import write_parquet

SOLVED = Implicit(Newton(Direct(), rtol=0.0, atol=1e-12, max_steps=1), Exact())


def run(job: Job) -> None:
    """Settings: theory."""
    plan, rows = job.settings["theory"], []
    checks = (derivatives, unrolled, bound, flow, decrease, expansion, ones, batches, tabular)
    for number, check in enumerate(checks):
        rng = np.random.default_rng([plan["seed"], number])
        rows += list(check(plan, rng))
    columns = {"case": "", "features": 0, "batch": 0, "gap": np.nan}
    frame = pd.DataFrame([columns | row for row in rows])
    write_parquet(frame, job.outputs["theory"])


def derivatives(plan: Mapping, rng: np.random.Generator) -> Rows:
    """The implicit derivative against differences, and J J' against P."""

    def theta(w, F, eta):
        return SOLVED.solve({"w": w[:, None], "F": F[:, None]}, eta, jnp.zeros(len(w))).value

    jacobian = jax.jit(jax.vmap(jax.jacrev(theta, (0, 1))))
    for K in plan["features"]:
        count = plan["instances"]
        scale, eta = 10 ** rng.uniform(-1, 2, count), rng.uniform(0, 0.999, count)
        w, F = draw(rng, count, K, scale)
        by_w, by_F = (np.asarray(part) for part in jacobian(w, F, eta))
        J = np.concatenate([by_w, by_F.reshape(count, K, -1)], axis=-1)
        P = solve(w, F, eta).P
        off = np.abs(J @ J.swapaxes(1, 2) - P).max((1, 2)) / np.abs(P).max((1, 2))
        step, dw, dF = 1e-6, rng.normal(size=w.shape), rng.normal(size=F.shape)
        forth, back = (solve(w + s * step * dw, F + s * step * dF, eta).theta for s in (1, -1))
        slope = (by_w @ dw[..., None])[..., 0] + np.einsum("nijk,njk->ni", by_F, dF)
        error = np.linalg.norm((forth - back) / (2 * step) - slope, axis=-1)
        for i in range(count):
            size = np.linalg.norm(slope[i]) + np.linalg.norm(J[i]) * 1e-3
            common = {"instance": i, "features": K, "x": eta[i], "stated": 0.0}
            yield common | {"check": "jacobian", "measured": off[i]}
            yield common | {"check": "gradient", "measured": error[i] / size}


def unrolled(plan: Mapping, rng: np.random.Generator) -> Rows:
    """The derivative through a number of Picard iterations, against the implicit one."""
    K, count, eta = 5, plan["few"], 0.9
    w, F = draw(rng, count, K, np.ones(count))

    def iterated(w, F, steps):
        S = jax.nn.softmax(F, axis=-1)
        return jax.lax.fori_loop(0, steps, lambda _, theta: w + eta * S @ theta, w)

    def exact(w, F):
        return jnp.linalg.solve(jnp.eye(K) - eta * jax.nn.softmax(F, axis=-1), w)

    target = np.asarray(jax.jit(jax.vmap(jax.jacfwd(exact, 1)))(w, F)).reshape(count, -1)
    through = jax.jit(jax.vmap(jax.jacfwd(iterated, 1), (0, 0, None)))
    for steps in (1, 3, 10, 30, 100, 300):
        found = np.asarray(through(w, F, jnp.asarray(steps)))
        error = np.linalg.norm(found.reshape(count, -1) - target, axis=1)
        for i, value in enumerate(error / np.linalg.norm(target, axis=1)):
            yield {
                "check": "unrolled",
                "instance": i,
                "features": K,
                "x": steps,
                "measured": value,
                "stated": eta**steps,
            }


def bound(plan: Mapping, rng: np.random.Generator) -> Rows:
    """The smallest eigenvalue of P against the constant of theorem 1."""
    each = -(-plan["bounds"] // len(plan["features"]))
    for K in plan["features"]:
        scale, eta = 10 ** rng.uniform(-1, 2, each), rng.uniform(0, 0.999, each)
        # One column takes all the probability in a third of them: there |S| comes near sqrt(K).
        w, F = draw(rng, each, K, scale)
        F[::3, :, 0] += 30 * scale[::3, None]
        model = solve(w * (rng.random((each, 1)) < 0.5), F, eta)
        smallest = np.linalg.svd(model.root, compute_uv=False)[:, -1] ** 2
        for i in range(each):
            yield {
                "check": "bound",
                "instance": i,
                "features": K,
                "x": eta[i],
                "measured": smallest[i],
                "stated": smallest_allowed(K, eta[i]),
            }


def flow(plan: Mapping, rng: np.random.Generator) -> Rows:
    """Gradient flow in (w, F) from random starts, with data of full and of deficient rank."""
    K, eta = 4, 0.9
    for i, (case, n) in itertools.product(range(plan["few"]), (("full", 8), ("deficient", 3))):
        X, y = rng.normal(size=(K, n)) / np.sqrt(K), 3 * rng.normal(size=n)
        w, F = (part[0] for part in draw(rng, 1, K, np.array([1.0])))
        eigenvalues = np.linalg.eigvalsh(X @ X.T)
        mu = eigenvalues[eigenvalues > 1e-9 * eigenvalues[-1]].min()
        rate = 2 * smallest_allowed(K, eta) * mu
        least = 0.5 * ((X.T @ np.linalg.lstsq(X.T, y, rcond=None)[0] - y) ** 2).sum()
        times = np.linspace(0, 6 / rate, 25)

        def velocity(_, state, X=X, y=y):
            model = solve(state[:K], state[K:].reshape(K, K), eta)
            by_w, by_F = pull(model, X @ (X.T @ model.theta - y))
            return -np.concatenate([by_w, by_F.ravel()])

        found = solve_ivp(
            velocity,
            (0, times[-1]),
            np.concatenate([w, F.ravel()]),
            "LSODA",
            times,
            rtol=1e-10,
            atol=1e-12,
        )
        losses = [
            0.5 * ((X.T @ solve(s[:K], s[K:].reshape(K, K), eta).theta - y) ** 2).sum() - least
            for s in found.y.T
        ]
        for t, loss in zip(times, losses, strict=True):
            yield {
                "check": "flow",
                "case": case,
                "instance": i,
                "features": K,
                "x": t * rate,
                "measured": loss / losses[0],
                "stated": np.exp(-rate * t),
            }
