"""Figures of rpg: what the drawing functions put on their axes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from diffmbrl.plots import fig_rpg_1, fig_rpg_2, fig_rpg_3, fig_rpg_8, rpg


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_returns_have_a_line_for_each_method(axes):
    frame = pd.DataFrame({
        "estimator": ["sac", "sac", "rp_dp", "rp_dp"], "horizon": [0, 0, 3, 3],
        "sn": ["none", "none", "both", "both"], "step": [2, 1, 1, 2],
        "return_mean": [-1.0, -2.0, -3.0, -4.0], "return_low": -5.0, "return_high": 0.0,
    })  # fmt: skip
    lines = {line.get_label(): line for line in fig_rpg_1.draw(frame, axes).get_lines()}
    assert {"SAC (h = 0)", "RP-DP, h = 3, SN on both"} <= set(lines)
    np.testing.assert_array_equal(lines["SAC (h = 0)"].get_ydata(), [-2, -1])


def test_values_at_or_below_zero_are_left_out_of_log_axes(axes):
    frame = pd.DataFrame({
        "sn": "none", "init": "orthogonal", "horizon": [0, 1, 2], "trace": [-1.0, 2.0, 3.0],
        "trace_low": [-2.0, -1.0, 2.5], "trace_high": [1.0, 4.0, 5.0],
    })  # fmt: skip
    (line,) = fig_rpg_2.draw(frame, axes, "trace").get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 2])
    low = axes.collections[0].get_paths()[0].vertices[:, 1].min()
    assert low == 2.0


def test_roughness_is_zero_on_a_plane_and_grows_with_ripples():
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(-1, 1, 11), np.linspace(-1, 1, 11)))
    plane = pd.DataFrame({"x": x, "y": y, "objective": 2 * x - y})
    ripples = plane.assign(objective=np.sin(8 * x))
    assert fig_rpg_3.roughness(plane) < 1e-12
    assert fig_rpg_3.roughness(ripples) > 0.1


def test_predicted_shapes_meet_the_last_measured_point(axes):
    frame = pd.DataFrame({
        "study": "batch", "x": [1, 4], "horizon": [1, 4], "value": [8.0, 3.0],
        "value_low": [7.0, 2.0], "value_high": [9.0, 4.0],
    })  # fmt: skip
    measured, predicted = fig_rpg_8.draw(frame, axes, "x", "h", lambda _, n: 1 / n).get_lines()
    np.testing.assert_allclose(measured.get_ydata(), [8, 3])
    np.testing.assert_allclose(predicted.get_ydata(), [12, 3])


def test_notes_name_scale_and_seeds():
    assert rpg.note({"scale": "smoke"}, "a", "b") == "scale smoke · a · b"
    assert rpg.seeds(pd.DataFrame({"n_runs": [3, 5, 5]})) == "3 or 5 seeds"
