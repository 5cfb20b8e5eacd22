"""Configuration: what is refused and how, layers, and that every key is described."""

import shutil
from pathlib import Path

import pytest

from diffmbrl import config, settings
from diffmbrl.errors import ConfigError

ROOT = Path(__file__).parents[1]

# What is given, and what the one line that refuses it must say.
ARM = {"sn": "none", "layers": "hidden", "init": "orthogonal", "clip": 0, "rates": [0.1],
       "seeds": 1}  # fmt: skip
BAD = {
    "unknown top-level key": (
        {"paper": ["omd"]},
        "top level: unknown key 'paper'; known: device, environment, judged, papers, scale",
    ),
    "unknown scale": (
        {"scale": "huge"},
        'scale = "huge": unknown; use one of laptop, paper, smoke, cartpole, levels, locomotion, '
        "mujoco, rates",
    ),
    "scale is a number": ({"scale": 3}, "scale = 3: must be of type string"),
    "unknown paper": (
        {"papers": ["vin"]},
        'papers.0 = "vin": unknown; use one of implicit, omd, rpg',
    ),
    "no papers": ({"papers": []}, "papers = []: must have at least 1 item"),
    "a paper twice": ({"papers": ["omd", "omd"]}, "must not repeat a value"),
    "a scale to judge by that is not there": (
        {"judged": ["huge", "laptop"]},
        'config/config.yaml: judged.0 = "huge": unknown; use one of laptop, paper, smoke',
    ),
    "a scale that has none of the papers": (
        {"scale": "tuning", "papers": ["implicit", "omd"]},
        'config/config.yaml: papers = ["implicit", "omd"]: scale tuning has none of them; '
        "config/scales/tuning.yaml names rpg",
    ),
    "no case": ({"omd": {"cases": []}}, "cases = []: must have at least 1 item"),
    "unknown device": ({"device": "tpu"}, 'device = "tpu": unknown; use one of auto, cpu, gpu'),
    "unknown environment": (
        {"environment": "some"},
        'environment = "some": unknown; use one of locked, any',
    ),
    "not a mapping": ({"implicit": 3}, "must be a mapping of implicit's keys"),
    "unknown key": (
        {"implicit": {"learning_rate": 1}},
        "unknown key 'learning_rate'; known: batch_size, ",
    ),
    "no seeds": ({"implicit": {"seeds": []}}, "seeds = []: must have at least 1 item"),
    "repeated seed": ({"implicit": {"seeds": [1, 1]}}, "must not repeat a value"),
    "negative seed": ({"implicit": {"seeds": [-1]}}, "seeds.0 = -1: must be at least 0"),
    "epsilon above 1": ({"implicit": {"epsilon": 2}}, "epsilon = 2: must be at most 1"),
    "wrong type": ({"implicit": {"updates": "many"}}, 'updates = "many": must be of type integer'),
    "no updates": ({"implicit": {"updates": 0}}, "updates = 0: must be at least 1"),
    "a fraction of updates": (
        {"implicit": {"updates": 1.5}},
        "updates = 1.5: must be of type integer",
    ),
    "updates do not divide": (
        {"implicit": {"updates": 25}},
        "updates = 25: must be a multiple of log_every = 10",
    ),
    "a truth for a number": (
        {"implicit": {"batch_size": True}},
        "batch_size = true: must be of type integer",
    ),
    "unknown domain": (
        {"implicit": {"domains": {"maze": {"trajectories": 1, "steps": 3}}}},
        "domains: unknown key 'maze'; known: chain, four_rooms, mountain_car",
    ),
    "no trajectories": (
        {"implicit": {"domains": {"chain": {"trajectories": 0}}}},
        "domains.chain.trajectories = 0: must be at least 1",
    ),
    "unknown key of a domain": (
        {"implicit": {"domains": {"chain": {"step": 1}}}},
        "domains.chain: unknown key 'step'; known: steps, trajectories",
    ),
    "unknown parameterization": (
        {"implicit": {"parameterizations": {"explicitly": {"etas": [0.5]}}}},
        "parameterizations: unknown key 'explicitly'; known: explicit, implicit, implicit_mdp",
    ),
    "eta at 1": (
        {"implicit": {"parameterizations": {"implicit": {"etas": [1]}}}},
        "parameterizations.implicit.etas.0 = 1: must be below 1",
    ),
    "no etas": (
        {"implicit": {"parameterizations": {"implicit": {"etas": []}}}},
        "etas = []: must have at least 1 item",
    ),
    "negative rate": (
        {"implicit": {"parameterizations": {"explicit": {"learning_rates": {"chain": [-0.5]}}}}},
        "learning_rates.chain.0 = -0.5: must be above 0",
    ),
    "rates of no domain": (
        {"implicit": {"parameterizations": {"explicit": {"learning_rates": {"maze": [0.5]}}}}},
        "parameterizations.explicit.learning_rates: unknown key 'maze'; known: chain, four_rooms",
    ),
    "rates of a domain missing": (
        {"implicit": {"parameterizations": {"explicit": {"learning_rates": {"chain": None}}}}},
        "parameterizations.explicit.learning_rates: has no rates for domain 'chain'",
    ),
    "unknown backup": (
        {"implicit": {"parameterizations": {"implicit": {"backups": ["mean"]}}}},
        'backups.0 = "mean": unknown; use one of max, logsumexp',
    ),
    "no temperature": (
        {"implicit": {"parameterizations": {"implicit_mdp": {"temperature": 0}}}},
        "temperature = 0: must be above 0",
    ),
    "a key taken away": ({"implicit": {"epsilon": None}}, "epsilon: is missing; it has no default"),
    "one norm bound": (
        {"omd": {"tabular": {"norm_bounds": 1}}},
        "tabular.norm_bounds = 1: must be at least 2",
    ),
    "three exponents": (
        {"omd": {"tabular": {"sigma_exponents": [1, 2, 3]}}},
        "must have at most 2 items",
    ),
    "unknown projection": (
        {"omd": {"tabular": {"projections": ["none"]}}},
        'projections.0 = "none": unknown; use one of published, joint',
    ),
    "unknown agent": (
        {"omd": {"cartpole": {"agents": {"dqn": {"rates": {"width": [[0.001, 0.01]]}}}}}},
        "cartpole.agents: unknown key 'dqn'; known: omd, mle, vep",
    ),
    "an experiment missing": (
        {"omd": {"cartpole": {"experiments": ["ablation"]}}},
        'experiments = ["ablation"]: must hold "width"',
    ),
    "unknown experiment": (
        {"omd": {"cartpole": {"experiments": ["width", "depth"]}}},
        'experiments.1 = "depth": unknown; use one of width, selection, distractors, '
        "parts, ablation",
    ),
    "tau above 1": (
        {"omd": {"cartpole": {"agents": {"vep": {"rates": {"width": [[0.001, 1.5]]}}}}}},
        "agents.vep.rates.width.0.1 = 1.5: must be at most 1",
    ),
    "a rate without tau": (
        {"omd": {"cartpole": {"agents": {"vep": {"rates": {"width": [[0.001]]}}}}}},
        "agents.vep.rates.width.0.1: is missing",
    ),
    "rates of no experiment": (
        {"omd": {"cartpole": {"agents": {"vep": {"rates": {"depth": [[0.001, 0.01]]}}}}}},
        "agents.vep.rates",
    ),
    "an experiment that OMD has no rates for": (
        {"omd": {"cartpole": {"agents": {"omd": {"rates": {"parts": None}}}}}},
        "cartpole.agents.omd.rates: has none for experiment 'parts'",
    ),
    "steps do not divide": (
        {"omd": {"cartpole": {"steps": 1500}}},
        "cartpole.steps = 1500: must be a multiple of evaluate_every = 1000",
    ),
    "warm-up too long": (
        {"omd": {"cartpole": {"warmup": 5000}}},
        "cartpole.warmup = 5000: must be at most evaluate_every = 1000",
    ),
    "batch above the warm-up": (
        {"omd": {"cartpole": {"batch": 2000}}},
        "cartpole.batch = 2000: must be at most warmup = 1000",
    ),
    "negative distractors": (
        {"omd": {"cartpole": {"distractors": {"distractors": [-1]}}}},
        "distractors.distractors.0 = -1: must be at least 0",
    ),
    "unknown precision": (
        {"omd": {"cartpole": {"precision": "half"}}},
        'precision = "half": unknown; use one of float32, float64',
    ),
    "unknown task": (
        {"rpg": {"tasks": {"maze": {}}}},
        "tasks: unknown key 'maze'; known: pendulum, hybrid",
    ),
    "unknown estimator": (
        {"rpg": {"tasks": {"hybrid": {"estimators": {"rp": {"h3": [ARM]}}}}}},
        "tasks.hybrid.estimators.rp: unknown estimator; use one of sac, rp_dp, rp_dr, lr",
    ),
    "unknown placement": (
        {"rpg": {"tasks": {"hybrid": {"estimators": {"sac": {"h0": [{**ARM, "sn": "some"}]}}}}}},
        'estimators.sac.h0.0.sn = "some": unknown; use one of none, model, policy, both',
    ),
    "an arm twice": (
        {"rpg": {"tasks": {"hybrid": {"estimators": {"sac": {"h0": [ARM, ARM]}}}}}},
        "must not repeat a value",
    ),
    "no horizon": (
        {"rpg": {"tasks": {"hybrid": {"estimators": {"rp_dp": {"three": [ARM]}}}}}},
        "tasks.hybrid.estimators.rp_dp.three",
    ),
    "sac with a model": (
        {"rpg": {"tasks": {"hybrid": {"estimators": {"sac": {"h2": [ARM]}}}}}},
        "tasks.hybrid.estimators.sac: horizons h0, h2: must be h0: it has no model",
    ),
    "samples do not divide": (
        {"rpg": {"exact": {"samples": 25}}},
        "exact.samples = 25: must be a multiple of 10",
    ),
    "gradients do not divide": (
        {"rpg": {"gradients": {"samples": 100}}},
        "gradients.samples = 100: must be a multiple of batch = 32",
    ),
    "as many true gradients": (
        {"rpg": {"gradients": {"true_samples": 256}}},
        "gradients.true_samples = 256: must be below samples = 256",
    ),
    "looks do not divide": (
        {"rpg": {"convergence": {"updates": 65}}},
        "convergence.updates = 65: must be a multiple of look_every = 10",
    ),
    "smoothness samples": (
        {"rpg": {"smoothness": {"samples": 100}}},
        "smoothness.samples = 100: must be a multiple of 64",
    ),
    "discount of 1": (
        {"rpg": {"horizon_study": {"gammas": [1]}}},
        "horizon_study.gammas.0 = 1: must be below 1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_with_key_and_remedy(case):
    overrides, message = BAD[case]
    with pytest.raises(ConfigError) as error:
        config.load(ROOT, overrides)
    assert message in str(error.value)


def test_files_that_are_not_yaml(tmp_path):
    (tmp_path / "config").mkdir()
    for file in (ROOT / "config").glob("*.yaml"):
        shutil.copy(file, tmp_path / "config")
    with pytest.raises(ConfigError, match=r"use one of none \(the files of config/scales/\)"):
        config.load(tmp_path)
    (tmp_path / "config/config.yaml").write_text("scale: [")
    with pytest.raises(ConfigError, match="config.yaml: not valid YAML"):
        config.load(tmp_path)


def test_command_line_wins_and_scales_overlay():
    etas = {"parameterizations": {"implicit": {"etas": ["0.5"]}}}
    loaded = config.load(ROOT, {"implicit": {"updates": "70", **etas}})
    laptop = loaded.settings("implicit", "laptop")
    assert laptop["updates"] == 70
    assert laptop["parameterizations"]["implicit"]["etas"] == [0.5]
    loaded = config.load(ROOT, {"implicit": {"updates": 70}})
    assert {loaded.settings("implicit", s)["updates"] for s in loaded.scales_of("implicit")} == {70}
    loaded = config.load(ROOT)
    assert len(loaded.settings("implicit", "smoke")["seeds"]) == 2
    assert len(loaded.settings("implicit", "laptop")["seeds"]) == 20


def test_null_leaves_an_entry_out_and_entries_bring_their_smoke_values():
    loaded = config.load(ROOT)
    assert list(loaded.settings("omd", "smoke")["cartpole"]["agents"]) == ["omd", "mle"]
    assert list(loaded.settings("omd", "laptop")["cartpole"]["agents"]) == ["omd", "mle", "vep"]
    smoke = loaded.settings("implicit", "smoke")
    assert list(smoke["domains"]) == ["chain", "four_rooms"]
    rates = smoke["parameterizations"]["implicit_mdp"]["learning_rates"]
    assert rates == {"chain": [0.0078125], "four_rooms": [0.5]}


def test_equal_settings_share_results():
    loaded = config.load(ROOT)
    assert loaded.home_of("implicit", "paper") == "laptop"
    assert loaded.home_of("implicit", "smoke") == "smoke"


def test_a_scale_has_the_papers_that_its_file_names():
    loaded = config.load(ROOT)
    assert list(loaded.scales["cartpole"]) == ["omd"]
    assert "cartpole" not in loaded.scales_of("rpg")
    assert loaded.home_of("rpg", "mujoco") == "mujoco"
    with pytest.raises(ConfigError, match="scale cartpole has no rpg: config/scales/cartpole.yaml"):
        loaded.settings("rpg", "cartpole")


def test_implicit_is_the_published_grid():
    found = config.load(ROOT).settings("implicit", "laptop")
    runs = sum(
        len(found["seeds"]) * len(rates) * len(p["etas"]) * len(p["reward_offsets"])
        for name, p in found["parameterizations"].items()
        if name in ("explicit", "implicit")
        for rates in p["learning_rates"].values()
    )
    assert runs == 31_680


@pytest.mark.parametrize("paper", config.papers())
def test_every_key_is_described_and_has_no_default(paper):
    described = dict(settings.describe(config.settings_type(paper)))
    assert len(described) > 15
    assert all(described.values()), [key for key, text in described.items() if not text]
    stack = [config.settings_type(paper)]
    while stack:
        group = stack.pop()
        for name, field in group.model_fields.items():
            assert field.is_required(), f"{group.__name__}.{name} has a default"
            stack += [inner for inner, _ in settings._groups(field.annotation)]


def test_lookup_names_the_missing_part():
    with pytest.raises(ConfigError, match="a.c: no such key \\(c is not among b\\)"):
        config.lookup({"a": {"b": 1}}, "a.c")
