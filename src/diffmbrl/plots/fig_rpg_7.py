"""What is normalised, and clipping beside it: gradients and returns at the longest h."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

MEASURES = {**rpg.MEASURES, "area": ("return, mean over training", False)}


def run(job: Job) -> None:
    """Rows: tasks; columns: measures; in each panel a column of dots per arm."""
    s = job.settings
    frame = pd.read_csv(job.input("runs"))
    frame = frame[frame["estimator"] == "rp_dp"]
    names = rpg.tasks(frame, s["tasks"])
    figure, axes = style.panels(len(names), len(MEASURES), (2.5, 2.2))
    for row, (task, label) in zip(axes, names.items(), strict=True):
        part = frame[frame["task"] == task]
        part = part[part["horizon"] == part["horizon"].max()]
        for ax, (measure, (title, log)) in zip(row, MEASURES.items(), strict=True):
            rpg.by_arm(ax, list(rpg.arms(part).items()), measure, log)
            ax.set_title(title, fontsize=9)
        row[0].set_ylabel(f"{label}\nh = {part['horizon'].max()}")
    text = rpg.note(s, rpg.seeds(frame), "RP-DP, end of training",
                    "dots: runs; bars: means (of logs) with 95% t intervals")  # fmt: skip
    rpg.finish(figure, text, job.outputs, axes.ravel())
