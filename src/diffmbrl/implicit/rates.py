"""Stage: what the theory says of a domain's own data at the start of training; nothing is trained.

Two tables. `rates` has one row per seed, parameterization and eta: what assumption 1 asks for, and
the largest stable rate, 2 / lambda_max(P G) with G = XX'/n (P = I explicitly), beyond which the
expected update grows along some direction. `contraction` has one more axis, the reward offset:
what share of the residual's 1-part, and of the rest, one expected update takes away.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from diffmbrl import registry
from diffmbrl.implicit import train
from diffmbrl.implicit.preconditioner import Model, solve
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import write_parquet

USES = {"domain": "implicit.domains"}
RELEVANT = 1e-3  # of the largest eigenvalue of P G; smaller ones are hardly trained at all

Array = np.ndarray
Rows = Iterator[dict[str, Any]]


def run(job: Job) -> None:
    """Settings: seeds, etas, reward_offsets of the implicit parameterization."""
    s = job.settings
    domain = registry.load("implicit.domains", s["domain"]).DOMAIN
    data = train.arrays(job.input("dataset"), domain, s["seeds"], 1, 1, 1)
    rates: list[dict] = []
    contraction: list[dict] = []
    for i, seed in enumerate(s["seeds"]):
        points = {name: leaf[i] for name, leaf in data["train"].items()}
        points = {name: leaf[: points["count"]] for name, leaf in points.items() if leaf.ndim}
        X = points["features"].T
        labels = {"domain": s["domain"], "seed": seed}
        G, facts = X @ X.T / X.shape[1], assumption(X)
        explicit = spectrum(G) | {"perron": np.nan}
        for eta in s["etas"]:
            model = solve(data["w"][i][:, 0], data["F"][i][:, 0], eta)
            implicit = spectrum(model.root.T @ G @ model.root)
            implicit["perron"] = X.shape[0] * model.perron
            found = {
                way: labels | {"eta": eta, "parameterization": way} | facts | row
                for way, row in (("explicit", explicit), ("implicit", implicit))
            }
            rates += found.values()
            for offset in s["reward_offsets"]:
                rho = X.T @ model.theta - points["returns"] - offset * points["discounts"]
                here = labels | {"eta": eta, "reward_offset": offset}
                here["residual_norm"] = np.linalg.norm(rho)
                contraction += [here | row for row in contractions(X, X @ rho, model, found)]
    write_parquet(pd.DataFrame(rates), job.outputs["rates"])
    write_parquet(pd.DataFrame(contraction), job.outputs["contraction"])


def assumption(X: Array) -> dict[str, float]:
    """Assumption 1's quantities of features X, (K, n).

    `growth` is the exponent with which |XX'| grows from the first half of the points to all.
    """
    K, n = X.shape
    norm, before = (np.linalg.eigvalsh(part @ part.T)[-1] for part in (X, X[:, : n // 2]))
    return {
        "n": n,
        "features": K,
        "feature_norm": np.linalg.norm(X, axis=0).max(),
        "covariance_norm": norm,
        "ones_share": (X.sum(0) ** 2).sum() / n,
        "growth": np.log(norm / before) / np.log(n / (n // 2)),
    }


def spectrum(PG: Array) -> dict[str, float]:
    """Of a symmetric matrix with the eigenvalues of P G: extremes, and the stable rate."""
    eigenvalues = np.linalg.eigvalsh(PG)
    relevant = eigenvalues[eigenvalues > RELEVANT * eigenvalues[-1]]
    return {
        "stable_rate": 2 / eigenvalues[-1],
        "largest": eigenvalues[-1],
        "smallest": relevant.min(),
        "trained": len(relevant),
    }


def contractions(X: Array, r: Array, model: Model, found: Mapping) -> Rows:
    """Shares of r's 1-part, and of the rest along itself, that one expected update takes away.

    `rate` is `equal` (the rate 1 for both: a share per unit of rate), or `half`, half of each
    parameterization's own stable rate.
    """
    for way, row in found.items():
        step = X @ (X.T @ (r if way == "explicit" else model.precondition(r))) / X.shape[1]
        others = r - r.mean()
        ones, rest = step.mean() / r.mean(), (others @ step) / (others @ others)
        for name, rate in (("equal", 1.0), ("half", row["stable_rate"] / 2)):
            yield {
                "parameterization": way,
                "rate": name,
                "ones": rate * ones,
                "rest": rate * rest,
            }
