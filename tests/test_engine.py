"""The sweep engine: independence of threads and company, resumption to the same bytes."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffmbrl.sweep import checkpoints, engine
from diffmbrl.sweep.grid import grid


def noisy_walk(segments=6, lanes=2, **kwargs):
    """A run whose state is a matrix that is rotated and perturbed, differently for each config."""

    def init(config, data):
        key = jax.random.fold_in(jax.random.PRNGKey(0), config["seed"])
        return {"x": data["start"] * config["scale"], "key": key}

    def advance(config, data, state):
        key, use = jax.random.split(state["key"])
        x = jnp.tanh(data["map"] @ state["x"]) + 0.1 * jax.random.normal(use, state["x"].shape)
        return {"x": x, "key": key}, {"norm": jnp.linalg.norm(x), "first": x[0]}

    return engine.Program(init, advance, segments=segments, lanes=lanes, **kwargs)


@pytest.fixture
def data():
    return {"start": np.arange(5.0), "map": np.linspace(-1, 1, 25).reshape(5, 5)}


CONFIGS = grid({"seed": np.arange(7), "scale": [0.5, 2.0]})


def as_bytes(metrics):
    return {name: value.tobytes() for name, value in metrics.items()}


def test_shapes_and_order(data):
    metrics = engine.run(noisy_walk(), CONFIGS, data)
    assert metrics["norm"].shape == (14, 6)
    alone = engine.run(noisy_walk(), {k: v[3:4] for k, v in CONFIGS.items()}, data)
    assert metrics["norm"][3:4].tobytes() == alone["norm"].tobytes()


def test_threads_do_not_matter(data):
    one = engine.run(noisy_walk(), CONFIGS, data, threads=1)
    two = engine.run(noisy_walk(), CONFIGS, data, threads=2)
    assert as_bytes(one) == as_bytes(two)


def test_company_does_not_matter(data):
    whole = engine.run(noisy_walk(lanes=4), CONFIGS, data)
    order = np.random.default_rng(0).permutation(14)
    mixed = engine.run(noisy_walk(lanes=4), {k: v[order] for k, v in CONFIGS.items()}, data)
    assert {k: v[order].tobytes() for k, v in whole.items()} == as_bytes(mixed)


def test_measured_first(data):
    def first(config, data, state):
        return {"norm": jnp.linalg.norm(state["x"]), "first": state["x"][0]}

    metrics = engine.run(noisy_walk(first=first), CONFIGS, data)
    assert metrics["norm"].shape == (14, 7)
    expected = np.linalg.norm(data["start"]) * CONFIGS["scale"]
    np.testing.assert_allclose(metrics["norm"][:, 0], expected)


@pytest.mark.usefixtures("compiled_afresh", "compiled_as_results")
def test_cut_off_and_resumed_gives_the_same_bytes(data, tmp_path, monkeypatch, capsys):
    program = noisy_walk(segments_per_call=2)
    undisturbed = engine.run(program, CONFIGS, data)
    assert as_bytes(undisturbed) == as_bytes(engine.run(noisy_walk(), CONFIGS, data))
    save, saved = checkpoints.Checkpoints.save, []

    def save_then_die(self, index, *rest):
        save(self, index, *rest)
        saved.append(index)
        if len(saved) == 8:
            raise OSError("killed")

    monkeypatch.setattr(checkpoints.Checkpoints, "save", save_then_die)
    with pytest.raises(OSError, match="killed"):
        engine.run(program, CONFIGS, data, checkpoint=tmp_path)
    monkeypatch.setattr(checkpoints.Checkpoints, "save", save)
    capsys.readouterr()
    again = engine.run(program, CONFIGS, data, checkpoint=tmp_path)
    assert "| 14/14 [" in capsys.readouterr().err  # what was done before counts as done
    assert as_bytes(undisturbed) == as_bytes(again)


def test_measured_last_survives_a_checkpoint(data, tmp_path):
    def last(config, data, state):
        return {"end": 2 * state["x"], "scale": config["scale"]}

    program = noisy_walk(segments_per_call=2, last=last)
    metrics = engine.run(program, CONFIGS, data, checkpoint=tmp_path)
    assert metrics["end"].shape == (14, 1, 5)
    assert metrics["norm"].shape == (14, 6)
    np.testing.assert_array_equal(metrics["scale"][:, 0], CONFIGS["scale"])
    norms = np.linalg.norm(metrics["end"][:, 0], axis=-1)
    np.testing.assert_allclose(norms, 2 * metrics["norm"][:, -1])
    assert as_bytes(engine.run(program, CONFIGS, data, checkpoint=tmp_path)) == as_bytes(metrics)
    plain = engine.run(noisy_walk(segments_per_call=2), CONFIGS, data)
    assert plain["norm"].tobytes() == metrics["norm"].tobytes()


def test_a_checkpoint_of_one_device_is_not_taken_up_on_another(data, tmp_path, monkeypatch):
    """On a GPU a call trains other numbers of runs, whose saved groups are of other sizes."""
    configs = {name: values[:6] for name, values in CONFIGS.items()}
    program = noisy_walk(lanes=2, gpu_lanes=4)
    engine.run(program, configs, data, checkpoint=tmp_path)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    metrics = engine.run(program, configs, data, checkpoint=tmp_path)
    assert metrics["norm"].shape == (6, 6)
    assert as_bytes(metrics) == as_bytes(engine.run(program, configs, data))


def test_a_checkpoint_is_of_one_platform_and_sweep(data, tmp_path, monkeypatch):
    def count(program, configs=CONFIGS):
        engine.run(program, configs, data, checkpoint=tmp_path)
        return len(list(tmp_path.iterdir()))

    program = noisy_walk(segments_per_call=2)
    assert [count(program), count(program)] == [1, 1]
    assert count(noisy_walk(segments_per_call=3)) == 2
    assert count(program, {"seed": CONFIGS["seed"], "scale": -CONFIGS["scale"]}) == 3
    monkeypatch.setattr(engine.device, "platform", lambda: "cpu: other pins")
    assert count(program) == 4


SAVER = """
import shutil, sys, numpy as np
from pathlib import Path
from diffmbrl.sweep.checkpoints import Checkpoints, Progress

folder, removes = Path(sys.argv[1]), sys.argv[2] == "removes"
store = Checkpoints(folder, "cpu", {"seed": np.arange(3)})
parts = [{"norm": np.full((3, 2), 7.0)}]
for i in range(500):
    store.save(0, Progress(2, [np.arange(1000.0)], parts))
    if removes and i % 5 == 0:
        shutil.rmtree(folder, ignore_errors=True)
store.save(0, Progress(2, [np.arange(1000.0)], parts))
"""


@pytest.mark.parametrize("other", ["keeps", "removes"])
def test_two_processes_save_one_group_at_the_same_time(tmp_path, other):
    """A job that ends removes the folder of its unfinished work, under the other one too."""
    command = [sys.executable, "-c", SAVER, str(tmp_path / "scratch")]
    both = [
        subprocess.Popen([*command, how], stderr=subprocess.PIPE, text=True)
        for how in ("keeps", other)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    store = checkpoints.Checkpoints(tmp_path / "scratch", "cpu", {"seed": np.arange(3)})
    if other == "keeps":
        progress = store.load(0)
        np.testing.assert_array_equal(progress.state[0], np.arange(1000.0))
        assert progress.parts[0]["norm"].tolist() == [[7.0, 7.0]] * 3
    assert not list(tmp_path.rglob(".partial*"))


def test_damaged_checkpoint_is_started_afresh(data, tmp_path):
    program = noisy_walk(segments_per_call=2)
    undisturbed = engine.run(program, CONFIGS, data, checkpoint=tmp_path)
    for file in list(tmp_path.rglob("*.npz"))[:3]:
        file.write_bytes(file.read_bytes()[:100])
    assert as_bytes(undisturbed) == as_bytes(
        engine.run(program, CONFIGS, data, checkpoint=tmp_path)
    )


def test_refusals(data):
    with pytest.raises(ValueError, match="must divide"):
        noisy_walk(segments=6, segments_per_call=4)
    with pytest.raises(ValueError, match="at least 1 run"):
        engine.run(noisy_walk(), {"seed": np.zeros(0), "scale": np.zeros(0)}, data)
    with pytest.raises(ValueError, match="learning_rate: has no values"):
        grid({"learning_rate": []})


def test_grid_varies_the_last_axis_fastest():
    runs = grid({"a": [1, 2], "b": [10, 20, 30]})
    assert runs["a"].tolist() == [1, 1, 1, 2, 2, 2]
    assert runs["b"].tolist() == [10, 20, 30, 10, 20, 30]
