"""What the figures of the CartPole experiments choose to show."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from diffmbrl import registry
from diffmbrl.omd.aggregate import summarize
from diffmbrl.plots import fig_omd_5, style

METRICS = ("eval_return", "model_mse")
LOOKS = style.looks(registry.facts("omd.agents"))


def runs(agents, widths, seeds=(1, 2), steps=(10, 20)):
    """Evaluations in which run (agent, width, seed) returns 100 width + 10 seed at every step."""
    return pd.DataFrame([
        {"agent": agent, "width": width, "inner_lr": 0.1, "tau": 0.5, "seed": seed, "step": step,
         "eval_return": 100 * width + 10 * seed, "model_mse": 0.5 / seed, "diverged": False}
        for agent in agents for width in widths for seed in seeds for step in steps
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("agents", "widths", "kept"),
    [
        (["omd", "mle", "vep"], [1, 2, 3, 12], {("omd", 1), ("mle", 1), ("omd", 3), ("mle", 3)}),
        (["omd", "mle"], [3], {("omd", 3), ("mle", 3)}),
        (["vep"], [12, 4, 6], {("vep", 4), ("vep", 6)}),
    ],
)
def test_figure_5_shows_the_papers_settings_or_else_what_was_run(agents, widths, kept):
    found = fig_omd_5.shown(runs(agents, widths))
    assert set(zip(found["agent"], found["width"], strict=True)) == kept
    curves = summarize(found, ["agent", "width", "step"], METRICS)
    figure, axes = plt.subplots()
    fig_omd_5.draw_curves(curves, axes, LOOKS, "eval_return")
    labels = axes.get_legend_handles_labels()[1]
    assert sorted(labels) == sorted(f"{agent.upper()}, width {width}" for agent, width in kept)
    plt.close(figure)


def test_figure_5_predicts_with_the_best_run_of_the_least_width():
    width = runs(["omd", "mle"], [3, 6])
    one = width[width["step"] == 10].assign(t=0, coordinate=0, true=0.0, predicted=1.0)
    chosen = fig_omd_5.best_runs(width, one)
    assert set(zip(chosen["agent"], chosen["width"], chosen["seed"], strict=True)) == {
        ("omd", 3, 2), ("mle", 3, 2)
    }  # fmt: skip
    assert (chosen["final"] == 320).all()


def test_entries_are_drawn_in_their_order_whatever_order_the_settings_have():
    facts = registry.facts("omd.agents")
    assert list(style.looks(dict(sorted(facts.items())))) == ["omd", "mle", "vep"]
