"""The theory on linear-Gaussian systems: variance by Lipschitz constant and h; bias by h."""

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style


def draw(rows: pd.DataFrame, axes, label: str):
    """Values against h, a line per setting `x`."""
    for i, (setting, part) in enumerate(rows.groupby("x")):
        color = style.sns.color_palette("colorblind")[i]
        rpg.range_band(axes, part, "horizon", "value", color=color, marker="o",
                       label=label.format(setting))  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("model steps h")
    axes.legend()
    return axes


def degrees(growth: pd.DataFrame) -> pd.DataFrame:
    """Of each system and h the slope of log tr on log L, for L of at least 1."""
    rows = []
    for (seed, h), part in growth[growth["x"] >= 1].groupby(["seed", "horizon"]):
        if len(part) > 1:
            slope = np.polyfit(np.log(part["x"]), np.log(part["value"]), 1)[0]
            rows.append({"seed": seed, "horizon": h, "degree": slope})
    return pd.DataFrame(rows)


def run(job: Job) -> None:
    """Growth in h; its degree in L; bias by the model's error; bias by the critic's."""
    s = job.settings
    frame = pd.read_csv(job.input("theory"))
    study = {name: part for name, part in frame.groupby("study")}
    figure, axes = style.panels(1, 4, (2.8, 2.6))
    a, b, c, d = axes[0]
    draw(study["growth"], a, "L = {:g}").set_title(
        "variance: a power of h up to L = 1,\nexponential above", fontsize=9
    )
    found = degrees(study["growth"])
    rpg.range_band(b, found, "horizon", "degree", color="0.2", marker="o", label="measured")
    h = np.array(sorted(found["horizon"].unique()))
    b.plot(h, 4 * h, "--", color="0.5", label="4 h")
    b.legend()
    b.set_title("degree of the variance in L:\nlinear in h", fontsize=9)
    b.set_xlabel("model steps h")
    draw(study["model"], c, "error {:g}").set_title(
        "bias / gradient by the error\nof the model's Jacobian", fontsize=9
    )
    draw(study["critic"], d, r"$\gamma$ = {:g}").set_title(
        "bias by a critic that is\n10% off", fontsize=9
    )
    text = rpg.note(
        s,
        f"{s['plan']['seeds']} random systems",
        "L: every singular value of the closed loop (0.95 in the right two panels)",
        "median, smallest to largest system",
    )
    rpg.finish(figure, text, job.outputs)
