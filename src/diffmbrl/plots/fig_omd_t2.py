"""Figure T2: dead units, frozen parts, the inverse Hessian, and planning for another reward."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style
from diffmbrl.plots.fig_omd_4 import OPTIMUM, by_width
from diffmbrl.tables import read_parquet

PARTS = {
    ("relu", "none"): "as it is",
    ("leaky", "none"): "leaky\nunits",
    ("relu", "dynamics"): "dynamics\nfrozen",
    ("relu", "reward"): "rewards\nfrozen",
}
SOURCES = {"true": "true\ndynamics", "untrained": "untrained\nmodel"}


def points(axes, x: float, values, color) -> None:
    """One run each, and their mean as a bar."""
    spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
    axes.plot(x + np.asarray(spread), values, "o", color=color, markersize=3, alpha=0.7)
    axes.plot([x - 0.25, x + 0.25], [np.mean(values)] * 2, color=color, linewidth=1.5)


def draw_dead(curves: pd.DataFrame, axes, looks: Mapping[str, Mapping]):
    """The share of dead units of the dynamics network during training, at the least width."""
    rows = by_width(curves)
    width = rows["width"].min()
    for agent, look in looks.items():
        part = rows[(rows["agent"] == agent) & (rows["width"] == width)]
        if not part.empty:
            style.estimate(axes, part, "step", "dead_dynamics", **look, marker="")
    axes.set(ylim=(-0.03, 1.03), xlabel="environment steps", ylabel="dead units, share")
    axes.set_title(f"dynamics network, width {width}")


def draw_still(finals: pd.DataFrame, axes, looks: Mapping[str, Mapping]):
    """Final return against the share of dead units; open: predictions that are all constant."""
    rows = finals[finals["experiment"].isin(["width", "selection"])]
    for agent, look in looks.items():
        part = rows[rows["agent"] == agent]
        if part.empty:
            continue  # no place in the legend
        for dead, face in ((False, look["color"]), (True, "none")):
            one = part[(part["still"] == 1) == dead]
            axes.scatter(
                one["dead_dynamics"],
                one["eval_return"],
                s=14,
                facecolor=face,
                edgecolor=look["color"],
                label=None if dead else look["label"],
            )
    axes.axhline(OPTIMUM, color="0.3", linestyle="--", linewidth=1)
    axes.set(xlabel="dead units of the final model, share", ylabel="final return")
    axes.set_title("open: all predictions constant")


def draw_parts(finals: pd.DataFrame, axes, looks: Mapping[str, Mapping]):
    """Final returns with leaky units, and of OMD with one network frozen; a point per run."""
    rows = finals[finals["experiment"] == "parts"]
    rows = rows[rows["width"] == rows["width"].max()]
    for i, (activation, frozen) in enumerate(PARTS):
        for k, (agent, look) in enumerate(looks.items()):
            part = rows[(rows["activation"] == activation) & (rows["frozen"] == frozen)]
            part = part[part["agent"] == agent]
            if not part.empty:
                points(axes, i + 0.3 * (k - 0.5), part["eval_return"], look["color"])
    axes.set_xticks(range(len(PARTS)), list(PARTS.values()), fontsize=7)
    axes.axhline(OPTIMUM, color="0.3", linestyle="--", linewidth=1)
    axes.set(ylim=(0, OPTIMUM * 1.08), ylabel="final return")
    axes.set_title(f"what carries the control, width {rows['width'].max()}")


def draw_answers(rows: pd.DataFrame, axes):
    """Share of the true loss that a small model step saves, by how the Hessian is inverted."""
    names = list(dict.fromkeys(rows["answer"]))
    gains = [name for name in rows if name.startswith("gain_")]
    for k, gain in enumerate(gains):
        for i, name in enumerate(names):
            part = rows[rows["answer"] == name][gain]
            points(axes, i + 0.3 * (k - 0.5), part, style.COLORS[f"variant_{k}"])
        axes.plot(
            [],
            [],
            "o-",
            color=style.COLORS[f"variant_{k}"],
            label=f"Q follows for K = {gain.removeprefix('gain_')}",
        )
    axes.axhline(0, color="0.3", linewidth=0.6)
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names], fontsize=6)
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.set(ylabel="true loss saved by a model step")
    axes.set_title("inverse Hessian (below 0: worse)")
    axes.legend(fontsize=6)


def draw_zero_shot(rows: pd.DataFrame, axes, looks: Mapping[str, Mapping]):
    """Return under the new reward, by whose dynamics were planned with; a point per run."""
    rows = rows[rows["width"] == rows["width"].max()]
    learned = rows[rows["source"] == "model"]
    bars = [
        (look["label"], look["color"], learned[learned["agent"] == agent]["return"])
        for agent, look in looks.items()
    ]
    bars += [
        (label, "0.4", rows[rows["source"] == source]["return"])
        for source, label in SOURCES.items()
    ]
    bars = [bar for bar in bars if len(bar[2])]
    for i, (_, color, values) in enumerate(bars):
        points(axes, i, values, color)
    axes.set_xticks(range(len(bars)), [label for label, _, _ in bars], fontsize=6)
    axes.set(ylim=(0, None), ylabel="return with the new reward")
    axes.set_title(f"another reward, width {rows['width'].max()}")


def run(job: Job) -> None:
    """Draws the panels of what was run."""
    looks = style.looks(job.settings["agents"])
    curves, finals = (pd.read_csv(job.input(name)) for name in ("curves", "finals"))
    answers, zero_shot = (read_parquet(job.input(name)) for name in ("answers", "zero_shot"))
    parts = (finals["experiment"] == "parts").any()
    figure, axes = style.panels(1, 4 + parts, (3.0, 2.7))
    left = list(axes[0])
    draw_dead(curves, left.pop(0), looks)
    draw_still(finals, left.pop(0), looks)
    if parts:
        draw_parts(finals, left.pop(0), looks)
    draw_answers(answers, left.pop(0))
    if not zero_shot.empty:
        draw_zero_shot(zero_shot, left.pop(0), looks)
    note = style.cartpole_note(job.settings, curves)
    style.finish(
        figure, f"{note}; points: runs, bars: their mean", job.outputs, legend_from=axes[0, :2]
    )
