"""Configuration: what is refused and how, and that files and schemas keep in step."""

from pathlib import Path

import pytest
import yaml

from diffmbrl import config
from diffmbrl.errors import ConfigError

ROOT = Path(__file__).parents[1]

BAD = {
    "unknown key": ({"implicit": {"learning_rate": 1}}, "unknown key 'learning_rate'; known: "),
    "eta at 1": ({"implicit": {"etas": {"implicit": [1]}}}, "etas.implicit.0 = 1: must be below 1"),
    "negative rate": (
        {"implicit": {"learning_rates": {"chain": {"explicit": [-0.5]}}}},
        "learning_rates.chain.explicit.0 = -0.5: must be above 0",
    ),
    "no seeds": ({"implicit": {"seeds": []}}, "seeds = []: must have at least 1 item"),
    "unknown domain": ({"implicit": {"steps": {"maze": 3}}}, "steps: unknown key 'maze'; known: "),
    "unknown scale": (
        {"scale": "huge"},
        'scale = "huge": unknown; use one of laptop, paper, smoke, rates',
    ),
    "unknown paper": ({"papers": ["vin"]}, 'papers.0 = "vin": unknown; use one of'),
    "an experiment missing": (
        {"omd": {"cartpole": {"experiments": ["ablation"]}}},
        'experiments = ["ablation"]: must hold "width"',
    ),
    "tau above 1": (
        {"omd": {"cartpole": {"rates": {"width": {"vep": [[0.001, 1.5]]}}}}},
        "rates.width.vep.0.1 = 1.5: must be at most 1",
    ),
    "wrong type": ({"implicit": {"updates": "many"}}, 'updates = "many": must be of type integer'),
    "repeated seed": ({"implicit": {"seeds": [1, 1]}}, "must not repeat a value"),
    "not a mapping": ({"implicit": 3}, "must be a mapping"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_with_key_and_remedy(case):
    overrides, message = BAD[case]
    with pytest.raises(ConfigError) as error:
        config.load(ROOT, overrides)
    assert message in str(error.value)


def test_files_that_are_not_yaml(tmp_path):
    for folder in ("config", "workflow/schemas"):
        (tmp_path / folder).mkdir(parents=True)
        for file in (ROOT / folder).glob("*.yaml"):
            (tmp_path / folder / file.name).write_text(file.read_text())
    with pytest.raises(ConfigError, match=r"use one of none \(the files of config/scales/\)"):
        config.load(tmp_path)
    (tmp_path / "config/config.yaml").write_text("scale: [")
    with pytest.raises(ConfigError, match="config.yaml: not valid YAML"):
        config.load(tmp_path)


def test_command_line_wins_and_scales_overlay():
    loaded = config.load(ROOT, {"implicit": {"updates": "70", "etas": {"implicit": ["0.5"]}}})
    assert loaded["scales"]["laptop"]["implicit"]["updates"] == 70
    assert loaded["scales"]["laptop"]["implicit"]["etas"]["implicit"] == [0.5]
    loaded = config.load(ROOT, {"implicit": {"updates": 70}})
    assert all(
        loaded["scales"][scale]["implicit"]["updates"] == 70 for scale in config.scales(ROOT)
    )
    loaded = config.load(ROOT)
    assert len(loaded["scales"]["smoke"]["implicit"]["seeds"]) == 2
    assert len(loaded["scales"]["laptop"]["implicit"]["seeds"]) == 20


def test_equal_settings_share_results():
    loaded = config.load(ROOT)
    assert config.canonical_scale(loaded, "paper", "implicit") == "laptop"
    assert config.canonical_scale(loaded, "smoke", "implicit") == "smoke"


def test_implicit_is_the_published_grid():
    settings = config.load(ROOT)["scales"]["laptop"]["implicit"]
    runs = sum(
        len(settings["seeds"]) * len(rates[name]) * len(settings["etas"][name])
        * len(settings["reward_offsets"][name])
        for rates in settings["learning_rates"].values()
        for name in ("explicit", "implicit")
    )  # fmt: skip
    assert runs == 31_680


@pytest.mark.parametrize("name", [config.TOP_LEVEL, *config.PAPERS])
def test_file_and_schema_are_in_step(name):
    """Every key stands in both, the schema's default is the file's value, and is described."""
    values = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    schema = yaml.safe_load((ROOT / f"workflow/schemas/{name}.schema.yaml").read_text())
    assert schema["additionalProperties"] is False
    assert set(values) == set(schema["properties"])
    assert config._defaults(schema) == values
    for key, part in schema["properties"].items():
        assert part.get("description"), f"{key} is not described"


def test_lookup_names_the_missing_part():
    with pytest.raises(ConfigError, match="a.c: no such key \\(c is not among b\\)"):
        config.lookup({"a": {"b": 1}}, "a.c")
