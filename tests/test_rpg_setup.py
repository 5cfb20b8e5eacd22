"""Bad input: each refusal names the key and what would be right."""

from pathlib import Path

import pytest
import yaml

from diffmbrl.errors import ConfigError
from diffmbrl.rpg import setup

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "config/rpg.yaml").read_text())


def learner(estimator="rp_dp", h=3, **change):
    settings = {**SETTINGS["learner"], **change}
    return setup.learner(settings, estimator, h, setup.environment("pendulum"), 1000)


def test_the_config_makes_every_learner():
    for estimator, h in SETTINGS["horizons"].items():
        assert learner(estimator, h).h == h


@pytest.mark.parametrize(("h", "word"), [(-1, "at least 0"), (201, "200 steps"), (2.5, "whole")])
def test_horizons_that_cannot_be(h, word):
    with pytest.raises(ConfigError, match=word):
        learner(h=h)


def test_model_segments_longer_than_an_episode():
    with pytest.raises(ConfigError, match="model_steps = 500: longer than any stored segment"):
        learner(model_steps=500)


def test_unknown_names():
    with pytest.raises(
        ConfigError, match="task = 'cartpole': unknown; use one of pendulum, hybrid"
    ):
        setup.environment("cartpole")
    with pytest.raises(ConfigError, match="estimator = 'svg'"):
        learner("svg")
    with pytest.raises(ConfigError, match="sn_layers = 'first'"):
        learner(sn_layers="first")
    with pytest.raises(ConfigError, match="placement 'critic'"):
        setup.runs([["critic", "orthogonal", 1]], 1.0)
    with pytest.raises(ConfigError, match="init 'zeros'"):
        setup.runs([["none", "zeros", 1]], 1.0)


@pytest.mark.parametrize("target", [0, -1.0])
def test_targets_must_be_positive(target):
    with pytest.raises(ConfigError, match="sn_target"):
        setup.runs([["none", "orthogonal", 1]], target)


def test_runs_and_their_arrays():
    runs = setup.runs([["model", "uniform", 2], ["none", "orthogonal", 1]], 1.5)
    arrays = setup.configs(runs, 1.5)
    assert arrays["seed"].tolist() == [0, 1, 0]
    assert arrays["sn_model"].tolist() == [True, True, False]
    assert arrays["sn_policy"].tolist() == [False] * 3
    assert arrays["uniform"].tolist() == [True, True, False]
