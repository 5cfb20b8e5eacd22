"""Lipschitz constants of model and policy over training."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

METRICS = {
    "bound_model": "model: 1 + product of layers' norms",
    "local_max_model": "model: largest local",
    "bound_policy": "policy: product of layers' norms",
    "local_max_policy": "policy: largest local",
}


def draw(rows: pd.DataFrame, axes, metric: str):
    """A constant against steps: colour by placement, dotted for uniform init."""
    for (sn, init), part in rows.groupby(["sn", "init"], sort=False):
        part = part.sort_values("step")
        axes.plot(
            part["step"],
            part[metric],
            color=rpg.PLACEMENT_COLORS[sn],
            linestyle=rpg.INITS[init],
            label=f"{rpg.PLACEMENTS[sn]}, {init} init",
        )
    axes.set_yscale("log" if metric.endswith("policy") else "linear")
    axes.set_xlabel("environment steps")
    return axes


def run(job: Job) -> None:
    """One panel a constant, of RP-DP."""
    s = job.settings
    frame = pd.read_csv(job.input("returns"))
    frame = frame[frame["estimator"] == "rp_dp"]
    figure, axes = style.panels(1, len(METRICS), (2.6, 2.4))
    for ax, (metric, title) in zip(axes[0], METRICS.items(), strict=True):
        draw(frame, ax, metric).set_title(title, fontsize=8)
    text = rpg.note(
        s,
        rpg.seeds(frame),
        f"{s['schedule']['steps']} steps",
        "median over seeds",
        "local: spectral norm of the Jacobian by the normalised state at 64 stored states",
    )
    rpg.finish(figure, text, job.outputs, axes[0])
