"""Bad input: each refusal names the key and what would be right."""

from pathlib import Path

import numpy as np
import pytest

from diffmbrl import config, registry
from diffmbrl.errors import ConfigError
from diffmbrl.pipeline.stage import Job
from diffmbrl.rpg import exact, gradients, horizon, landscape, rules, setup, smoothness, theory
from diffmbrl.rpg.objective import Estimator

ROOT = Path(__file__).parents[1]
SETTINGS = config.load(ROOT).settings("rpg", "mujoco")
ARM = {"sn": "none", "layers": "hidden", "init": "orthogonal", "clip": 0, "rates": [0.001],
       "seeds": 1}  # fmt: skip


def learner(estimator="rp_dp", h=3, **change):
    settings = {**SETTINGS["learner"], **change}
    return setup.learner(settings, estimator, h, setup.environment("pendulum"), 1000)


def test_the_config_makes_every_learner():
    for job in rules.trained(SETTINGS):
        h = setup.steps(job["horizon"])
        assert learner(job["estimator"], h).h == h
    assert rules.longest(SETTINGS)[0] == {"task": "hybrid", "horizon": "h20"}


def test_a_scale_without_snapshots_only_trains():
    tuning = config.load(ROOT).settings("rpg", "tuning")
    left = {rule.stage for rule in rules.RULES if rule.instances(tuning)}
    assert left == {"rpg.train", "rpg.rates"}
    assert len(rules.trained(tuning)) == len(rules.trained(SETTINGS))


@pytest.mark.parametrize(("h", "word"), [(-1, "at least 0"), (201, "200 steps"), (2.5, "whole")])
def test_horizons_that_cannot_be(h, word):
    with pytest.raises(ConfigError, match=word):
        learner(h=h)


def test_model_segments_longer_than_an_episode():
    with pytest.raises(ConfigError, match="model_steps = 500: longer than any stored segment"):
        learner(model_steps=500)


def test_unknown_names():
    with pytest.raises(ConfigError, match="rpg.tasks: has no entry 'cartpole'; it has pendulum"):
        setup.environment("cartpole")
    with pytest.raises(ConfigError, match="rpg.estimators: has no entry 'svg'"):
        learner("svg")
    for key, value in (("sn", "critic"), ("layers", "first"), ("init", "zeros")):
        with pytest.raises(ConfigError, match=f"{key} = '{value}': unknown; use one of"):
            setup.runs([{**ARM, key: value}])


def test_runs_and_their_arrays():
    first = {**ARM, "sn": "model", "init": "uniform", "seeds": 2, "rates": [0.1, 0.2]}
    runs = setup.runs([first, {**ARM, "layers": "all", "clip": 3}])
    arrays = setup.configs(runs, 1.5)
    assert arrays["seed"].tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_allclose(arrays["rate"], [0.1, 0.1, 0.2, 0.2, 0.001])
    assert arrays["model"].tolist() == [True] * 4 + [False]
    assert arrays["policy"].tolist() == [False] * 5
    assert arrays["every"].tolist() == [False] * 4 + [True]
    assert arrays["uniform"].tolist() == [True] * 4 + [False]
    assert arrays["clip"].tolist() == [np.inf] * 4 + [3]


@pytest.mark.parametrize(
    ("stage", "section", "change", "message"),
    [
        (
            gradients,
            "gradients",
            {"samples": 100},
            "gradients.samples = 100: must be a multiple of 32",
        ),
        (exact, "exact", {"samples": 25}, "exact.samples = 25: must be a multiple of 10"),
        (
            landscape,
            "landscape",
            {"states": 165},
            "landscape.states = 165: must be at most schedule.stored_segments = 64",
        ),
        (
            smoothness,
            "smoothness",
            {"samples": 100},
            "smoothness.samples = 100: must be a multiple of 64",
        ),
        (horizon, "horizon_study", {"horizons": [0, -1]}, "horizon = -1: must be a whole number"),
        (theory, "theory", {"horizons": [1, -1]}, "horizon = -1: must be a whole number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_counts_that_do_not_fit_are_refused_before_any_work(
    stage, section, change, message, monkeypatch
):
    """Before any work: there are no inputs to read, and nothing may be compiled."""
    monkeypatch.setattr("jax.jit", None)
    settings = {"task": "hybrid", "learner": SETTINGS["learner"], "horizon": "h3", "arms": [ARM]}
    settings["schedule"] = SETTINGS["tasks"]["hybrid"]["schedule"]
    settings |= {"gamma": 0.99, section: {**SETTINGS[section], **change}}
    with pytest.raises(ConfigError) as error:
        stage.run(Job(settings, {}, {}, 1, Path("scratch")))
    assert str(error.value).startswith(message)


def test_entries_state_what_figures_and_claims_need():
    found = registry.facts("rpg.estimators")
    assert list(found) == ["sac", "rp_dp", "rp_dr", "lr"]
    assert found["rp_dp"]["LABEL"] == "RP-DP"
    for name in found:
        assert isinstance(setup.estimator(name), Estimator)
    for name, facts in registry.facts("rpg.tasks").items():
        assert {"LABEL", "COLOR", "ORDER", "SOLVED"} <= set(facts)
        assert setup.environment(name).time_limit > 0
    assert registry.facts("rpg.tasks")["pendulum"]["SOLVED"] == -200
