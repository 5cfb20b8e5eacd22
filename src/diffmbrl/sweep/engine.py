"""The sweep engine: one compiled program trains every run of a sweep.

Runs are stacked into one pytree of configs, cut into groups of `lanes` runs, and each group
is one call of the same executable, `jit(vmap(...))`. Groups are independent, so threads take
them as they come; since every call runs the same executable on one thread, results do not
depend on the number of threads, nor on which runs share a group.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffmbrl.sweep import device
from diffmbrl.sweep.checkpoints import Checkpoints, Progress

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
        last: the same, measured once after the last segment, under names of its own.
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
    last: Callable[[PyTree, PyTree, PyTree], dict[str, PyTree]] | None = None

    def __post_init__(self):
        if self.segments < 1 or self.lanes < 1 or self.gpu_lanes < 1:
            raise ValueError("segments, lanes and gpu_lanes must be at least 1")
        if self.segments % (self.segments_per_call or self.segments):
            raise ValueError(
                f"segments_per_call={self.segments_per_call} must divide segments={self.segments}"
            )

    @property
    def per_call(self) -> int:
        """How many segments one call trains."""
        return self.segments_per_call or self.segments

    def identity(self, lanes: int, platform: str) -> str:
        """What a checkpoint depends on beside the configs.

        Args:
            lanes: how many runs a call trains on the device in use.
            platform: names what the numbers depend on: the device, and pins of the numerics.
        """
        measured = f"first={self.first is not None} last={self.last is not None}"
        calls = f"segments={self.segments} per_call={self.per_call} lanes={lanes}"
        return f"{calls} {measured} platform={platform}"


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
        configs: arrays with a leading axis of length `runs`, one entry per run.
        data: arrays shared by all runs (a run picks its own part by what its config says).
        threads: how many groups are trained at the same time.
        checkpoint: a folder in which unfinished work is kept; a later call with the same
            arguments on the same platform goes on from there and returns the same bytes.
        label: what the progress bar says.

    Returns:
        Metrics as numpy arrays, leading axes (runs, segments), or (runs, 1 + segments) for a
        program that is measured first; those that are measured last, (runs, 1).
    """
    n_runs = _count(configs)
    on_cpu = jax.default_backend() == "cpu"
    lanes = program.lanes if on_cpu else program.gpu_lanes
    store = None
    if checkpoint is not None:
        store = Checkpoints(checkpoint, program.identity(lanes, device.platform()), configs)
    data = jax.device_put(jax.tree.map(jnp.asarray, data))
    with _progress_bar(n_runs, label) as bar:
        sweep = _Sweep(program, configs, data, n_runs, lanes, _compile(program, lanes), store, bar)
        results = _in_threads(sweep, threads if on_cpu else 1)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n_runs], *results)


def _count(configs: PyTree) -> int:
    runs = {len(leaf) for leaf in jax.tree.leaves(configs)}
    if len(runs) != 1 or 0 in runs:
        raise ValueError(f"configs must share one leading axis of at least 1 run, got {runs}")
    return runs.pop()


class _Compiled(NamedTuple):
    """The executables of a program, each over a group of runs."""

    start: Callable
    go_on: Callable
    last: Callable | None


@dataclass(frozen=True)
class _Sweep:
    """Runs in groups of `lanes`, the last group filled up with its last run."""

    program: Program
    configs: PyTree
    data: PyTree
    n_runs: int
    lanes: int
    compiled: _Compiled
    store: Checkpoints | None
    bar: Callable[[float], None]
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return -(-self.n_runs // self.lanes)

    def train(self, index: int) -> PyTree:
        """Metrics of a group, which goes on from its checkpoint."""
        first = index * self.lanes
        runs = np.arange(first, first + self.lanes).clip(max=self.n_runs - 1)
        config = jax.tree.map(lambda leaf: np.asarray(leaf)[runs], self.configs)
        progress = Progress() if self.store is None else self.store.load(index)
        self._show(index, progress.done)
        if progress.done < self.program.segments:
            self._go_on(index, config, progress)
        metrics = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *progress.parts)
        return metrics | progress.last if progress.last else metrics

    def _go_on(self, index: int, config: PyTree, progress: Progress) -> None:
        state, first = self.compiled.start(config, self.data)
        if progress.state is not None:
            state = jax.tree.unflatten(jax.tree.structure(state), progress.state)
        elif first is not None:
            progress.parts.append(jax.tree.map(np.asarray, first))
        while progress.done < self.program.segments:
            if self.stop.is_set():
                raise InterruptedError
            state, metrics = self.compiled.go_on(config, self.data, state)
            progress.parts.append(jax.tree.map(np.asarray, metrics))
            progress.done += self.program.per_call
            finished = progress.done == self.program.segments
            if finished and self.compiled.last is not None:
                last = self.compiled.last(config, self.data, state)
                progress.last = jax.tree.map(np.asarray, last)
            if self.store is not None:
                leaves = [] if finished else jax.tree.leaves(state)
                progress.state = [np.asarray(leaf) for leaf in leaves]
                self.store.save(index, progress)
            self._show(index, self.program.per_call)

    def _show(self, index: int, segments: int) -> None:
        real = min(self.lanes, self.n_runs - index * self.lanes)
        self.bar(segments * real / self.program.segments)


def _in_threads(sweep: _Sweep, threads: int) -> list[PyTree]:
    """Metrics of every group; after the first error the others are stopped."""
    with ThreadPoolExecutor(threads) as pool:
        futures: list[Future] = [pool.submit(sweep.train, i) for i in range(sweep.groups)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            sweep.stop.set()
            pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures if not future.cancelled()]


@contextmanager
def _progress_bar(n_runs: int, label: str) -> Iterator[Callable[[float], None]]:
    """A bar that counts runs; what it gives may be called from any thread."""
    shape = "{l_bar}{bar}| {n:.0f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"
    lock = threading.Lock()
    with tqdm(
        total=n_runs, desc=label, unit="run", mininterval=1.0, smoothing=0.05, bar_format=shape
    ) as bar:

        def advance(runs: float) -> None:
            with lock:
                bar.update(runs)

        yield advance


def _compile(program: Program, lanes: int) -> _Compiled:
    def start(config, data):
        state = program.init(config, data)
        if program.first is None:
            return state, None
        first = program.first(config, data, state)
        return state, jax.tree.map(lambda leaf: leaf[None], first)

    def go_on(config, data, state):
        def advance(state, _):
            return program.advance(config, data, state)

        return jax.lax.scan(advance, state, None, length=program.per_call)

    def last(measure, config, data, state):
        return jax.tree.map(lambda leaf: leaf[None], measure(config, data, state))

    over = jax.vmap if lanes > 1 else _alone
    return _Compiled(
        jax.jit(over(start, in_axes=(0, None))),
        jax.jit(over(go_on, in_axes=(0, None, 0)), donate_argnums=2),
        program.last and jax.jit(over(partial(last, program.last), in_axes=(0, None, 0))),
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
