"""The frozen swap: one policy, critic and data; gradients through three models fitted anew."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

MODELS = {
    "none": rpg.ARMS["none", "hidden", False],
    "hidden": rpg.Look("SN on all but the last layer", rpg.ARMS["model", "hidden", False].color),
    "all": rpg.Look("SN on every layer", rpg.ARMS["both", "all", False].color),
}
ERROR = "model error after one step\n(normalised states)"
MEASURES = {**rpg.MEASURES, "model_error_1": (ERROR, True)}


def run(job: Job) -> None:
    """Rows: tasks; columns: measures; in each panel a column of dots per model."""
    s = job.settings
    frame = pd.read_csv(job.input("swap"))
    names = rpg.tasks(frame, s["tasks"])
    figure, axes = style.panels(len(names), len(MEASURES), (2.5, 2.2))
    for row, (task, label) in zip(axes, names.items(), strict=True):
        part = frame[frame["task"] == task]
        groups = [(look, part[part["model"] == name]) for name, look in MODELS.items()]
        for ax, (measure, (title, log)) in zip(row, MEASURES.items(), strict=True):
            rpg.by_arm(ax, groups, measure, log)
            ax.set_title(title, fontsize=9)
        row[0].set_ylabel(f"{label}\nh = {part['horizon'].max()}")
    text = rpg.note(
        s,
        rpg.seeds(frame),
        "policies trained without SN",
        f"{s['plan']['model_updates']} updates per model",
        "dots: runs; bars: means (of logs) with 95% t intervals",
    )
    rpg.finish(figure, text, job.outputs, axes.ravel())
