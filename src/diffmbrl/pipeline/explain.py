"""What made a result, what is out of date and why, and results kept across harmless changes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffmbrl.errors import DataError, UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import audit, manifests, report, snakemake
from diffmbrl.pipeline.files import Remembered, digest, hashing
from diffmbrl.pipeline.proof import Fingerprint, describe
from diffmbrl.pipeline.workflow import jobs_of


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
    jobs = snakemake.plan(config)
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


def _reasons(output: str, job: snakemake.Planned, hashes: Remembered) -> list[str]:
    if not Path(output).is_file():
        return [f"{output} is not there"]
    try:
        manifest = manifests.read(output)
    except FileNotFoundError:
        return [f"{output} has no manifest"]
    except DataError as error:
        return [str(error)]
    reasons = [f"{output} {p.detail}" for p in audit.check_bytes(manifest, hashes, {})]
    reasons += [p.detail for p in manifest.proof.fingerprint.changes(Fingerprint.parse(job.params))]
    if sorted(file.path for file in manifest.inputs) != sorted(job.inputs):
        reasons.append("has other inputs now")
    for file in manifest.inputs:
        path = Path(file.path)
        if path.is_file() and hashes(path) != file.sha256:
            reasons.append(f"input {path} has other bytes now")
    return reasons


def why(output: str, hashes: Callable[[Path], str] = digest) -> dict[str, Any]:
    """The chain from an output to raw data: what made each file, when, with what.

    Args:
        output: its path.
        hashes: gives the sha256 of a file; what asks for many chains remembers them.

    Raises:
        UserError: the output has no sound manifest.
    """
    try:
        manifest = manifests.read(output)
    except FileNotFoundError:
        raise UserError(f"{output}: has no manifest, so nothing is known of it") from None
    path, fingerprint = Path(output), manifest.proof.fingerprint
    if not path.is_file():
        state = "not kept" if LAYOUT.is_intermediate(output) else "not there"
    else:
        same = hashes(path) == manifest.sha256
        state = "as recorded" if same else "other bytes than recorded"
    return {
        "output": output,
        "state": state,
        "sha256": manifest.sha256,
        "stage": manifest.proof.stage,
        "platform": manifest.proof.platform,
        "settings": dict(fingerprint.settings),
        "code": fingerprint.of_code(),
        "lock": fingerprint.lock,
        "report": dict(manifest.report),
        "accepted": list(manifest.accepted),
        "inputs": [why(file.path, hashes) for file in manifest.inputs],
    }


def tell(chain: Mapping[str, Any], depth: int = 0) -> list[str]:
    """A chain as lines for a person, inputs indented below what was made from them."""
    pad, how = "    " * depth, chain["report"]
    commit = (how.get("commit") or "no commit")[:10] + (" with edits" if how.get("dirty") else "")
    lines = [
        f"{pad}{chain['output']} ({chain['state']}, sha256 {chain['sha256'][:16]})",
        f"{pad}  by {chain['stage']}, {how['started']}, {how['seconds']} s on "
        f"{chain['platform']}, {commit}",
    ]
    for name, value in chain["settings"].items():
        lines.append(f"{pad}  {name} = {describe(value)}")
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
    jobs = jobs_of(outputs)
    whole = dict.fromkeys(other for path in outputs for other in _job(jobs, path).outputs)
    return [_accept(output, _job(jobs, output), reason) for output in whole]


def _accept(output: str, job: snakemake.Planned, reason: str) -> str:
    manifest = manifests.read(output)
    changed = [
        file.path
        for file in manifest.inputs
        if not Path(file.path).is_file() or digest(Path(file.path)) != file.sha256
    ]
    if changed or any(audit.check_bytes(manifest, audit.Rehashed(), {})):
        raise UserError(f"{output}: its bytes or inputs are not its manifest's; rebuild it")
    before, now = manifest.proof.fingerprint, Fingerprint.parse(job.params)
    changes = [change.detail for change in before.changes(now)]
    if not changes:
        return f"{output}: nothing to accept, it is up to date"
    entry = {
        "reason": reason,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "by": (report.git("config", "user.name") or "").strip(),
        "changes": changes,
        "made_with": before.strings(),
    }
    manifests.write(
        replace(
            manifest,
            proof=replace(manifest.proof, fingerprint=now),
            accepted=[*manifest.accepted, entry],
        )
    )
    return f"{output}: kept across {'; '.join(changes)}"


def _job(jobs: Mapping[str, snakemake.Planned], output: str) -> snakemake.Planned:
    if output not in jobs:
        raise UserError(f"{output}: no rule makes it")
    return jobs[output]
