"""Stage: figure 2 of Gehring et al. 2021, its residual split by how much a feature was trained.

Runs at eta 0.95 and the published rates, over every reward offset. A feature is untrained where
its sum over the points of all batches is below a bar: of one-hot features, where its state was
drawn fewer times. The squared residual of an evaluated point is split by the share of its features
that is untrained, so that

    residual_norm^2 = trained^2 + untrained^2 + featureless^2,

where `featureless` is of points without features. A domain that is trained on first states only
is trained on all states as well, at the same rates; `data` tells which.
"""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from diffmbrl import registry
from diffmbrl.implicit import trace, train
from diffmbrl.implicit.domain import Domain
from diffmbrl.implicit.metrics import ETA
from diffmbrl.implicit.names import ALL, PARTS, PUBLISHED
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import write_parquet

USES = {"domain": "implicit.domains", "parameterization": "implicit.parameterizations"}


def run(job: Job) -> None:
    """Settings: seeds, updates, batch_size, reward_offsets, untrained_below."""
    domain = registry.load("implicit.domains", job.settings["domain"]).DOMAIN
    frames = [split_runs(job, domain, PUBLISHED)]
    if domain.first_states_only:
        frames.append(split_runs(job, replace(domain, first_states_only=False), ALL))
    write_parquet(pd.concat(frames, ignore_index=True), job.outputs["coverage"])


def split_runs(job: Job, domain: Domain, name: str) -> pd.DataFrame:
    """The runs on one set of data: one row per bar, run, and first and last step."""
    s = job.settings
    entry = registry.load("implicit.parameterizations", s["parameterization"])
    data = train.arrays(job.input("dataset"), domain, s["seeds"], s["updates"], s["batch_size"], 1)
    bars, evaluated = s["untrained_below"], data["evaluation"]["features"]
    bare = np.stack([drawn(data) < bar for bar in bars], axis=1)
    data["untrained"], data["featured"] = shares(evaluated, bare)
    rate = trace.rate(job.input("selected"), s["domain"], s["parameterization"], ETA)
    found = trace.runs(
        entry.models(domain.n_features),
        trace.axes(s["seeds"], [rate], [ETA], s["reward_offsets"]),
        data,
        s["updates"],
        s["updates"],
        parts,
        threads=job.threads,
        label=f"coverage {s['domain']} {s['parameterization']}, {name}",
    )
    mass = evaluated.sum(axis=2)[:, None] * data["untrained"]
    share = mass.sum(axis=2) / evaluated.sum(axis=(1, 2))[:, None]
    frames = []
    for i, bar in enumerate(bars):
        frame = found.drop(columns=list(PARTS)).assign(untrained_below=float(bar))
        frame["untrained_share"] = share[frame["seed"], i]
        frame["untrained_features"] = bare.sum(axis=2)[frame["seed"], i]
        frames.append(frame.assign(**{part: np.stack(found[part])[:, i] for part in PARTS}))
    labels = {name: s[name] for name in ("domain", "parameterization")}
    return trace.labelled(pd.concat(frames), s["seeds"], **labels, data=name)


def drawn(data: dict) -> np.ndarray:
    """Sum of each feature over the points of all batches, (seeds, K)."""
    points, batches = data["train"]["features"], data["batches"].reshape(len(data["batches"]), -1)
    counts = np.stack([np.bincount(b, minlength=points.shape[1]) for b in batches])
    return np.einsum("sn,snk->sk", counts.astype(float), points)


def shares(features: np.ndarray, untrained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of each point's features that is untrained, and whether the point has features.

    Args:
        features: (seeds, points, K), not negative.
        untrained: which features are, (seeds, bars, K).

    Returns:
        Arrays of shape (seeds, bars, points) and (seeds, 1, points).
    """
    total = features.sum(axis=2)[:, None]
    part = np.einsum("spk,sbk->sbp", features, untrained.astype(float))
    return part / np.where(total > 0, total, 1.0), (total > 0).astype(float)


def parts(config: dict, data: dict, state: dict) -> dict[str, Any]:
    """Norms of the residual on trained, untrained and no features, one per bar."""
    seed = config["seed"]
    points = {name: leaf[seed] for name, leaf in data["evaluation"].items()}
    target = points["returns"] + config["reward_offset"] * points["discounts"]
    square = (points["features"] @ state["theta"] - target) ** 2
    untrained, featured = data["untrained"][seed], data["featured"][seed]
    weights = (featured - untrained, untrained, jnp.broadcast_to(1 - featured, untrained.shape))
    return {name: jnp.sqrt(weight @ square) for name, weight in zip(PARTS, weights, strict=True)}
