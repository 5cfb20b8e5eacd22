"""The smoothness dial: where spectral normalisation of the model starts to hurt."""

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

METRICS = {
    "jacobian_error": "error of the model's Jacobian", "trace": r"tr $\Sigma$",
    "bias_model": "|bias|$^2$",
    "gradient_error": "|bias|$^2$ + tr $\\Sigma$/64",
    "return_trained": "true return of the policy\ntrained in the model",
}  # fmt: skip


def draw(rows: pd.DataFrame, axes, metric: str):
    """A metric against stiffness, a line for each target of the model's layers."""
    targets = sorted(rows.loc[rows["sn"] == "model", "target"].unique())
    shades = style.sns.color_palette("flare", len(targets))
    looks = {
        target: (shade, f"SN, target {target:g}")
        for target, shade in zip(targets, shades, strict=True)
    }
    looks = {-1.0: ("0.3", "true dynamics"), 0.0: (rpg.PLACEMENT_COLORS["none"], "no SN"), **looks}
    for target, (color, label) in looks.items():
        part = rows[rows["target"] == target]
        if metric != "return_trained":
            part = part[part[metric] > 0]
        rpg.range_band(axes, part, "stiffness", metric, color=color, label=label, marker="o",
                       linestyle="--" if target == -1 else "-")  # fmt: skip
    axes.set_xscale("log")
    if metric != "return_trained":
        axes.set_yscale("log")
    axes.set_xlabel("stiffness of the floor (1/m)")
    return axes


def run(job: Job) -> None:
    """One panel a metric."""
    s = job.settings
    frame = pd.read_csv(job.input("smoothness"))
    figure, axes = style.panels(1, len(METRICS), (2.5, 2.5))
    for ax, (metric, title) in zip(axes[0], METRICS.items(), strict=True):
        draw(frame, ax, metric).set_title(title, fontsize=8)
    text = rpg.note(s, f"{s['plan']['seeds']} seeds", f"h = {s['plan']['horizon']}",
                    f"{s['plan']['model_updates']} model updates",
                    f"{s['plan']['policy_updates']} policy updates",
                    "median, smallest to largest seed; values at or below 0 left out")  # fmt: skip
    rpg.finish(figure, text, job.outputs, axes[0])
