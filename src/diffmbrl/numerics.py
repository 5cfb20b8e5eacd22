"""The numerics that results depend on, pinned before NumPy and JAX are imported.

Every processor with AVX2 and FMA (x86-64-v3: Intel since 2013, AMD since 2015) then computes the
same bytes: XLA, NumPy, OpenBLAS, oneDNN and Arrow are kept from using AVX-512, OpenBLAS takes one
set of kernels and one thread. Other machines compute other bytes; a result says where it was made.
Only the standard library is imported here.
"""

import hashlib
import importlib.util
import json
import math
import os
import platform as system
import re
import struct
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from diffmbrl.errors import DataError, UserError

SWITCH = "DIFFMBRL_PINS"  # environment variable; `off` leaves the user's variables alone
_DONE = "DIFFMBRL_PINNED"  # environment variable: what a parent process overrode, as JSON

PINS = {
    "XLA_FLAGS": " ".join(
        [
            "--xla_cpu_max_isa=AVX2",
            # No approximate reciprocals, whose bits differ between makers, and the same order of
            # sums in library kernels whatever vectors a processor has.
            "--xla_cpu_enable_platform_dependent_math=false",
            # Matrix products that XLA compiles itself: Eigen cuts sums by the size of the caches.
            "--xla_backend_extra_options=xla_force_enable_experimental_llvm_ir_gemm",
            "--xla_cpu_multi_thread_eigen=false",
            "--xla_gpu_deterministic_ops=true",
        ]
    ),
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
X86_PINS = {
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ARROW_USER_SIMD_LEVEL": "AVX2",
}
NUMPY_FEATURES = {"avx512f": "X86_V4", "avx512_vnni": "AVX512_ICL", "avx512_fp16": "AVX512_SPR"}
_DECIDING = re.compile("(XLA|JAX|NPY|OPENBLAS|GOTO|MKL|ONEDNN|DNNL|OMP|ARROW)_")
_HARMLESS = re.compile(
    "JAX_(COMPILATION_CACHE_DIR|PERSISTENT_CACHE_.*|PLATFORMS|TRACEBACK_FILTERING|LOG_COMPILES"
    "|CUDA_VISIBLE_DEVICES)|XLA_PYTHON_CLIENT_.*"
)
_PLATFORM = re.compile(r"(x86-64-v3|aarch64|arm64|gpu: [^;]+|unpinned [^;]+)(; [^;]+)*")
_LIBM = "98fc890aa781"  # glibc 2.28 to 2.40 where the processor has FMA


def pin() -> None:
    """Sets the variables that decide numbers; call before NumPy, SciPy or JAX are imported.

    What the user had set of them is overridden, said so on standard error, and inherited by no
    child process. With DIFFMBRL_PINS=off nothing is set, and results say that they were made so.
    """
    if os.environ.get(SWITCH) == "off" or _DONE in os.environ:
        return
    wanted = {**PINS, **(X86_PINS | _numpy_pins() if _is_x86() else {})}
    theirs = {
        name: value
        for name, value in os.environ.items()
        if _DECIDING.match(name) and not _HARMLESS.fullmatch(name) and wanted.get(name) != value
    }
    for name in theirs:
        del os.environ[name]
    os.environ.update(wanted)
    os.environ[_DONE] = json.dumps(theirs)
    for name, value in sorted(theirs.items()):
        sys.stderr.write(
            f"note: {name}={value} is overridden, because it changes numbers ({SWITCH}=off keeps "
            "your variables, and results then say so)\n"
        )
    _STATE["late"] = "numpy" in sys.modules


_STATE = {"late": False}


def check() -> None:
    """Refuses to compute where the pins cannot hold.

    Raises:
        UserError: a processor without AVX2 and FMA, or NumPy was imported before `pin`.
    """
    if os.environ.get(SWITCH) == "off":
        return
    if _is_x86() and not {"avx2", "fma"} <= _flags():
        raise UserError(
            "numerics: this processor has no AVX2 and FMA (x86-64-v3), on which results are the "
            f"same everywhere; set {SWITCH}=off to compute all the same (results say so)"
        )
    if _STATE["late"] or _DONE not in os.environ:
        raise UserError(
            "numerics: NumPy was imported before the numerics were pinned; call "
            "diffmbrl.numerics.pin() first"
        )


def platform(device: str = "cpu", packages: Sequence[str] = ()) -> str:
    """Where a result is made, as far as its bytes depend on it.

    Args:
        device: `cpu`, or the name of the GPU that computes.
        packages: installed ones that are not those of the lock, such as `numpy 2.5.0`.

    Returns:
        Such as `x86-64-v3`, `aarch64`, `gpu: NVIDIA H100; numpy 2.5.0`.
    """
    machine = "x86-64-v3" if _is_x86() else system.machine().lower()
    name = machine if device == "cpu" else f"gpu: {device}"
    notes = list(packages)
    if os.environ.get(SWITCH) == "off":
        name = f"unpinned {name.replace(';', ',')}"
        notes += [processor()]
    if device == "cpu" and _is_x86() and (found := libm()) != _LIBM:
        notes += [f"libm {found}"]
    return "; ".join([name, *(note.replace(";", ",") for note in notes)])


def checked(name: str, where: str) -> str:
    """A platform as a manifest names it.

    Raises:
        DataError: no platform that this project writes; `where` says who names it.
    """
    if not isinstance(name, str) or not _PLATFORM.fullmatch(name):
        raise DataError(
            f"{where}: platform {name!r} is unknown; expected x86-64-v3, aarch64, arm64, "
            "gpu: NAME or unpinned NAME"
        )
    return name


@cache
def libm() -> str:
    """A hash of what the C library's functions return, which differs between C libraries."""
    points = [0.37 * 1.13**i for i in range(60)]
    functions = (math.exp, math.log, math.sin, math.cos, math.tan, math.tanh, math.log1p,
                 math.expm1, math.atan, math.sinh, math.erf, math.lgamma)  # fmt: skip
    values = [f(min(x, 30.0) if f in (math.exp, math.expm1, math.sinh) else x)
              for f in functions for x in points]  # fmt: skip
    values += [math.pow(x, y) for x in points[:30] for y in (0.3, 1.7, -2.2)]
    return hashlib.sha256(struct.pack(f"<{len(values)}d", *values)).hexdigest()[:12]


def overridden() -> dict[str, str]:
    """The user's variables that this process, or its parents, overrode."""
    return json.loads(os.environ.get(_DONE, "{}"))


def has_gpu_plugin() -> bool:
    """Whether a plugin is installed through which JAX could compute on a GPU."""
    plugins = ("jax_cuda13_plugin", "jax_cuda12_plugin", "jax_rocm7_plugin")
    return any(importlib.util.find_spec(name) for name in plugins)


@cache
def processor() -> str:
    """The processor's model, for reports."""
    found = re.search(r"^model name\s*: (.+)$", _cpuinfo(), flags=re.MULTILINE)
    return found[1] if found else system.processor() or system.machine()


def _is_x86() -> bool:
    return system.machine().lower() in ("x86_64", "amd64")


def _numpy_pins() -> dict[str, str]:
    """NumPy's name for each AVX-512 group that this processor has (others it warns of)."""
    features = [name for flag, name in NUMPY_FEATURES.items() if flag in _flags()]
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(features)} if features else {}


@cache
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def _flags() -> set[str]:
    """What the processor can do, in Linux's names; elsewhere x86-64-v3 is taken for granted."""
    found = re.search(r"^flags\s*: (.+)$", _cpuinfo(), flags=re.MULTILINE)
    return set(found[1].split()) if found else {"avx2", "fma"}
