"""The theory on linear-Gaussian systems, where gradients are exact."""

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style


def draw(rows: pd.DataFrame, axes, x: str, label: str, shapes=None):
    """Measured values, one colour a setting, with the predicted shapes through their last point.

    Args:
        rows: one study.
        axes: where to draw.
        x: column on the horizontal axis; the other of `x` and `horizon` makes the lines.
        label: of a line, with {} for its setting.
        shapes: `(setting, horizontal values) -> predicted values, up to a factor`.
    """
    other = "x" if x == "horizon" else "study"
    for i, (setting, part) in enumerate(rows.groupby(other)):
        color = style.sns.color_palette("colorblind")[i]
        part = part.sort_values(x)
        rpg.range_band(axes, part, x, "value", color=color, marker="o", label=label.format(setting))
        if shapes is not None:
            shape = np.asarray(shapes(setting, part[x].to_numpy(float)))
            axes.plot(
                part[x],
                shape * part["value"].iloc[-1] / shape[-1],
                "--",
                color=color,
                linewidth=0.8,
            )
    axes.set_yscale("log")
    axes.legend()
    return axes


def run(job: Job) -> None:
    """1/N; growth in h; bias by the model's error; bias by the critic's."""
    s = job.settings
    frame = pd.read_csv(job.input("theory"))
    study = {name: part for name, part in frame.groupby("study")}
    figure, axes = style.panels(1, 4, (2.8, 2.6))
    a, b, c, d = axes[0]
    draw(study["batch"], a, "x", "h = 5", lambda _, n: 1 / n).set_xscale("log")
    a.set(title="variance, N averaged", xlabel="N", ylabel="tr Cov")
    draw(
        study["growth"],
        b,
        "horizon",
        "L = {:g}",
        lambda L, h: L ** (4 * h) * h**2 if L > 1 else h**4 if L == 1 else h**0,
    )
    b.set(title=r"variance in h ($\gamma = 1$)", xlabel="h", ylabel=r"tr $\Sigma$", xscale="log")
    draw(study["model"], c, "horizon", "error {:g}")
    c.set(title="bias by the model's Jacobian error", xlabel="h", ylabel="|bias| / |gradient|")
    draw(study["critic"], d, "horizon", r"$\gamma$ = {:g}", lambda g, h: (g * 0.95**2) ** h * h)
    d.set(title="bias by the critic's error", xlabel="h", ylabel="|bias|")
    text = rpg.note(
        s,
        f"{s['plan']['seeds']} random systems",
        "median, smallest to largest system",
        r"dashed: 1/N; $L^{4h}h^2$, $h^4$, constant; $h (\gamma L^2)^h$, L = 0.95",
    )
    style.finish(figure, text, job.outputs)
