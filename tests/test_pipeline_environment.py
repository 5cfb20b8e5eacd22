"""The environment is the lock: differing packages are named and refused, or named in results."""

from pathlib import Path

import pytest

from diffmbrl.errors import UserError
from diffmbrl.pipeline import environment


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """A folder with a lock, and installed packages of its own; returns a function to write both."""
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site"
    monkeypatch.setattr(environment.sys, "path", [str(site)])

    def write(text, *installed):
        Path("requirements.txt").write_text(text)
        for name in installed:
            (site / f"{name}.dist-info").mkdir(parents=True, exist_ok=True)

    return write


LOCK = """\
# a comment
alpha-one==1.0 \\
    --hash=sha256:00
    # via something
beta==2.0 ; python_full_version < '3' \\
    --hash=sha256:00
beta[extra]==3.0 ; python_full_version >= '3' \\
    --hash=sha256:00
gamma==4.0
"""


def test_the_locks_packages_pass_with_others_beside_them(lock):
    lock(LOCK, "alpha_one-1.0", "beta-3.0", "a_gpu_plugin-9.9")
    assert environment.check("locked") == []


def test_a_difference_is_refused_with_both_versions_and_the_remedy(lock):
    lock(LOCK, "Alpha.One-1.1", "beta-3.0")
    with pytest.raises(UserError) as refused:
        environment.check("locked")
    said = str(refused.value)
    assert "alpha-one 1.1 is installed, requirements.txt has 1.0" in said
    assert "pip install --require-hashes -r requirements.txt" in said
    assert "environment: any" in said
    assert environment.check("any") == ["alpha-one 1.1"]


def test_a_marker_decides_which_pin_counts(lock):
    lock(LOCK, "beta-2.0")
    assert environment.check("any") == ["beta 2.0"]


@pytest.mark.parametrize("line", ["alpha", "alpha==", "alpha=1", "alpha==1 ; python =! 3", "{"])
def test_a_lock_that_does_not_parse_is_named_by_line(lock, line):
    lock(f"gamma==4.0\n{line}\n")
    with pytest.raises(UserError, match=r"requirements.txt:2: does not parse: .*name==version"):
        environment.check("locked")


def test_the_projects_own_environment_is_its_lock():
    found = list(environment.differences(Path(__file__).parents[1] / "requirements.txt"))
    assert found == []
