"""The smoothness dial: what normalising the model costs and cures as a floor gets harder."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

METRICS = {
    "jacobian_error": ("error of the model's Jacobian", True),
    "trace": (r"variance: tr $\Sigma$", True),
    "gradient_error": (r"error of a batch: |bias|$^2$ + tr $\Sigma$/n", True),
    "below": ("return lost against training\nin the true dynamics", False),
}


def against_true(frame: pd.DataFrame) -> pd.DataFrame:
    """With `below`: the return of policies trained in the true dynamics less that of a row's."""
    keys = ["stiffness", "seed"]
    true = frame[frame["sn"] == "true system"].set_index(keys)["return_trained"].rename("true")
    frame = frame.merge(true, left_on=keys, right_index=True)
    return frame.assign(below=frame["true"] - frame["return_trained"])


def draw(rows: pd.DataFrame, axes, metric: str, log: bool):
    """A metric against stiffness: colour by target, dashed where every layer is normalised."""
    colors = style.sns.color_palette("colorblind")
    targets = sorted(rows.loc[rows["sn"] == "model", "target"].unique())
    for (sn, layers, target), part in rows.groupby(["sn", "layers", "target"]):
        if sn == "true system" and metric in ("jacobian_error", "below"):
            continue
        label, color = {"none": ("no SN", colors[0]), "true system": ("true dynamics", "0.3")}.get(
            sn, (f"SN to {target:g}, {layers} layers", colors[1 + targets.index(target)])
            if target in targets else ("", "0")
        )  # fmt: skip
        line = ":" if sn == "true system" else "--" if layers == "all" else "-"
        if log:
            part = part[part[metric] > 0]
        rpg.range_band(axes, part, "stiffness", metric, color=color, label=label, marker="o",
                       linestyle=line)  # fmt: skip
    axes.set_xscale("log")
    if log:
        axes.set_yscale("log")
    axes.set_xlabel("stiffness of the floor (1/m)")
    return axes


def run(job: Job) -> None:
    """One panel per metric."""
    s = job.settings
    frame = against_true(pd.read_csv(job.input("smoothness")))
    figure, axes = style.panels(1, len(METRICS), (2.7, 2.5))
    for ax, (metric, (title, log)) in zip(axes[0], METRICS.items(), strict=True):
        draw(frame, ax, metric, log).set_title(title, fontsize=9)
    plan = s["plan"]
    text = rpg.note(
        s,
        f"{plan['seeds']} seeds, h = {plan['horizon']}",
        f"{plan['model_updates']} model and {plan['policy_updates']} policy updates",
        f"n = {plan['policy_batch']}; {plan['samples']} gradients; median, smallest to largest",
    )
    rpg.finish(figure, text, job.outputs, axes[0])
