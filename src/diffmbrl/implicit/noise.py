"""Stage: theorem 5, corollaries 2 and 3 of Gehring et al. 2021 on a domain's data, in training.

Runs at eta 0.95 and the published rates. At some steps of each: `ratio`, that is
E|d theta|^2 / |E d theta|^2 of the next update at first order in the rate, over batches drawn with
replacement as they are run; `stated`, theorem 5's formula; `each_once`, n/k, corollary 2;
`spread`, r_max / r_min of corollary 3; `minority`, the share of points whose residual has the
rarer sign.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl import registry
from diffmbrl.implicit import moments, trace, train
from diffmbrl.implicit.metrics import ETA
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import write_parquet

USES = {
    "domain": "implicit.domains",
    "=explicit": "implicit.parameterizations",
    "=implicit": "implicit.parameterizations",
}
WAYS = ("explicit", "implicit")


def run(job: Job) -> None:
    """Settings: seeds, updates, batch_size, measurements, offsets."""
    s = job.settings
    domain = registry.load("implicit.domains", s["domain"]).DOMAIN
    data = train.arrays(job.input("dataset"), domain, s["seeds"], s["updates"], s["batch_size"], 1)
    frames = []
    for way in WAYS:
        rate = trace.rate(job.input("selected"), s["domain"], way, ETA)
        frame = trace.runs(
            registry.load("implicit.parameterizations", way).models(domain.n_features),
            trace.axes(s["seeds"], [rate], [ETA], s["offsets"]),
            data,
            s["updates"],
            s["updates"] // math.gcd(s["updates"], s["measurements"]),
            measure(precondition if way == "implicit" else None),
            threads=job.threads,
            label=f"noise {s['domain']} {way}",
        )
        frames.append(trace.labelled(frame, s["seeds"], domain=s["domain"], parameterization=way))
    frame = pd.concat(frames, ignore_index=True)
    k, n = s["batch_size"], frame.pop("points")
    for name in ("ratio", "stated"):
        frame[name] = moments.ratio(n, k, frame[name], replaced=True)
    write_parquet(frame.assign(each_once=n / k), job.outputs["noise"])


def measure(precondition: Callable | None) -> trace.Measure:
    """Quotients sum |u_i|^2 / |sum u_i|^2 of updates u_i at first order, and the residuals' spread.

    Args:
        precondition: gives P x for columns x from eta, parameters and theta; None: P = I.
    """

    def measured(config: dict, data: dict, state: dict) -> dict[str, Any]:
        points = {name: leaf[config["seed"]] for name, leaf in data["train"].items()}
        X, theta = points["features"].T, state["theta"]
        rho = theta @ X - points["returns"] - config["reward_offset"] * points["discounts"]
        each = rho[None] * X
        if precondition is None:
            updates = sizes = each
        else:
            updates = precondition(config["eta"], state["params"], theta, each)
            sizes = each.sum(0, keepdims=True)
        inside, size = jnp.arange(len(rho)) < points["count"], jnp.abs(rho)
        negative = jnp.sum(inside & (rho < 0)) / points["count"]
        return {
            "ratio": _quotient(updates),
            "stated": _quotient(sizes),
            "spread": jnp.max(size) / jnp.min(jnp.where(inside, size, jnp.inf)),
            "minority": jnp.minimum(negative, 1 - negative),
            "points": points["count"],
        }

    return measured


def _quotient(updates: Float[Array, "d n"]) -> Float[Array, ""]:
    return jnp.sum(updates**2) / jnp.sum(updates.sum(axis=1) ** 2)


def precondition(
    eta: Array, params: dict, theta: Float[Array, " K"], x: Float[Array, "K n"]
) -> Float[Array, "K n"]:
    """P x (theorem 1) of the model whose values are theta."""
    S = jax.nn.softmax(params["F"][:, 0], axis=-1)
    D = jnp.sum(S**2 * (theta[None] - (S @ theta)[:, None]) ** 2, axis=1)
    A = jnp.eye(len(theta)) - eta * S
    back = jnp.linalg.solve(A.T, x)
    return jnp.linalg.solve(A, (eta**2 * D + 1)[:, None] * back)
