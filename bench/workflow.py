"""Speed of the workflow against the number of jobs: parsing, planning, nothing to do, auditing.

    python bench/workflow.py [JOBS ...]     (100 and 1000 by default)

The jobs are those of the tests' toy project with many domains. They run one after the other, by the
wrapper that Snakemake's jobs use but without a Snakemake around each, which gives the same files.
`job ms` is the wrapper's own time; `first s` plans after all were made, `nothing s` once more.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from toy.project import Project, commit, lay_out

BULK = """
import contextlib, io, os, time
from functools import cache
from pathlib import Path
from diffmbrl import numerics
numerics.pin()
from diffmbrl.config import load
from diffmbrl.pipeline import environment, report, wrapper
from diffmbrl.pipeline.rule import fill
from diffmbrl.pipeline.workflow import Workflow

# What is the same for all jobs of this process: packages, their versions, the commit.
environment.check, report.git_state = cache(environment.check), cache(report.git_state)
report._version = cache(report._version)
workflow, started = Workflow(load(".")), time.monotonic()
settings = workflow.config.settings("toy", "laptop")
jobs = [(b, i | {"scale": "laptop"}) for b in workflow.rules for i in b.rule.instances(settings)]

def run(bound, wildcards):
    inputs = {role: list(map(Path, of(wildcards))) for role, of in bound.inputs.items()}
    outputs = {role: Path(fill(path, wildcards)) for role, path in bound.outputs.items()}
    with contextlib.redirect_stderr(io.StringIO()):
        plan = bound.fingerprint(wildcards).strings()
        wrapper.run_stage(bound.rule.stage, plan, inputs, outputs)

for start in range(0, len(jobs), 200):  # a process for each batch: audit hooks add up in one
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    for job in jobs[start : start + 200]:
        run(*job)
    os._exit(0)
print(len(jobs), time.monotonic() - started)
"""


def project_of(jobs: int, root: Path) -> Project:
    """The toy with as many domains as make this many jobs, three for each."""
    project = lay_out(root)
    config = root / "config/toy.yaml"
    values = yaml.safe_load(config.read_text())
    values["size"] = {f"d{i}": 3 for i in range(jobs // 3)}
    config.write_text(yaml.safe_dump(values))
    return project


def timed(project: Project, *command: str) -> tuple[float, str]:
    """Seconds that a command took, and what it said."""
    start = time.perf_counter()
    said = project.run(*command).stdout
    return time.perf_counter() - start, said


def measure(jobs: int, profile: str | None) -> None:
    """Prints one row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        project = project_of(jobs, Path(folder) / "p")
        parse, _ = timed(project, "snakemake", "--list-rules")
        plan, said = timed(project, "snakemake", "-n", "--quiet", "rules")
        made, seconds = timed(project, sys.executable, "-c", BULK)[1].split()
        commit(project, "made")
        first, said = timed(project, "snakemake", "-n")
        assert "Nothing to be done" in said, said[-2000:]
        nothing, _ = timed(project, "snakemake", "-n")
        audit, said = timed(project, "diffmbrl", "audit")
        assert " 0 problems" in said, said[-2000:]
        row = [int(made), parse, plan, 1000 * float(seconds) / int(made), first, nothing, audit]
        print("".join(f"{value:>12.0f}" if value > 99 else f"{value:>12.1f}" for value in row))
        sys.stdout.flush()
        for name in filter(None, [profile]):
            command = [sys.executable, "-m", "cProfile", "-s", "cumulative", "-m", *name.split()]
            print(timed(project, *command)[1][:8000])


def main() -> None:
    """Measures each number of jobs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("jobs", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--profile", help="also profiles this module, such as 'snakemake -n'")
    arguments = parser.parse_args()
    heads = ("jobs", "parse s", "plan s", "job ms", "first s", "nothing s", "audit s")
    print("".join(f"{head:>12}" for head in heads))
    for jobs in arguments.jobs:
        measure(jobs, arguments.profile)


if __name__ == "__main__":
    main()
