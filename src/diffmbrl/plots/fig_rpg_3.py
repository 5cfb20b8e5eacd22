"""The objective of a long unroll along two random directions of the policy's weights."""

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style

SHOWN = (("none", "orthogonal"), ("both", "orthogonal"), ("none", "uniform"), ("both", "uniform"))


def draw(rows: pd.DataFrame, axes):
    """Filled contours of the objective, centred on the trained policy."""
    table = rows.pivot(index="y", columns="x", values="objective")
    filled = axes.contourf(table.columns, table.index, table.to_numpy(), levels=20, cmap="viridis")
    axes.plot(0, 0, "+", color="white")
    axes.grid(False)
    axes.figure.colorbar(filled, ax=axes, shrink=0.85)
    return axes


def roughness(rows: pd.DataFrame) -> float:
    """Root mean square of second differences along both axes, over the objective's spread."""
    table = rows.pivot(index="y", columns="x", values="objective").to_numpy()
    second = np.concatenate([np.diff(table, 2, axis=axis).ravel() for axis in (0, 1)])
    return float(np.sqrt(np.mean(second**2)) / np.std(table))


def run(job: Job) -> None:
    """One panel for each placement and initialisation, the first seed."""
    s = job.settings
    frame = pd.read_parquet(job.input("landscape"))
    frame = frame[frame["seed"] == frame["seed"].min()]
    groups = {key: part for key, part in frame.groupby(["sn", "init"])}
    shown = [key for key in SHOWN if key in groups]
    figure, axes = style.panels(1, len(shown), (2.7, 2.4))
    for ax, key in zip(axes[0], shown, strict=True):
        draw(groups[key], ax).set_title(
            f"{rpg.PLACEMENTS[key[0]]}, {key[1]}\nroughness {roughness(groups[key]):.3f}",
            fontsize=8)  # fmt: skip
    text = rpg.note(s, f"h = {s['plan']['horizon']}", "seed 0", f"step {s['schedule']['steps']}",
                    f"{s['plan']['states']} states, same noises everywhere",
                    "axes: norms of each array", "colour scales differ")  # fmt: skip
    style.finish(figure, text, job.outputs)
