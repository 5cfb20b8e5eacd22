"""Snakemake's records, derived from manifests: what makes a fresh clone and a tampered file right.

A manifest whose file has the bytes that it names becomes Snakemake's record of that file: its
fingerprint as params, its inputs' hashes as checksums. Snakemake's own triggers then rerun what
today's fingerprint differs from, whatever the files' times. A file that is not what its
manifest says gets the objection as a param, so that Snakemake reruns it and says why.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from diffmbrl.errors import DataError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline import manifests, processes, report, snakemake, store
from diffmbrl.pipeline.files import Remembered, hashing
from diffmbrl.pipeline.proof import Manifest


def reconcile(rules: Mapping[str, str] | None = None) -> int:
    """Brings Snakemake's records in line with the manifests; how many it had to write.

    Outputs that a living job is just writing are left alone. An intermediate output that is not
    here is recorded as well: Snakemake then makes it again only where something has to read it.

    Args:
        rules: the rule of each stage, by the stage's name.
    """
    snakemake.make_folders()
    busy = {output for entry in processes.living() for output in entry["outputs"]}
    with hashing() as digest:
        return sum(
            _reconciled(output, digest, rules or {})
            for output in (*manifests.outputs_on_disk(), *manifests.intermediate_elsewhere())
            if output not in busy
        )


def _reconciled(output: str, digest: Remembered, rules: Mapping[str, str]) -> bool:
    try:
        return _reconcile(output, digest, rules)
    except FileNotFoundError:  # a Snakemake elsewhere has just removed it, to make it anew
        return False


def _reconcile(output: str, digest: Remembered, rules: Mapping[str, str]) -> bool:
    try:
        manifest = manifests.read(output)
    except FileNotFoundError:
        return snakemake.record(output, [f"{output} has no manifest"])
    except DataError as error:
        return snakemake.record(output, [str(error)])
    proof = manifest.proof
    return snakemake.record(
        output,
        [*proof.fingerprint.strings(), *doubts(manifest, digest)],
        {file.path: file.sha256 for file in manifest.inputs},
        rules.get(proof.stage),
        report.times(manifest.report),
    )


def doubts(manifest: Manifest, digest: Remembered) -> Iterator[str]:
    """Why an output is not what its manifest says, if it is not."""
    left_out = LAYOUT.is_intermediate(manifest.output) and not Path(manifest.output).is_file()
    if not left_out and digest(Path(manifest.output)) != manifest.sha256:
        yield f"{manifest.output}: its bytes are not those of its manifest"
    for file in manifest.inputs:
        path = Path(file.path)
        if path.is_file() and digest(path) != file.sha256:
            yield f"{manifest.output} was made from other bytes of {path}"


def keep() -> None:
    """Puts verified work that came from elsewhere (DVC) into the store, before it is replaced."""
    with hashing() as digest:
        for output in manifests.outputs_on_disk():
            try:
                manifest = manifests.read(output)
            except (FileNotFoundError, DataError):
                continue
            files = manifest.proof.outputs
            whole = all(
                Path(file.path).is_file() and digest(Path(file.path)) == file.sha256
                for file in files.values()
            )
            if whole and not manifest.accepted:
                where = {role: Path(file.path) for role, file in files.items()}
                store.put(manifest.proof, manifest.report, where)
    store.count()
