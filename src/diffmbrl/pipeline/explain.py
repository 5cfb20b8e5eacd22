"""What made a result, what is out of date and why, and results kept across harmless changes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError, UserError
from diffmbrl.pipeline import audit, dag, manifest, report
from diffmbrl.pipeline.files import digest, hashing


@dataclass(frozen=True)
class Pending:
    """A job that Snakemake would run now, and what made it so."""

    rule: str
    outputs: tuple[str, ...]
    reasons: tuple[str, ...]


def status(config: Mapping[str, Any] | None = None) -> tuple[int, list[Pending]]:
    """How many jobs there are, and those that are out of date.

    Args:
        config: what `snakemake --config` would be given.
    """
    jobs = dag.plan(config)
    makers = {output: job for job in jobs for output in job.outputs}
    pending = []
    with hashing() as hashes:
        for job in jobs:
            if not job.pending:
                continue
            reasons = [reason for output in job.outputs for reason in _reasons(output, job, hashes)]
            upstream = sorted(
                path for path in job.inputs if path in makers and makers[path].pending
            )
            reasons += [f"input {path} is to be made" for path in upstream]
            unique = tuple(dict.fromkeys(reasons)) or ("a run of it did not finish",)
            pending.append(Pending(job.rule, job.outputs, unique))
    return len(jobs), pending


def _reasons(output: str, job: dag.Planned, hashes) -> list[str]:
    if not Path(output).is_file():
        return [f"{output} is not there"]
    try:
        made = manifest.read(manifest.path_of(output))
    except FileNotFoundError:
        return [f"{output} has no manifest"]
    except DataError as error:
        return [str(error)]
    problems = [
        *audit.check_bytes(made, hashes, {}),
        *audit.check_fingerprint(made, job.params),
    ]
    files = manifest.inputs_of(made)
    if sorted(entry["path"] for entry in files) != sorted(job.inputs):
        problems.append(audit.Problem(output, "chain", "has other inputs now"))
    for entry in files:
        path = Path(entry["path"])
        if path.is_file() and hashes(path) != entry["sha256"]:
            problems.append(audit.Problem(output, "chain", f"input {path} has other bytes now"))
    return [
        problem.detail if problem.kind in ("code", "settings", "lock", "chain")
        else f"{output} {problem.detail}"
        for problem in problems
    ]  # fmt: skip


def why(output: str) -> dict[str, Any]:
    """The chain from an output to raw data: what made each file, when, with what.

    Raises:
        UserError: the output has no sound manifest.
    """
    try:
        made = manifest.read(manifest.path_of(output))
    except FileNotFoundError:
        raise UserError(f"{output}: has no manifest, so nothing is known of it") from None
    path = Path(output)
    sound = path.is_file() and digest(path) == manifest.recorded(made)
    return {
        "output": output,
        "state": "as recorded" if sound else "other bytes than recorded" if path.is_file()
        else "not there",
        "stage": made["proof"]["stage"],
        "settings": manifest.settings_of(made),
        "code": [s for s in made["proof"]["fingerprint"] if not manifest.is_setting(s)],
        "report": made["report"],
        "accepted": made.get("accepted", []),
        "inputs": [why(entry["path"]) for entry in manifest.inputs_of(made)],
    }  # fmt: skip


def tell(chain: Mapping[str, Any], depth: int = 0) -> list[str]:
    """A chain as lines for a person, inputs indented below what was made from them."""
    pad, made = "    " * depth, chain["report"]
    commit = (made.get("commit") or "no commit")[:10] + (" with edits" if made.get("dirty") else "")
    on = made.get("device") or made.get("platform")
    lines = [
        f"{pad}{chain['output']} ({chain['state']})",
        f"{pad}  by {chain['stage']}, {made['started']}, {made['seconds']} s on {on}, {commit}",
    ]
    for name, value in chain["settings"].items():
        lines.append(f"{pad}  {name} = {manifest.describe(value)}")
    for entry in chain["accepted"]:
        lines.append(f"{pad}  accepted {entry['when']}: {entry['reason']}")
    for index, source in enumerate(chain["inputs"]):
        repeated = (
            source["settings"] and index > 0 and source["stage"] == chain["inputs"][0]["stage"]
        )
        lines += tell({**source, "inputs": []} if repeated else source, depth + 1)
    return lines


def accept(outputs: Sequence[str], reason: str) -> list[str]:
    """Keeps outputs across changes of code, settings or lock; the manifest says so for good.

    Their bytes, and their inputs' bytes, must be those of the manifest.

    Args:
        outputs: files; the others that the same job made go with them.
        reason: why the change cannot matter.

    Returns:
        A line for each output.

    Raises:
        UserError: an output is not sound, is not made by any rule, or nothing changed.
    """
    if not reason.strip():
        raise UserError("accept: --reason must say why the change cannot matter")
    jobs = {output: job for job in dag.plan(targets=outputs) for output in job.outputs}
    lines = []
    for output in dict.fromkeys(o for path in outputs for o in _job(jobs, path).outputs):
        made = manifest.read(manifest.path_of(output))
        broken = [
            *audit.check_bytes(made, audit.Rehashed(), {}),
            *(f"{e['path']} changed" for e in manifest.inputs_of(made)
              if not Path(e["path"]).is_file() or digest(Path(e["path"])) != e["sha256"]),
        ]  # fmt: skip
        if broken:
            raise UserError(f"{output}: its bytes or inputs are not its manifest's; rebuild it")
        now = list(_job(jobs, output).params)
        changes = [p.detail for p in audit.check_fingerprint(made, now)]
        if not changes:
            lines.append(f"{output}: nothing to accept, it is up to date")
            continue
        proof = made["proof"]
        key = manifest.key(proof["stage"], now, proof["inputs"], list(proof["outputs"]))
        entry = {
            "reason": reason,
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "by": (report.git("config", "user.name") or "").strip(),
            "changes": changes,
            "made_with": proof["fingerprint"],
        }
        accepted = [*made.get("accepted", []), entry]
        proof = {**proof, "key": key, "fingerprint": now}
        manifest.write(manifest.build(output, proof, made["report"], accepted))
        lines.append(f"{output}: kept across {'; '.join(changes)}")
    return lines


def _job(jobs: Mapping[str, dag.Planned], output: str) -> dag.Planned:
    if output not in jobs:
        raise UserError(f"{output}: no rule makes it")
    return jobs[output]
