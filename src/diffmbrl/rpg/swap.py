"""Stage: the frozen swap: same policy, critic and data; only the model is fitted anew.

Policies of plain runs, at the end of training. Whatever differs between two models of one seed is
what normalisation of the model does to the gradient, not what it did to the training before.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pandas as pd

from diffmbrl import keys
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import model as models
from diffmbrl.rpg import probe, setup, snapshots
from diffmbrl.rpg.fitting import Target, fit, used
from diffmbrl.rpg.gradients import Study, check
from diffmbrl.tables import write_parquet

USES = {"=rp_dp": "rpg.estimators", "task": "rpg.tasks"}
MODELS = {"none": (0.0, False), "hidden": (1.0, False), "all": (1.0, True)}  # target, every layer


def run(job: Job) -> None:
    """Settings: task, horizon, learner, schedule, arms, gradients, swap."""
    s = job.settings
    check(s["gradients"])
    study = Study(setup.training(s, snapshots.MEASURED), s["gradients"])
    vectors = snapshots.read(job.input("snapshots"), study.training.schedule)
    plan = {**s["swap"], **{name: s["learner"][f"model_{name}"] for name in ("width", "depth")}}
    swap = jax.jit(lambda vector, target: measure(study, plan, vector, target))
    what = {"task": s["task"], "estimator": snapshots.MEASURED, "horizon": study.training.learner.h}
    plain = {"sn": "none", "layers": "hidden", "init": "orthogonal", "clip": 0}
    rows = []
    for one, vector in zip(setup.runs(s["arms"]), vectors[:, -1], strict=True):
        if any(one[key] != value for key, value in plain.items()):
            continue
        for name, (sigma, every) in MODELS.items():
            found = swap(vector, Target(jnp.float32(sigma), jnp.asarray(every)))
            where = {"model": name, "rate": one["rate"], "seed": one["seed"]}
            rows.append({**what, **where, **probe.finish(jax.device_get(found))})
    write_parquet(pd.DataFrame(rows), job.outputs["swap"])


def measure(study: Study, plan: Mapping[str, Any], vector, target: Target) -> dict[str, jax.Array]:
    """A model fitted to the snapshot's segments, and the gradients of its policy through it."""
    snapshot = study.read(vector)
    state, stored = snapshot.learner, snapshot.segments
    fitted = fit(plan, stored, target, keys.fold(jax.random.PRNGKey(4), "swap"))
    dynamics = used(fitted, target).dynamics
    model = eqx.tree_at(lambda m: m.dynamics, state.model, dynamics)
    world = models.LearnedWorld(model, study.training.learner.world(state).noise_scale)
    look = study.look(setup.estimator(snapshots.MEASURED), snapshot, world)
    return {**look, **study.compare(snapshot, world)}
