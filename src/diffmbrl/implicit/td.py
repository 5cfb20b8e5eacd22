"""Stage: semi-gradient TD(0) targets, which Gehring et al. 2021 leave to future work (section 4).

Explicit and implicit runs at eta 0.95 on the transitions of all trajectories, batches drawn as in
the published runs. TD(0)'s update is plain SGD of the squared error r + gamma V(s') - V(s) whose
V(s') is held fixed; so a model gives its values twice, the second time without gradient, and the
features of a transition are (phi(s), -gamma phi(s')). A step to the end of an episode has phi(s')
= 0, and the last step of a cut trajectory, whose s' was not recorded, is left out.

Evaluated is against the values that TD aims at: states without features are worth 0. Residuals are
split as in `coverage`; `selected` marks the rate that is best by the rule of `aggregate.select`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float

from diffmbrl import registry
from diffmbrl.implicit import coverage, trace, train
from diffmbrl.implicit.aggregate import select
from diffmbrl.implicit.dense import DenseDomain
from diffmbrl.implicit.domain import Domain
from diffmbrl.implicit.metrics import ETA
from diffmbrl.implicit.names import PARTS
from diffmbrl.implicit.values import Models, Params, Values
from diffmbrl.mdp.dense import policy_chain
from diffmbrl.pipeline.stage import Job
from diffmbrl.solve import Solution
from diffmbrl.tables import read_parquet, write_parquet

USES = {
    "domain": "implicit.domains",
    "=explicit": "implicit.parameterizations",
    "=implicit": "implicit.parameterizations",
}


@dataclass(frozen=True)
class Bootstrapped:
    """Values, and the same values without gradient: theta has shape (2 n,)."""

    inner: Values
    n: int

    def init(self, w: Array, F: Array, eta: Float[Array, ""]) -> Params:
        """The inner model's parameters."""
        return self.inner.init(w, F, eta)

    def solve(self, params: Params, eta: Float[Array, ""], guess: Array) -> Solution:
        """Solves once, from the first half of the guess."""
        found = self.inner.solve(params, eta, guess[: self.n])
        both = jnp.concatenate([found.value, jax.lax.stop_gradient(found.value)])
        return found._replace(value=both)


def bootstrapped(models: Models, n: int) -> Models:
    """A parameterization whose runs are trained on TD(0) targets."""
    calm = Bootstrapped(models.calm, n)
    wild = calm if models.calm is models.wild else Bootstrapped(models.wild, n)
    return models._replace(calm=calm, wild=wild)


def run(job: Job) -> None:
    """Settings: seeds, epsilon, updates, batch_size, offsets, learning_rates, untrained_below."""
    s = job.settings
    domain = registry.load("implicit.domains", s["domain"]).DOMAIN
    if domain.first_states_only:
        domain = replace(domain, first_states_only=False)
    data, bar = arrays(job.input("dataset"), domain, s), max(s["untrained_below"])
    drawn = coverage.drawn(data)[:, : domain.n_features]
    evaluated = data["evaluation"]["features"][..., : domain.n_features]
    data["untrained"], data["featured"] = coverage.shares(evaluated, (drawn < bar)[:, None])
    frames = []
    for way, rates in s["learning_rates"].items():
        models = registry.load("implicit.parameterizations", way).models(domain.n_features)
        frame = trace.runs(
            bootstrapped(models, domain.n_features),
            trace.axes(
                s["seeds"], [float(rate) for rate in rates[s["domain"]]], [ETA], s["offsets"]
            ),
            data,
            s["updates"],
            s["updates"],
            coverage.parts,
            threads=job.threads,
            label=f"TD {s['domain']} {way}",
        )
        frame = frame.assign(**{name: np.stack(frame[name])[:, 0] for name in PARTS})
        frames.append(trace.labelled(frame, s["seeds"], domain=s["domain"], parameterization=way))
    frame = pd.concat(frames, ignore_index=True).assign(untrained_below=float(bar))
    chosen = select(frame.assign(backup="none")).set_index("parameterization")["learning_rate"]
    best = frame["parameterization"].map(chosen).astype(float)
    frame["selected"] = frame["learning_rate"] == best
    write_parquet(frame, job.outputs["td"])


def arrays(path: Path, domain: Domain, s: Any) -> dict:
    """What every run reads: transitions as points, batches, initial parameters, evaluation set."""
    data = train.arrays(path, domain, s["seeds"], 1, 1, 1)
    data["train"] = transitions(path, data["train"], domain, s["seeds"])
    evaluation = data["evaluation"]
    if isinstance(domain, DenseDomain):
        evaluation |= aimed_at(domain, s["epsilon"], evaluation["features"].shape[:2])
    evaluation["features"] = np.pad(
        evaluation["features"], ((0, 0), (0, 0), (0, domain.n_features))
    )
    counts = data["train"]["count"]
    return data | {"batches": trace.batches(s["seeds"], counts, s["updates"], s["batch_size"])}


def transitions(path: Path, points: dict, domain: Domain, seeds: Sequence[int]) -> dict:
    """Transitions as training points: features, rewards as returns, offsets counted once."""
    columns = ("seed", "split", "trajectory", "reward", "terminated")
    frame = read_parquet(path, columns)
    frame = frame[frame["split"] == "train"]
    n, K = points["features"].shape[1:]
    found = {
        "features": np.zeros((len(seeds), n, 2 * K)),
        "returns": np.zeros((len(seeds), n)),
        "discounts": np.zeros((len(seeds), n)),
        "count": np.zeros(len(seeds), int),
    }
    for i, seed in enumerate(seeds):
        rows = frame[frame["seed"] == seed]
        ended, trajectory = rows["terminated"].to_numpy(bool), rows["trajectory"].to_numpy()
        phi = points["features"][i, : len(rows)]
        after = np.append(phi[1:], phi[:1], axis=0) * ~ended[:, None]
        kept = ended | (np.append(trajectory[1:], -1) == trajectory)
        m = found["count"][i] = kept.sum()
        found["features"][i, :m] = np.concatenate([phi, -domain.gamma * after], axis=1)[kept]
        found["returns"][i, :m] = rows["reward"].to_numpy()[kept]
        found["discounts"][i, :m] = 1.0
    return found


def aimed_at(domain: DenseDomain, epsilon: float, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Exact values and expected discount sums of a dense domain whose featureless states end it."""
    P, r = map(np.asarray, policy_chain(domain.mdp, domain.behaviour(epsilon)))
    inside = np.arange(len(r)) < domain.n_features
    rewards = np.stack([r, np.ones(len(r))], axis=1) * inside[:, None]
    A = np.eye(len(r)) - domain.gamma * P * inside[:, None] * inside[None]
    values, discounts = np.linalg.solve(A, rewards).T
    return {
        "returns": np.broadcast_to(values, shape).copy(),
        "discounts": np.broadcast_to(discounts, shape).copy(),
    }
