"""Pinned numerics: what is set, overridden and refused, and how a platform is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffmbrl import numerics
from diffmbrl.errors import DataError, UserError

PROBE = """
import sys
from diffmbrl import numerics
numerics.pin()
import json, os
import numpy as np
print(json.dumps({
    "variables": {k: v for k, v in os.environ.items() if numerics._DECIDING.match(k)},
    "platform": numerics.platform(),
    "wide": [name for name in numerics.NUMPY_FEATURES.values()
             if np._core._multiarray_umath.__cpu_features__.get(name)],
}))
"""


def probe(**variables):
    """What a fresh process with some variables of the user's gets; its standard error too."""
    clean = {k: v for k, v in os.environ.items() if not numerics._DECIDING.match(k)}
    clean.pop(numerics._DONE, None)
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**clean, **variables},
        text=True,
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


def test_variables_that_change_numbers_are_overridden_and_said_so():
    found, said = probe(
        XLA_FLAGS="--xla_cpu_enable_fast_math=true", OPENBLAS_NUM_THREADS="7", MKL_CBWR="AVX",
        JAX_ENABLE_X64="0", JAX_COMPILATION_CACHE_DIR="/tmp/kept",
    )  # fmt: skip
    assert "fast_math" not in found["variables"]["XLA_FLAGS"]
    assert found["variables"]["OPENBLAS_NUM_THREADS"] == "1"
    assert not {"MKL_CBWR", "JAX_ENABLE_X64"} & set(found["variables"])
    assert found["variables"]["JAX_COMPILATION_CACHE_DIR"] == "/tmp/kept"
    assert "note: OPENBLAS_NUM_THREADS=7 is overridden" in said
    assert "JAX_COMPILATION_CACHE_DIR" not in said
    assert probe()[1] == ""


@pytest.mark.skipif(not numerics._is_x86(), reason="the platform of x86-64 processors")
def test_the_platform_says_how_numbers_were_made():
    found, _ = probe()
    assert found["platform"] == "x86-64-v3"
    assert found["wide"] == []
    unpinned, said = probe(DIFFMBRL_PINS="off", XLA_FLAGS="--xla_cpu_enable_fast_math=true")
    assert unpinned["platform"].startswith("unpinned x86-64-v3; ")
    assert "fast_math" in unpinned["variables"]["XLA_FLAGS"]
    assert said == ""


def test_platforms_of_devices_and_packages(monkeypatch):
    monkeypatch.setattr(numerics, "_is_x86", lambda: False)
    monkeypatch.setattr(numerics.system, "machine", lambda: "aarch64")
    assert numerics.platform() == "aarch64"
    h100 = numerics.platform("NVIDIA H100", ["numpy 2.5.0"])
    assert h100 == "gpu: NVIDIA H100; numpy 2.5.0"
    for name in ("aarch64", h100, "x86-64-v3; libm 012345"):
        assert numerics.checked(name, "here") == name
    for name in ("abacus", "", "gpu:", None):
        with pytest.raises(DataError, match="here: platform .* is unknown; expected x86-64-v3"):
            numerics.checked(name, "here")


@pytest.mark.skipif(not numerics._is_x86(), reason="the refusal of older x86-64 processors")
def test_a_processor_without_avx2_is_refused(monkeypatch):
    numerics.check()
    monkeypatch.setattr(numerics, "_cpuinfo", lambda: "flags\t\t: fpu sse2 avx fma\n")
    with pytest.raises(UserError, match="no AVX2 and FMA .* set DIFFMBRL_PINS=off"):
        numerics.check()
    monkeypatch.setenv(numerics.SWITCH, "off")
    numerics.check()


def test_numpy_before_the_pins_is_refused():
    code = (
        "import numpy\nfrom diffmbrl import numerics\nfrom diffmbrl.errors import UserError\n"
        "numerics.pin()\ntry: numerics.check()\nexcept UserError as e: print(e)\n"
    )
    clean = {k: v for k, v in os.environ.items() if k != numerics._DONE}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, text=True, capture_output=True, check=True
    )
    assert "NumPy was imported before the numerics were pinned" in done.stdout


def test_a_masked_c_library_is_another_platform():
    if not Path("/lib/x86_64-linux-gnu/libm.so.6").exists():
        pytest.skip("the masks of glibc on x86-64")
    masked, _ = probe(GLIBC_TUNABLES="glibc.cpu.hwcaps=-AVX2,-FMA")
    assert masked["platform"].startswith("x86-64-v3; libm ")


def test_a_child_of_a_pinned_process_is_pinned_again():
    code = "from diffmbrl import pinned\n" + PROBE.replace("numerics.pin()", "")
    code += "print(json.dumps(numerics.overridden()))\n"
    clean = {k: v for k, v in os.environ.items() if not numerics._DECIDING.match(k)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean
        | {numerics._DONE: json.dumps({"MKL_CBWR": "AVX"}), "OPENBLAS_NUM_THREADS": "8"}
        | {"GOTO_NUM_THREADS": "8", "XLA_FLAGS": "--xla_cpu_enable_fast_math=true"},
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    found, overridden = map(json.loads, done.stdout.splitlines())
    assert found["variables"]["OPENBLAS_NUM_THREADS"] == "1"
    assert "GOTO_NUM_THREADS" not in found["variables"]
    assert "fast_math" not in found["variables"]["XLA_FLAGS"]
    assert overridden == {"MKL_CBWR": "AVX", "XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}
    assert done.stderr.count("note: ") == 1
    assert "note: XLA_FLAGS=--xla_cpu_enable_fast_math=true is overridden" in done.stderr
