"""The objective of the longest unroll along two random directions of the policy's weights."""

import numpy as np
import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import rpg, style
from diffmbrl.rpg.aggregate import interval
from diffmbrl.tables import read_parquet


def draw(rows: pd.DataFrame, axes):
    """Filled contours of the objective in its standard deviations, centred on the policy."""
    table = rows.pivot(index="y", columns="x", values="objective")
    values = table.to_numpy()
    scaled = (values - values.mean()) / values.std()
    levels = np.linspace(-3, 3, 19)
    filled = axes.contourf(table.columns, table.index, scaled, levels, cmap="viridis",
                           extend="both")  # fmt: skip
    axes.plot(0, 0, "+", color="white")
    axes.grid(False)
    return filled


def roughness(rows: pd.DataFrame) -> float:
    """Root mean square of second differences along both axes, over the objective's spread."""
    table = rows.pivot(index="y", columns="x", values="objective").to_numpy()
    second = np.concatenate([np.diff(table, 2, axis=axis).ravel() for axis in (0, 1)])
    return float(np.sqrt(np.mean(second**2)) / np.std(table))


def run(job: Job) -> None:
    """Rows: tasks; columns: arms. The first seed is drawn, all are in the titles."""
    s = job.settings
    frame = pd.concat(map(read_parquet, job.inputs["landscape"]), ignore_index=True)
    names = rpg.tasks(frame, s["tasks"])
    groups = {task: rpg.arms(frame[frame["task"] == task]) for task in names}
    figure, axes = style.panels(len(names), max(map(len, groups.values())), (2.3, 2.2))
    for row, (task, label) in zip(axes, names.items(), strict=True):
        row[0].set_ylabel(label)
        for ax in row[len(groups[task]) :]:
            ax.set_axis_off()
        for ax, (look, part) in zip(row, groups[task].items(), strict=False):
            filled = draw(part[part["seed"] == part["seed"].min()], ax)
            found = pd.Series([roughness(one) for _, one in part.groupby("seed")])
            mean, low, high = interval(found)
            ax.set_title(f"{look.label}\nroughness {mean:.2f} [{low:.2f}, {high:.2f}]", fontsize=8)
    figure.colorbar(filled, ax=axes[:, -1], label="objective, its standard deviations")
    text = rpg.note(
        s,
        f"h = {frame['horizon'].max()}, end of training, seed 0 of {frame['seed'].nunique()}",
        f"{s['plan']['states']} states, same noises everywhere",
        "axes: norms of each array; roughness: size of second differences, 95% t interval",
    )
    rpg.finish(figure, text, job.outputs)
