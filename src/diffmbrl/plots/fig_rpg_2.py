"""Gradients at the end of training against the h that was trained with: variance, truth, model."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style
from diffmbrl.rpg.aggregate import at_the_end

ERROR = "model error after h steps\n(normalised states)"
JACOBIAN = "relative error of the model's\nJacobian by the action"
MEASURES = {**rpg.MEASURES, "model_error_h": (ERROR, True), "jacobian_error": (JACOBIAN, False)}


def draw(rows: pd.DataFrame, axes, measure: str, log: bool):
    """A measure against h, a line for each arm that was trained at every h."""
    most = rows["horizon"].nunique()
    whole = {look: part for look, part in rpg.arms(rows).items()
             if part["horizon"].nunique() == most}  # fmt: skip
    for i, (look, part) in enumerate(whole.items()):
        rpg.by_h(axes, part, measure, log, look, 0.08 * (2 * i - len(whole) + 1))
    return axes


def run(job: Job) -> None:
    """Rows: tasks; columns: measures."""
    s = job.settings
    frame = pd.read_csv(job.input("gradients"))
    frame = at_the_end(frame[frame["estimator"] == "rp_dp"])
    names = rpg.tasks(frame, s["tasks"])
    figure, axes = style.panels(len(names), len(MEASURES), (2.3, 2.2))
    for row, (task, label) in zip(axes, names.items(), strict=True):
        for ax, (measure, (title, log)) in zip(row, MEASURES.items(), strict=True):
            draw(frame[frame["task"] == task], ax, measure, log).set_title(title, fontsize=9)
        row[0].set_ylabel(label)
    plan = s["plan"]
    text = rpg.note(
        s,
        rpg.seeds(frame),
        f"end of training, {plan['samples']} gradients at resampled states",
        f"batches of {plan['batch']}, the true gradient from {plan['true_samples']}",
        "dots: runs; lines: means (of logs)",
    )
    rpg.finish(figure, text, job.outputs, axes.ravel())
