"""What travels between the parts: fingerprints, proofs and manifests, as frozen types.

They are strings only where Snakemake needs strings, and JSON only on disk.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from diffmbrl import numerics
from diffmbrl.errors import DataError, UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline.files import canonical, digest_of

_USES = " uses "  # between a registry entry and its code, in a fingerprint's strings


class Change(NamedTuple):
    """One difference between two fingerprints: its kind (code, settings or lock), in words."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Fingerprint:
    """What decides a stage's bytes beside its inputs.

    Attributes:
        code: of each module and data file that the stage reaches, a hash.
        entries: of each registry entry that the job uses, the hashes of what only it reaches.
        lock: the hash of the locked requirements.
        settings: the configuration's values that the job is given, by name.
    """

    code: Mapping[str, str]
    lock: str
    settings: Mapping[str, Any]
    entries: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def strings(self) -> list[str]:
        """One string for each part, as Snakemake records and compares them.

        `module@hash`; `entry uses module@hash ...`; `name=<canonical JSON>`.
        """
        return sorted(
            [
                *(_at(self.code)),
                f"{LAYOUT.lock}@{self.lock}",
                *(entry + _USES + " ".join(_at(code)) for entry, code in self.entries.items()),
                *(setting(name, value) for name, value in self.settings.items()),
            ]
        )

    @classmethod
    def parse(cls, strings: Sequence[str]) -> "Fingerprint":
        """A fingerprint from its strings; the parts that are not among them are empty.

        Raises:
            UserError: a string that is no part of a fingerprint.
        """
        code: dict[str, str] = {}
        entries: dict[str, dict[str, str]] = {}
        settings: dict[str, Any] = {}
        for string in strings:
            name, equals, value = string.partition("=")
            entry, uses, used = string.partition(_USES)
            if equals and "@" not in name:
                settings[name] = _json(string, value)
            elif uses:
                entries[entry] = _by_name(used.split())
            elif "@" in string:
                code.update(_by_name([string]))
            else:
                raise UserError(f"{string!r}: give settings as name=<json>, code as name@hash")
        return cls(code, code.pop(str(LAYOUT.lock), ""), settings, entries)

    def of_code(self) -> dict[str, str]:
        """The hash of every module and data file, the entries' too."""
        return {**self.code, **{k: v for code in self.entries.values() for k, v in code.items()}}

    def changes(self, now: "Fingerprint") -> Iterator[Change]:
        """What is different now, in words for a person."""
        before, after = self.of_code(), now.of_code()
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                verb = "changed" if name in before and name in after else "came or went"
                yield Change("code", f"{name} {verb}")
        if self.lock != now.lock:
            yield Change("lock", f"{LAYOUT.lock} changed")
        for name in sorted(self.settings.keys() | now.settings.keys()):
            old, new = (_json_of(settings, name) for settings in (self.settings, now.settings))
            if old != new:
                yield Change("settings", f"{name}: {describe(old)} -> {describe(new)}")


def setting(name: str, value: Any) -> str:
    """A setting as one string of a fingerprint."""
    return f"{name}={canonical(value)}"


@dataclass(frozen=True)
class File:
    """A file and its bytes' sha256; of an input, the key of the job that made it, if known."""

    path: str
    sha256: str
    made_by: str | None = None

    def json(self) -> dict[str, str]:
        """As a manifest holds it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Proof:
    """Everything that decides a job's bytes, and the bytes.

    Attributes:
        stage: the stage's module.
        fingerprint: its code, lock and settings.
        platform: where it was made (`diffmbrl.numerics.platform`); triggers no rerun.
        inputs: by role, the files that it read.
        outputs: by role, the file that it made.
    """

    stage: str
    fingerprint: Fingerprint
    platform: str
    inputs: Mapping[str, Sequence[File]]
    outputs: Mapping[str, File]

    @property
    def key(self) -> str:
        """One hash of all that decides the bytes.

        Of a file only its name and bytes count, so that equal work in another folder is the
        same work.
        """
        files = {
            role: [[Path(file.path).name, file.sha256] for file in files]
            for role, files in self.inputs.items()
        }
        strings = self.fingerprint.strings()
        return digest_of([self.stage, strings, self.platform, files, sorted(self.outputs)])

    def json(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return {
            "stage": self.stage,
            "key": self.key,
            "fingerprint": self.fingerprint.strings(),
            "platform": self.platform,
            "inputs": {role: [f.json() for f in files] for role, files in self.inputs.items()},
            "outputs": {role: file.json() for role, file in self.outputs.items()},
        }

    @classmethod
    def parse(cls, value: Mapping[str, Any], where: str) -> "Proof":
        """From what a manifest holds; `where` is named in errors.

        Raises:
            DataError: a platform that this project does not write.
            KeyError, TypeError, ValueError: it is no proof.
        """
        proof = cls(
            value["stage"],
            Fingerprint.parse(value["fingerprint"]),
            numerics.checked(value["platform"], where),
            {role: [File(**f) for f in files] for role, files in value["inputs"].items()},
            {role: File(**f) for role, f in value["outputs"].items()},
        )
        if proof.key != value["key"]:
            raise ValueError("key")
        return proof


@dataclass(frozen=True)
class Manifest:
    """What made one output.

    Attributes:
        output: its path.
        proof: what decides its bytes.
        report: what a rerun may change: time, device, memory, versions, commit, host.
        accepted: changes across which a person kept the output.
    """

    output: str
    proof: Proof
    report: Mapping[str, Any]
    accepted: Sequence[Mapping[str, Any]] = ()

    @property
    def sha256(self) -> str:
        """The hash that the output's bytes must have."""
        return next(f.sha256 for f in self.proof.outputs.values() if f.path == self.output)

    @property
    def inputs(self) -> list[File]:
        """Every input file of the job."""
        return [file for files in self.proof.inputs.values() for file in files]

    @property
    def seal(self) -> str:
        """A hash of all that the manifest claims, but for its report."""
        return digest_of([self.output, self.proof.json(), list(self.accepted) or None])

    def text(self) -> str:
        """As it lies on disk."""
        value = {
            "output": self.output, "proof": self.proof.json(), "report": dict(self.report),
            **({"accepted": list(self.accepted)} if self.accepted else {}), "seal": self.seal,
        }  # fmt: skip
        return json.dumps(value, indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str, where: str = "manifest") -> "Manifest":
        """A manifest from its text; `where` is named in errors.

        Raises:
            DataError: it is damaged, was edited by hand, or names an unknown platform.
        """
        try:
            value = json.loads(text)
            proof = Proof.parse(value["proof"], where)
            made = cls(value["output"], proof, value["report"], value.get("accepted", ()))
            if made.seal == value["seal"] and made.sha256:
                return made
        except (ValueError, KeyError, TypeError, AttributeError, UserError, StopIteration) as error:
            if isinstance(error, DataError):
                raise
        raise DataError(f"{where}: is damaged, or was edited by hand: its seal does not match")


def describe(value: Any) -> str:
    """A setting's value, short enough for a line."""
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _at(code: Mapping[str, str]) -> list[str]:
    return sorted(f"{name}@{digest}" for name, digest in code.items())


def _by_name(strings: Sequence[str]) -> dict[str, str]:
    return {name: digest for name, _, digest in (s.partition("@") for s in strings)}


def _json(string: str, value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise UserError(f"{string!r}: the value is not JSON") from None


def _json_of(settings: Mapping[str, Any], name: str) -> str:
    return canonical(settings[name]) if name in settings else "none"
