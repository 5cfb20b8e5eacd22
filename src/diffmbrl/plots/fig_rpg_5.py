"""Local Lipschitz constants of model and policy at the end of training, by h."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style
from diffmbrl.plots.fig_rpg_2 import draw

PARTS = {
    "local_max_model": "model: largest local constant",
    "local_max_policy": "policy: largest local constant",
}


def message(rows: pd.DataFrame, measure: str) -> str:
    """Medians without and with SN over all h, in words."""
    parts = rpg.arms(rows)
    by_label = {look.label: part[measure].median() for look, part in parts.items()}
    told = [f"{by_label[name]:.2g} {word}"
            for name, word in (("no SN", "without SN"), ("SN on both", "with"))
            if name in by_label]  # fmt: skip
    return "medians: " + ", ".join(told)


def run(job: Job) -> None:
    """One row per task, one column per network."""
    s = job.settings
    frame = pd.read_csv(job.input("runs"))
    frame = frame[frame["estimator"] == "rp_dp"]
    names = rpg.tasks(frame, s["tasks"])
    figure, axes = style.panels(len(names), len(PARTS), (3.4, 2.2))
    for row, (task, label) in zip(axes, names.items(), strict=True):
        part = frame[frame["task"] == task]
        for ax, (measure, title) in zip(row, PARTS.items(), strict=True):
            draw(part, ax, measure, True)
            ax.axhline(1, color="0.4", linewidth=0.8, linestyle="--", label="constant 1")
            ax.set_title(f"{title}\n{message(part, measure)}", fontsize=9)
        row[0].set_ylabel(label)
    text = rpg.note(
        s,
        rpg.seeds(frame),
        "spectral norm of the Jacobian by the normalised state, largest of 64 stored states",
    )
    rpg.finish(figure, text, job.outputs, axes.ravel())
