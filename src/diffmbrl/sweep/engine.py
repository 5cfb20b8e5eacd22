"""The sweep engine: one compiled program trains every run of a sweep.

Runs are stacked into one pytree of configs, cut into groups of `lanes` runs, and each group
is one call of the same executable, `jit(vmap(...))`. Groups are independent, so threads take
them as they come; since every call runs the same executable on one thread, results do not
depend on the number of threads, nor on which runs share a group.
"""

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

PyTree = Any


@dataclass(frozen=True)
class Program:
    """Training of one run, cut into segments, as pure functions of one run.

    Attributes:
        init: `(config, data) -> state`.
        advance: `(config, data, state) -> (state, metrics)`, one segment of training.
        segments: how many segments a run has; metrics are stacked along them.
        first: `(config, data, state) -> metrics`, measured before the first segment; None for
            programs that are not measured there.
        lanes: how many runs one call trains side by side on a CPU.
        gpu_lanes: the same on a GPU, where width is cheap.
        segments_per_call: segments between two returns to the host, where a run can be
            checkpointed; None for all. Must divide `segments`.
    """

    init: Callable[[PyTree, PyTree], PyTree]
    advance: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    segments: int
    lanes: int = 1
    gpu_lanes: int = 256
    segments_per_call: int | None = None
    first: Callable[[PyTree, PyTree, PyTree], PyTree] | None = None

    def __post_init__(self):
        if self.segments < 1 or self.lanes < 1 or self.gpu_lanes < 1:
            raise ValueError("segments, lanes and gpu_lanes must be at least 1")
        if self.segments % (self.segments_per_call or self.segments):
            raise ValueError(
                f"segments_per_call={self.segments_per_call} must divide segments={self.segments}"
            )


def run(
    program: Program,
    configs: PyTree,
    data: PyTree,
    *,
    threads: int = 1,
    checkpoint: Path | None = None,
    label: str = "",
) -> PyTree:
    """Trains every run of a sweep.

    Args:
        program: training of one run.
        configs: arrays with a leading axis of length `runs`, one entry a run.
        data: arrays shared by all runs (a run picks its own part by what its config says).
        threads: how many groups are trained at the same time.
        checkpoint: a folder in which unfinished work is kept; a later call with the same
            arguments goes on from there and returns the same bytes.
        label: what the progress bar says.

    Returns:
        Metrics as numpy arrays, leading axes (runs, segments), or (runs, 1 + segments) for a
        program that is measured first.
    """
    runs = {len(leaf) for leaf in jax.tree.leaves(configs)}
    if len(runs) != 1 or 0 in runs:
        raise ValueError(f"configs must share one leading axis of at least 1 run, got {runs}")
    n_runs = runs.pop()
    on_cpu = jax.default_backend() == "cpu"
    lanes = program.lanes if on_cpu else program.gpu_lanes
    groups = [np.arange(i, i + lanes).clip(max=n_runs - 1) for i in range(0, n_runs, lanes)]
    data = jax.device_put(jax.tree.map(jnp.asarray, data))
    start, go_on = _compile(program, lanes)
    store = None if checkpoint is None else _Checkpoints(checkpoint, program, configs)
    stop = threading.Event()

    progress = threading.Lock()
    per_call = program.segments_per_call or program.segments

    def advanced(index: int, segments: int) -> None:
        with progress:
            bar.update(segments * min(lanes, n_runs - index * lanes) / program.segments)

    def train(index: int) -> PyTree:
        config = jax.tree.map(lambda leaf: np.asarray(leaf)[groups[index]], configs)
        done, saved, parts = store.load(index) if store else (0, None, [])
        advanced(index, done)
        if done < program.segments:
            state, first = start(config, data)
            if saved is not None:
                state = jax.tree.unflatten(jax.tree.structure(state), saved)
            elif first is not None:
                parts.append(jax.tree.map(np.asarray, first))
        while done < program.segments:
            if stop.is_set():
                raise InterruptedError
            state, metrics = go_on(config, data, state)
            parts.append(jax.tree.map(np.asarray, metrics))
            done += per_call
            if store:
                store.save(index, done, state if done < program.segments else (), parts)
            advanced(index, per_call)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)

    with (
        tqdm(total=n_runs, desc=label, unit="run", mininterval=1.0, smoothing=0.05,
             bar_format="{l_bar}{bar}| {n:.0f}/{total} [{elapsed}<{remaining}, {rate_fmt}]") as bar,
        ThreadPoolExecutor(threads if on_cpu else 1) as pool,
    ):  # fmt: skip
        futures: list[Future] = [pool.submit(train, i) for i in range(len(groups))]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
        results = [future.result() for future in futures if not future.cancelled()]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n_runs], *results)


def _compile(program: Program, lanes: int) -> tuple[Callable, Callable]:
    """The two executables of a program, each over a group of runs: start, and go on."""
    segments = program.segments_per_call or program.segments

    def start(config, data):
        state = program.init(config, data)
        if program.first is None:
            return state, None
        first = program.first(config, data, state)
        return state, jax.tree.map(lambda leaf: leaf[None], first)

    def go_on(config, data, state):
        def advance(state, _):
            return program.advance(config, data, state)

        return jax.lax.scan(advance, state, None, length=segments)

    over = jax.vmap if lanes > 1 else _alone
    return (
        jax.jit(over(start, in_axes=(0, None))),
        jax.jit(over(go_on, in_axes=(0, None, 0)), donate_argnums=2),
    )


def _alone(function: Callable, in_axes: tuple[int | None, ...]) -> Callable:
    """As jax.vmap over one lane, without the batched forms of operations, which are slower."""

    def over_one(*arguments):
        first = [
            argument if axis is None else jax.tree.map(lambda leaf: leaf[0], argument)
            for argument, axis in zip(arguments, in_axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: leaf[None], function(*first))

    return over_one


class _Checkpoints:
    """Unfinished groups on disk: plain arrays, written atomically, one file a group."""

    def __init__(self, folder: Path, program: Program, configs: PyTree):
        digest = hashlib.sha256(f"{program.segments} {program.lanes}".encode())
        for leaf in jax.tree.leaves(configs):
            digest.update(np.ascontiguousarray(leaf).tobytes())
        self.folder = folder / digest.hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    def load(self, index: int) -> tuple[int, list[np.ndarray] | None, list[PyTree]]:
        path = self.folder / f"{index}.npz"
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                state = [file[f"s{i}"] for i in range(int(file["n_state"]))]
                names = [name for name in file.files if name.startswith("m_")]
                return int(file["done"]), state, [{name[2:]: file[name] for name in names}]
        except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return 0, None, []

    def save(self, index: int, done: int, state: PyTree, parts: list[PyTree]) -> None:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        metrics = jax.tree.map(lambda *xs: np.concatenate(xs, axis=1), *parts)
        arrays: dict[str, Any] = {"done": done, "n_state": len(leaves)}
        arrays |= {f"s{i}": leaf for i, leaf in enumerate(leaves)}
        arrays |= {f"m_{name}": leaf for name, leaf in metrics.items()}
        partial = self.folder / f"{index}.partial"
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, self.folder / f"{index}.npz")
