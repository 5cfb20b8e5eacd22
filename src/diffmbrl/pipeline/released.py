"""Released results: a commit's or another checkout's manifests and the bytes that they name."""

import configparser
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import yaml

from diffmbrl.errors import UserError
from diffmbrl.layout import LAYOUT
from diffmbrl.pipeline.proof import Manifest

OBJECTS = Path("files/md5")


class Absent(Exception):
    """Bytes that are not at hand; its text says what would fetch them."""


class Release:
    """Manifests by output, and the bytes of each output."""

    def __init__(self, name: str, manifests: Mapping[str, Manifest], find: Callable[[str], bytes]):
        """A release by its name, its manifests, and how bytes of an output are found."""
        self.name, self.manifests, self._find = name, manifests, find

    def bytes(self, output: str) -> bytes:
        """The released bytes of an output, checked against its manifest.

        Raises:
            Absent: they are not at hand, or not as the manifest says.
        """
        data = self._find(output)
        if hashlib.sha256(data).hexdigest() != self.manifests[output].sha256:
            raise Absent(f"{output} of {self.name} does not have the bytes that its manifest says")
        return data


def of(place: str) -> Release:
    """The release of a folder, another checkout, or of a commit.

    Raises:
        UserError: it is neither, or has no manifests.
    """
    return _of_folder(Path(place)) if Path(place).is_dir() else _of_commit(place)


def _of_folder(folder: Path) -> Release:
    texts = {p: p.read_text(encoding="utf-8") for p in (folder / LAYOUT.manifests).rglob("*.json")}
    if not texts:
        raise UserError(f"{folder}: has no {LAYOUT.manifests}; give a checkout with results")

    def find(output: str) -> bytes:
        try:
            return (folder / output).read_bytes()
        except OSError:
            raise Absent(f"{folder / output} is not there; run `dvc pull` in {folder}") from None

    return Release(str(folder), _parsed(texts), find)


def committed(revision: str = "HEAD") -> dict[Path, str]:
    """The manifests' texts at a commit, by path; none where it has none, or there is no git."""
    archive = _git("archive", "--format=tar", revision, str(LAYOUT.manifests))
    texts: dict[Path, str] = {}
    if not archive:
        return texts
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.name.endswith(".json") and (file := tar.extractfile(member)):
                texts[Path(member.name)] = file.read().decode()
    return texts


def _of_commit(revision: str) -> Release:
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if not commit:
        raise UserError(f"{revision}: neither a folder nor a commit that git knows here")
    texts = committed(commit.decode().strip())
    if not texts:
        raise UserError(f"{revision}: has no {LAYOUT.manifests}, so no released results")
    fetch = "dvc fetch" if revision == "HEAD" else "dvc fetch --all-commits"
    versions = _Versions(commit.decode().strip(), fetch)
    return Release(revision, _parsed(texts), versions.find)


def _parsed(texts: Mapping[Path, str]) -> dict[str, Manifest]:
    found = {}
    for path, text in sorted(texts.items()):
        manifest = Manifest.parse(text, f"released {path}")
        found[manifest.output] = manifest
    return found


class _Versions:
    """Files at a commit: from git, or from DVC by the .dvc file that git has there."""

    def __init__(self, commit: str, fetch: str):
        self._commit, self._fetch = commit, fetch
        self._show = cache(lambda path: _git("show", f"{commit}:./{path}"))
        self._listed = cache(self._list)

    def find(self, output: str) -> bytes:
        data = self._show(output)
        if data is not None:
            return data
        for folder in (Path(output), *Path(output).parents):
            if pointer := self._show(f"{folder}.dvc"):
                inside = Path(output).relative_to(folder).as_posix()
                md5 = self._listed(pointer).get(inside)
                if md5:
                    return self._object(md5)
        raise Absent(f"{output} is neither in git nor in DVC at {self._commit[:12]}")

    def _list(self, pointer: bytes) -> dict[str, str]:
        return listed(pointer, self._object)

    def _object(self, md5: str) -> bytes:
        data = object_at_hand(md5)
        if data is None:
            raise Absent(f"released results are not at hand; run `{self._fetch}`")
        return data


def listed(pointer: bytes, find: Callable[[str], bytes]) -> dict[str, str]:
    """What a .dvc file points at: md5 by path below it, "." for a single file.

    Args:
        pointer: the .dvc file's bytes.
        find: an object of DVC's by its md5.
    """
    (out,) = yaml.safe_load(pointer)["outs"]
    if not out["md5"].endswith(".dir"):
        return {".": out["md5"]}
    return {entry["relpath"]: entry["md5"] for entry in json.loads(find(out["md5"]))}


def object_at_hand(md5: str) -> bytes | None:
    """An object from DVC's cache or a remote that is a folder, None where it is in neither."""
    for store in _stores():
        path = store / object_path(md5)
        if path.is_file():
            return path.read_bytes()
    return None


def object_path(md5: str) -> Path:
    """Where an object lies within a cache or remote."""
    return OBJECTS / md5[:2] / md5[2:]


def _stores() -> list[Path]:
    """DVC's cache and the remotes that are folders."""
    config = configparser.ConfigParser(interpolation=None)
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    cache_folder = config.get("cache", "dir", fallback="cache")
    urls = [config[section]["url"] for section in config if "url" in config[section]]
    return [Path(".dvc") / place for place in (cache_folder, *urls) if "://" not in place]


def _git(*arguments: str) -> bytes | None:
    """What a git command prints, None where it fails."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
