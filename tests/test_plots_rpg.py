"""Figures of rpg: what the drawing functions put on their axes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from diffmbrl import registry
from diffmbrl.plots import fig_rpg_1, fig_rpg_3, fig_rpg_6, fig_rpg_8, rpg

LOOKS = rpg.looks(registry.facts("rpg.estimators"))


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


ARM = {"layers": "hidden", "init": "orthogonal", "clip": 0.0}


def test_a_task_has_a_panel_for_each_horizon_and_one_for_other_estimators():
    rows = [
        {"estimator": estimator, "horizon": h, "sn": sn, **ARM, "step": step, "return_mean": -step,
         "return_low": -5.0, "return_high": 0.0}
        for estimator, h, sn in (("sac", 0, "none"), ("rp_dp", 3, "none"), ("rp_dp", 3, "both"),
                                 ("lr", 3, "none"))
        for step in (2, 1)
    ]  # fmt: skip
    figure, axes = plt.subplots(1, 2)
    fig_rpg_1.panels(pd.DataFrame(rows), LOOKS, axes)
    ours, other = ({line.get_label(): line for line in ax.get_lines()} for ax in axes)
    assert set(ours) == {"SAC (no model)", "no SN", "SN on both"}
    assert set(other) == {"SAC (no model)", "likelihood ratio, h = 3, no SN"}
    np.testing.assert_array_equal(ours["SN on both"].get_ydata(), [-1, -2])
    assert axes[0].get_title() == "RP-DP, h = 3"
    plt.close(figure)


def test_a_line_runs_through_the_mean_of_logs_and_every_run_has_a_dot(axes):
    runs = pd.DataFrame({"horizon": [1, 1, 8, 8], "ratio": [1.0, 100.0, 4.0, 4.0]})
    rpg.by_h(axes, runs, "ratio", True, rpg.Look("a", (0, 0, 0)), 0.0)
    (line,) = axes.get_lines()
    np.testing.assert_allclose(line.get_ydata(), [10, 4])
    assert len(axes.collections[0].get_offsets()) == 4


def test_arms_have_dots_and_an_interval(axes):
    part = pd.DataFrame({"area": [1.0, 2.0, 3.0]})
    one = pd.DataFrame({"area": [2.0]})
    rpg.by_arm(axes, [(rpg.Look("a", (0, 0, 0)), part), (rpg.Look("b", (0, 0, 1)), one)], "area")
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["a", "b"]
    dots = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert [len(c.get_offsets()) for c in dots] == [3, 1]
    axes.figure.canvas.draw()


def test_arms_are_told_apart_by_placement_layers_and_clipping():
    frame = pd.DataFrame({
        "sn": ["none", "both", "both", "none"], "layers": ["hidden", "hidden", "all", "hidden"],
        "init": "orthogonal", "clip": [0.0, 0.0, 0.0, 1.0],
    })  # fmt: skip
    labels = [look.label for look in rpg.arms(frame)]
    assert labels == ["no SN", "SN on both", "SN on both, all layers", "no SN, gradient clipped"]


def test_roughness_is_zero_on_a_plane_and_grows_with_ripples():
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(-1, 1, 11), np.linspace(-1, 1, 11)))
    plane = pd.DataFrame({"x": x, "y": y, "objective": 2 * x - y})
    ripples = plane.assign(objective=np.sin(8 * x))
    assert fig_rpg_3.roughness(plane) < 1e-12
    assert fig_rpg_3.roughness(ripples) > 0.1


def test_degrees_by_hand():
    """tr = L^(3 h) has degree 3 h."""
    rows = [{"seed": 0, "horizon": h, "x": x, "value": x ** (3 * h)}
            for h in (1, 4) for x in (0.8, 1.0, 1.2)]  # fmt: skip
    np.testing.assert_allclose(fig_rpg_8.degrees(pd.DataFrame(rows))["degree"], [3, 12])


def test_returns_are_held_against_training_in_the_true_dynamics():
    frame = pd.DataFrame({"stiffness": 1.0, "seed": 0, "sn": ["true system", "none"],
                          "return_trained": [-1.0, -3.0]})  # fmt: skip
    assert fig_rpg_6.against_true(frame)["below"].tolist() == [0, 2]


def test_notes_name_scale_and_seeds():
    assert rpg.note({"scale": "smoke"}, "a", "b") == "scale smoke · a · b"
    assert rpg.seeds(pd.DataFrame({"n_runs": [3, 5, 5]})) == "3 or 5 seeds"
    assert rpg.seeds(pd.DataFrame({"sn": ["a", "a", "b"], "seed": [0, 1, 0]})) == "1 or 2 seeds"
