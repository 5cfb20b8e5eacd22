"""Checks of `implicit.theory` that are about SGD's updates and about eta near 1.

Each takes the stage's settings and a generator, and yields rows of its table.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diffmbrl.implicit import moments, preconditioner
from diffmbrl.implicit.preconditioner import Model, pull, solve

Rows = Iterator[dict[str, Any]]


def draw(rng: np.random.Generator, count: int, K: int, scale: np.ndarray) -> tuple:
    """Rewards and logits of random models, logits of the given scales."""
    return rng.normal(size=(count, K)), scale[:, None, None] * rng.normal(size=(count, K, K))


def decrease(plan: Mapping, rng: np.random.Generator) -> Rows:
    """Expected change of the loss over every batch of k of n points, as the rate goes to 0."""
    K, n, k, eta = 4, 6, 2, 0.9
    subsets = np.array(list(itertools.combinations(range(n), k)))
    for i in range(plan["few"]):
        X, y = rng.normal(size=(K, n)) / np.sqrt(K), 3 * rng.normal(size=n)
        w, F = (part[0] for part in draw(rng, 1, K, np.array([1.0])))
        model = solve(w, F, eta)
        rho = X.T @ model.theta - y
        r, before = X @ rho, 0.5 * rho @ rho
        common = {"instance": i, "features": K, "batch": k}
        top = np.linalg.eigvalsh(X @ X.T)[-1]
        yield common | {"check": "level", "x": 0, "measured": r @ r, "stated": 2 * top * before}
        g = np.stack([X[:, s] @ rho[s] / k for s in subsets])
        by_w, by_F = pull(Model(*(np.broadcast_to(a, (len(g), *a.shape)) for a in model)), g)
        for alpha in 10.0 ** np.arange(-2, -7, -1):
            moved = model.theta - alpha * g
            losses = 0.5 * ((moved @ X - y) ** 2).sum(-1)
            yield common | {
                "check": "decrease_explicit",
                "x": alpha,
                "measured": (losses - before).mean() / alpha,
                "stated": -(r @ r) / n,
            }
            moved = solve(w - alpha * by_w, F - alpha * by_F, eta).theta
            losses = 0.5 * ((moved @ X - y) ** 2).sum(-1)
            yield common | {
                "check": "decrease_implicit",
                "x": alpha,
                "measured": (losses - before).mean() / alpha,
                "stated": -(r @ model.P @ r) / n,
            }


def limits(
    plan: Mapping, rng: np.random.Generator, sizes: Sequence[int] = (6,)
) -> Iterator[tuple[int, float, float, Model]]:
    """Random models as eta goes to 1, of several spectral gaps: instance, gap, 1 - eta, model."""
    for i, K, hold in itertools.product(range(plan["few"]), sizes, (0.0, 0.5, 0.9)):
        w, F = draw(rng, 1, K, np.array([1.0]))
        S = hold * np.eye(K) + (1 - hold) * solve(w, F, 0.0).S
        gap = 1 - np.sort(np.abs(np.linalg.eigvals(S[0])))[-2]
        for x in plan["one_minus_eta"]:
            yield i, gap, x, Model(*(part[0] for part in solve(w, np.log(S), 1 - x)))


def expansion(plan: Mapping, rng: np.random.Generator) -> Rows:
    """Eq. 5 and what follows from it for P."""
    for i, gap, x, model in limits(plan, rng):
        K = len(model.theta)
        v = preconditioner.stationary(model.S)
        leading = {
            "expansion_inverse": np.outer(np.ones(K), v) / x,
            "expansion_P": np.full((K, K), model.perron / x**2),
        }
        for (check, guess), exact in zip(leading.items(), (model.inverse, model.P), strict=True):
            error = np.linalg.norm(exact - guess, 2) / np.linalg.norm(exact, 2)
            yield {
                "check": check,
                "instance": i,
                "features": K,
                "gap": gap,
                "x": x,
                "measured": error,
                "stated": x / gap,
            }


def ones(plan: Mapping, rng: np.random.Generator) -> Rows:
    """The expected change of the 1-part of r, r of one sign, at first order in alpha."""
    for i, gap, x, model in limits(plan, rng, sizes=(3, 6, 12, 24)):
        K, n = len(model.theta), 12
        X = rng.dirichlet(np.full(K, 0.3), n).T
        r = X @ rng.uniform(0.5, 1.5, n)
        unit = -(r.mean() / x**2) * (X.sum(0) ** 2).sum() / n
        change = -(X @ (X.T @ model.precondition(r))).mean() / n
        yield {
            "check": "ones",
            "instance": i,
            "features": K,
            "gap": gap,
            "x": x,
            "measured": change / unit,
            "stated": model.perron,
        }


def batches(plan: Mapping, rng: np.random.Generator) -> Rows:
    """Theorem 5 against every batch there is, with and without replacement."""
    n = 6
    for (i, gap, x, model), k in itertools.product(limits(plan, rng), (1, 2, 4)):
        K = len(model.theta)
        X, rho = rng.normal(size=(K, n)) / np.sqrt(K), rng.uniform(0.5, 1.5, n)
        X = np.abs(X)
        yield from _moments(model, X, rho, k, "moments", i, gap, x)


def tabular(plan: Mapping, rng: np.random.Generator) -> Rows:
    """Corollaries 2 and 3: each of K states visited once, residuals of one sign and of both."""
    for (i, gap, x, model), k in itertools.product(limits(plan, rng), (1, 2, 4)):
        K = len(model.theta)
        spread = rng.uniform(1, 10)
        rho = np.exp(rng.uniform(0, np.log(spread), K))
        signs = np.where(rng.permutation(K) < K // 2, -1.0, 1.0)
        yield from _moments(model, np.eye(K), rho, k, "tabular", i, gap, x, "one sign")
        yield from _moments(model, np.eye(K), rho * signs, k, "tabular", i, gap, x, "both signs")


def _moments(model, X, rho, k, name, instance, gap, x, case="") -> Rows:
    n, K = len(rho), len(model.theta)
    each = rho * X
    common = {"instance": instance, "features": K, "batch": k, "gap": gap, "x": x}
    for replaced in (False, True):
        label = f"{case}, {'with' if replaced else 'without'} replacement".strip(", ")
        ways = {"explicit": each, "implicit": model.P @ each}
        for way, steps in ways.items():
            sizes = each if way == "explicit" else each.sum(0, keepdims=True)
            stated = moments.ratio(n, k, moments.quotient(sizes), replaced)
            yield common | {
                "check": f"{name}_{way}",
                "case": label,
                "stated": stated,
                "measured": moments.enumerated(steps, k, replaced),
                "spread": np.abs(rho).max() / np.abs(rho).min(),
            }
