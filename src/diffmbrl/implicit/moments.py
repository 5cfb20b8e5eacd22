"""Relative second moments of SGD's updates (Gehring et al. 2021, theorem 5, corollaries 2 and 3).

At first order in the rate an update of theta is a mean over a batch of vectors u_i, one per data
point: rho_i phi_i explicitly, P rho_i phi_i implicitly. Of interest is E|mean|^2 / |E mean|^2.
"""

import itertools

import numpy as np
from jaxtyping import Float


def quotient(updates: Float[np.ndarray, "d n"]) -> float:
    """sum_i |u_i|^2 / |sum_i u_i|^2."""
    total = updates.sum(axis=1)
    return float((updates**2).sum() / (total @ total))


def ratio(n: int, k: int, quotient: float, replaced: bool) -> float:
    """E|mean|^2 / |E mean|^2 of a batch of k of n points (theorem 5), from their quotient.

    Args:
        n: data points.
        k: points per batch.
        quotient: sum |u_i|^2 / |sum u_i|^2.
        replaced: whether a batch is drawn with replacement, as the experiments are.
    """
    if replaced:
        return (k - 1) / k + n * quotient / k
    return n * (k - 1) / (k * (n - 1)) + (n - k) * n * quotient / (k * (n - 1))


def enumerated(updates: Float[np.ndarray, "d n"], k: int, replaced: bool) -> float:
    """The same by every batch that there is."""
    n = updates.shape[1]
    batches = (
        itertools.product(range(n), repeat=k) if replaced else itertools.combinations(range(n), k)
    )
    means = updates[:, np.array(list(batches))].mean(axis=2)
    mean = means.mean(axis=1)
    return float((means**2).sum(axis=0).mean() / (mean @ mean))
