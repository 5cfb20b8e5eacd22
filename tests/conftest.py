"""Numerics as in jobs, warnings of rank promotion, and one compilation cache for everybody.

Tests run their programs for moments, and compiling them takes most of the time, so they are
compiled without optimisation; those that compare bytes compile as results do
(`compiled_as_results`). Compiled programs are kept in the user's cache folder, where the workers
of pytest-xdist, the jobs that the smoke build starts, and the next `make test`, of another clone
too, find them. JAX keys them by program, version and flags; test_compilation_cache.py holds that
a program that is loaded computes the bytes of one that is compiled. Tests that compare two
computations compile both (`compiled_afresh`).
"""

import os
import shutil
from pathlib import Path

import jax
import pytest
from jax._src import compiler
from jax.experimental.compilation_cache import compilation_cache

import warm_server
from diffmbrl.sweep import device

device.configure("cpu")
warm_server.collect_seldom()
jax.config.update("jax_numpy_rank_promotion", "raise")

PROMOTES = ("test_rpg_",)  # code that rests on numpy's rank promotion
CACHE_LIMIT = 500_000_000  # bytes; the programs of one state of the code are a tenth of it
LONGEST = "test_workflow_"
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_llvm_disable_expensive_passes": True,
}
_options = compiler.get_compile_options


def compile_quickly(*args, env_options_overrides=None, **kwargs):
    """Options of a compilation without optimisation; what a program asks for itself counts."""
    return _options(
        *args, env_options_overrides={**QUICKLY, **(env_options_overrides or {})}, **kwargs
    )


compiler.get_compile_options = compile_quickly


def pytest_configure(config):
    folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "diffmbrl/tests"
    folder.mkdir(parents=True, exist_ok=True)
    first = not hasattr(config, "workerinput")  # not a worker of pytest-xdist
    if first and sum(path.stat().st_size for path in folder.iterdir()) > CACHE_LIMIT:
        shutil.rmtree(folder)
    cache_compiled(folder)
    if first:
        warm = warm_server.started()
        warm.__enter__()
        config.add_cleanup(lambda: warm.__exit__(None, None, None))


def cache_compiled(folder: Path) -> None:
    """Keeps compiled programs in a folder: this process's, and those of jobs that it starts."""
    for name, value in (
        ("jax_compilation_cache_dir", str(folder)),
        ("jax_persistent_cache_min_compile_time_secs", 0.0),
    ):
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    compilation_cache.reset_cache()


def pytest_collection_modifyitems(items):
    """Long ones first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not item.module.__name__.startswith(LONGEST))


@pytest.fixture
def compiled_afresh():
    """Compiles all that the test runs, whatever the cache holds."""
    for cached in (False, True):
        jax.config.update("jax_enable_compilation_cache", cached)
        compilation_cache.reset_cache()
        if not cached:
            yield


@pytest.fixture
def compiled_as_results(monkeypatch):
    """Compiles all that the test runs as jobs do."""
    jax.clear_caches()
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", _options)
        yield
    jax.clear_caches()


@pytest.fixture
def rank_promotion_allowed():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def rank_promotion_of(request):
    """Sets it for all threads: the sweep engine traces in its own."""
    free = request.module.__name__.startswith(PROMOTES)
    jax.config.update("jax_numpy_rank_promotion", "allow" if free else "raise")
