"""Figure 4 of Nikishin et al. 2022: final returns against model width and distractors.

Below, the same runs by other readings of "final", and with the best pair of rates selected on the
runs that are reported, on other ones (fresh seeds), or seed by seed.
"""

from collections.abc import Mapping

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style

OPTIMUM = 500
LABELS = {"width": "hidden units of the model", "distractors": "number of distractors"}
LINES = ("-", "--", ":", "-.", (0, (1, 3)))
MARKS = {"fresh seeds": "x", "best of each seed": "^"}  # by how the pair of rates was selected


def by_width(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of model capacity: of `selection` where it was run, of `width` elsewhere."""
    rows = frame[frame["experiment"].isin(["width", "selection"])]
    best = rows.groupby(["agent", "width"])["experiment"].transform("min")  # in the alphabet
    return rows[rows["experiment"] == best]


def draw(rows: pd.DataFrame, axes, looks: Mapping[str, Mapping], axis: str):
    """Final return of the agents against an axis, on a logarithmic scale of base 2.

    Args:
        rows: one experiment of the summary, at the selected rates.
        axes: where to draw.
        looks: of each agent (`style.looks`).
        axis: `width` or `distractors`.
    """
    for agent, look in looks.items():
        part = rows[rows["agent"] == agent]
        if not part.empty:
            style.estimate(axes, part, axis, "eval_return", **look)
            style.mark_diverged(axes, part, axis, "eval_return_mean")
    return _scale(rows, axes, axis)


def draw_readings(rows: pd.DataFrame, axes, looks: Mapping[str, Mapping], axis: str):
    """Mean return by reading (lines), and by how the pair of rates was selected (marks)."""
    readings = list(dict.fromkeys(rows["reading"]))
    for agent, look in looks.items():
        part = rows[rows["agent"] == agent]
        reported = part[part["selection"].isin(["one pair", "same seeds"])]
        for reading, line in zip(readings, LINES, strict=False):
            one = reported[reported["reading"] == reading].sort_values(axis)
            axes.plot(one[axis], one["mean"], color=look["color"], linestyle=line, linewidth=1)
        for selection, mark in MARKS.items():
            one = part[(part["selection"] == selection) & (part["reading"] != "best")]
            axes.plot(one[axis], one["mean"], mark, color=look["color"], markersize=4)
    for reading, line in zip(readings, LINES, strict=False):
        axes.plot([], [], color="0.3", linestyle=line, label=_words(reading))
    for selection, mark in MARKS.items():
        if (rows["selection"] == selection).any():
            name = f"pair: {selection}"
            axes.plot([], [], mark, color="0.3", markersize=4, label=name)
    return _scale(rows, axes, axis)


def _words(reading: str) -> str:
    n = reading.removeprefix("last_")
    return "best evaluation" if reading == "best" else f"mean of the last {n}"


def _scale(rows: pd.DataFrame, axes, axis: str):
    ticks = sorted(rows[axis].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.axhline(OPTIMUM, color="0.3", linestyle="--", linewidth=1, label="optimum")
    axes.set_ylim(0, OPTIMUM * 1.08)
    return axes


def experiments(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By axis, the rows of its experiment, where it was run."""
    rows = {"width": by_width(frame)}
    rows["distractors"] = frame[frame["experiment"] == "distractors"]
    return {axis: part for axis, part in rows.items() if not part.empty}


def run(job: Job) -> None:
    """Draws the experiments that were run, at the rates selected for each setting."""
    summary = pd.read_csv(job.input("cartpole"))
    summary = summary[summary["selected"]]
    rows, read = experiments(summary), experiments(pd.read_csv(job.input("selections")))
    looks = style.looks(job.settings["agents"])
    figure, axes = style.panels(2, len(rows), (7.2 / len(rows), 2.6), sharey=True)
    for column, axis in enumerate(rows):
        draw(rows[axis], axes[0, column], looks, axis)
        draw_readings(read[axis], axes[1, column], looks, axis).set_xlabel(LABELS[axis])
    axes[0, 0].set_ylabel("final return")
    axes[1, 0].set_ylabel("return, other readings")
    note = style.cartpole_note(job.settings, pd.concat(rows.values()))
    style.finish(figure, note, job.outputs, legend_from=axes.ravel())
