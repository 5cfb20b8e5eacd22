"""Figure 8 of Nikishin et al. 2022: SAC on a learned model, by width and distractors."""

from collections.abc import Mapping

import pandas as pd

from diffmbrl.pipeline.stage import Job
from diffmbrl.plots import style

LABELS = {"width": "hidden units of the model", "distractors": "number of distractors"}
PAPER = {"steps": 1_000_000, "hidden": 256, "batch": 256, "seeds": 5}
WORDS = {"seeds": "seeds", "steps": "steps", "hidden": "units", "batch": "per batch"}
LINES = {1: "-", 3: "--"}  # by K


def finals(arms: pd.DataFrame, runs: pd.DataFrame, axes, looks: Mapping[str, Mapping], axis: str):
    """Mean final return of each agent and K with its 95% t interval, and every run as a dot.

    Args:
        arms: means and intervals, of one task and one value of the other axis.
        runs: the same arms' runs.
        axes: where to draw; positions are the ranks of the axis's values.
        looks: of each agent (`style.looks`).
        axis: `width` or `distractors`.
    """
    values = sorted(arms[axis].unique())
    place = {value: i for i, value in enumerate(values)}
    many = arms["inner_steps"].nunique() > 1
    groups = list(arms.groupby(["agent", "inner_steps"], sort=True))
    for i, ((agent, k), part) in enumerate(groups):
        part = part.sort_values(axis)
        x = part[axis].map(place) + 0.12 * (i - (len(groups) - 1) / 2)
        color = looks[agent]["color"]
        label = looks[agent]["label"] + (f", K = {k}" if many else "")
        off = [part["mean"] - part["low"], part["high"] - part["mean"]]
        line = LINES.get(int(k), ":")
        axes.errorbar(
            x, part["mean"], off, color=color, label=label, marker="o", capsize=3, linestyle=line
        )
        own = runs[(runs["agent"] == agent) & (runs["inner_steps"] == k)]
        at = own[axis].map(dict(zip(part[axis], x, strict=True)))
        axes.plot(at + 0.05, own["eval_return"], ".", color=color, alpha=0.5, markersize=3)
        style.mark_diverged(axes, part.assign(**{axis: x}), axis, "mean")
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_xlabel(LABELS[axis])
    return axes


def learning(curves: pd.DataFrame, axes, looks: Mapping[str, Mapping]):
    """Mean return over steps with its 95% t interval, of one width without distractors."""
    for (agent, k), part in curves.groupby(["agent", "inner_steps"], sort=True):
        color = looks[agent]["color"]
        axes.plot(part["step"], part["mean"], color=color, linestyle=LINES.get(int(k), ":"))
        axes.fill_between(part["step"], part["low"], part["high"], color=color, alpha=0.15, lw=0)
    axes.set_xlabel("environment steps")
    axes.locator_params(axis="x", nbins=4)
    return axes


def note(scale: str, plan: Mapping, tasks: Mapping[str, Mapping]) -> str:
    """How it was made, reductions included."""
    n = plan["final_evaluations"]
    final = "last evaluation" if n == 1 else f"mean of the last {n} evaluations"
    lines = [
        f"scale {scale} \u00b7 final: {final}",
        "mean over seeds with its 95% interval (Student's t); dots: runs",
    ]
    for name, facts in tasks.items():
        task, parts = plan["tasks"][name], []
        for key, what in WORDS.items():
            paper = f" (paper: {PAPER[key]:,})" if task[key] != PAPER[key] else ""
            parts.append(f"{task[key]:,} {what}{paper}")
        lines.append(f"{facts['LABEL']}: {', '.join(parts)}")
    return "\n".join(lines)


def run(job: Job) -> None:
    """One row per task: final return by width, by distractors, and learning curves."""
    s, plan = job.settings, job.settings["plan"]
    arms, runs, curves = (pd.read_csv(job.input(name)) for name in ("arms", "runs", "curves"))
    looks = style.looks(s["agents"])
    tasks = {name: f for name, f in style.in_order(s["tasks"]).items() if name in plan["tasks"]}
    figure, axes = style.panels(len(tasks), 3, (2.6, 2.1))
    for row, (name, facts) in zip(axes, tasks.items(), strict=True):
        width = plan["tasks"][name]["model_width"]
        mine, own, over = (frame[frame["task"] == name] for frame in (arms, runs, curves))
        plain, few = mine["distractors"] == 0, mine["width"] == width
        alone, wide = own["distractors"] == 0, own["width"] == width
        finals(mine[plain], own[alone], row[0], looks, "width")
        finals(mine[few], own[wide], row[1], looks, "distractors")
        at = over[(over["distractors"] == 0) & (over["width"] == width)]
        learning(at, row[2], looks)
        row[0].set_ylabel(f"{facts['LABEL']}\nfinal return", fontsize="small")
        row[1].set_title(f"{width} units")
        row[2].set_title(f"{width} units, no distractors")
        row[0].set_title("no distractors")
    style.finish(figure, note(s["scale"], plan, tasks), job.outputs, legend_from=axes[:, 0])
