"""Stage: what held-out trajectories say of each eta, which Gehring et al. 2021 leave open.

The implicit parameterization is trained without one trajectory in `held_out`, at every eta and its
selected rate; `residual_norm` is then of the trajectories left out, on their returns. Evaluation
states, whose true values a user does not know, have no part in it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffmbrl import registry
from diffmbrl.implicit import trace, train
from diffmbrl.implicit.domain import Domain
from diffmbrl.implicit.names import WAY
from diffmbrl.pipeline.stage import Job
from diffmbrl.tables import read_parquet, write_parquet

USES = {"domain": "implicit.domains", "=implicit": "implicit.parameterizations"}


def run(job: Job) -> None:
    """Settings: seeds, etas, updates, batch_size, held_out, offsets."""
    s = job.settings
    domain = registry.load("implicit.domains", s["domain"]).DOMAIN
    data = arrays(job.input("dataset"), domain, s)
    models = registry.load("implicit.parameterizations", WAY).models(domain.n_features)
    rates = pd.read_csv(job.input("selected"))
    rates = rates[(rates["domain"] == s["domain"]) & (rates["parameterization"] == WAY)]
    by_eta = rates.set_index("eta")["learning_rate"]
    grids = [trace.axes(s["seeds"], [by_eta[eta]], [eta], s["offsets"]) for eta in s["etas"]]
    frame = trace.runs(
        models,
        {name: np.concatenate([grid[name] for grid in grids]) for name in grids[0]},
        data,
        s["updates"],
        s["updates"],
        threads=job.threads,
        label=f"choice {s['domain']}",
    )
    write_parquet(trace.labelled(frame, s["seeds"], domain=s["domain"]), job.outputs["choice"])


def arrays(path: Path, domain: Domain, s: Any) -> dict:
    """What every run reads; the evaluation set is of the trajectories left out."""
    data = train.arrays(path, domain, s["seeds"], 1, 1, 1)
    points, counts = data["train"], data["train"]["count"]
    left_out = held_out(path, domain, s["seeds"], s["held_out"], points["returns"].shape)
    present = np.arange(left_out.shape[1]) < counts[:, None]
    data["train"] = pick(points, present & ~left_out)
    data["evaluation"] = pick(points, present & left_out)
    kept = data["train"]["count"]
    return data | {"batches": trace.batches(s["seeds"], kept, s["updates"], s["batch_size"])}


def held_out(path: Path, domain: Domain, seeds: list[int], every: int, shape: tuple) -> np.ndarray:
    """Which training points are of a trajectory that is left out, (seeds, points)."""
    frame = read_parquet(path, ("seed", "split", "trajectory", "t"))
    frame = frame[frame["split"] == "train"]
    if domain.first_states_only:
        frame = frame[frame["t"] == 0]
    left_out = np.zeros(shape, bool)
    for i, seed in enumerate(seeds):
        trajectory = frame.loc[frame["seed"] == seed, "trajectory"].to_numpy()
        left_out[i, : len(trajectory)] = trajectory % every == every - 1
    return left_out


def pick(points: dict, chosen: np.ndarray) -> dict:
    """Some of each seed's points, moved to the front; the rest is zero padding."""
    order = np.argsort(~chosen, axis=1, kind="stable")
    kept = np.take_along_axis(chosen, order, axis=1)
    found = {}
    for name in ("features", "returns", "discounts"):
        index = order if points[name].ndim == 2 else order[..., None]
        mask = kept if points[name].ndim == 2 else kept[..., None]
        found[name] = np.take_along_axis(points[name], index, axis=1) * mask
    return found | {"count": chosen.sum(axis=1)}
