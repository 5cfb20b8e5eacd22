"""Manifests, the store, remembered hashes and Snakemake's records."""

import json
import os
import time

import pytest

from diffmbrl.errors import DataError
from diffmbrl.pipeline import files, manifest, records, store

STRINGS = ["diffmbrl.a@1", "requirements.txt@2", "seeds=[1,2]"]
OUTPUT = "data/results/laptop/p/a.txt"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(store.LIMIT_GB, raising=False)
    return tmp_path


def proof(content="x", key="k1", output=OUTPUT):
    import hashlib

    return {
        "stage": "p.a", "key": key, "fingerprint": STRINGS,
        "inputs": {"data": [{"path": "data/datasets/laptop/p/d.txt", "sha256": "00"}]},
        "outputs": {"runs": {
            "path": output, "sha256": hashlib.sha256(content.encode()).hexdigest()
        }},
    }  # fmt: skip


def make(project, content="x", report=None, key="k1"):
    path = project / OUTPUT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    made = manifest.build(OUTPUT, proof(content, key), report or {})
    manifest.write(made)
    return made


def test_a_manifest_reads_back_and_settings_with_it(project):
    made = make(project)
    assert manifest.read(manifest.path_of(OUTPUT)) == made
    assert manifest.settings_of(made) == {"seeds": [1, 2]}


def test_the_same_proof_leaves_the_file_and_another_replaces_it(project):
    make(project, report={"seconds": 1})
    first = manifest.path_of(OUTPUT).read_bytes()
    make(project, report={"seconds": 2})
    assert manifest.path_of(OUTPUT).read_bytes() == first
    make(project, content="y", report={"seconds": 3})
    assert json.loads(manifest.path_of(OUTPUT).read_text())["report"]["seconds"] == 3


@pytest.mark.parametrize("change", ["proof", "output", "accepted", "garbage", "truncated"])
def test_an_edited_manifest_is_refused(project, change):
    made = make(project)
    path = manifest.path_of(OUTPUT)
    if change == "proof":
        made["proof"]["fingerprint"] = ["diffmbrl.a@9"]
    elif change == "output":
        made["output"] = "data/results/laptop/p/b.txt"
    elif change == "accepted":
        made["accepted"] = [{"reason": "none"}]
    text = json.dumps(made)
    path.write_text({"garbage": "[]", "truncated": text[:-20]}.get(change, text))
    with pytest.raises(DataError, match="seal"):
        manifest.read(path)


def test_a_manifest_in_another_outputs_place_is_refused(project):
    make(project)
    other = manifest.path_of("data/results/laptop/p/b.txt")
    other.write_text(manifest.path_of(OUTPUT).read_text())
    with pytest.raises(DataError, match=r"is the manifest of .*a\.txt"):
        manifest.read(other)


def test_a_key_depends_on_all_that_decides_bytes_and_on_nothing_else():
    def key(stage="p.a", strings=STRINGS, path="x/d.txt", sha256="0", role="data", out="runs"):
        return manifest.key(stage, strings, {role: [{"path": path, "sha256": sha256}]}, [out])

    changed = [
        key(stage="p.b"), key(strings=["diffmbrl.a@2", *STRINGS[1:]]), key(sha256="1"),
        key(strings=[*STRINGS[:2], "seeds=[2,1]"]), key(role="other"), key(out="other"),
        key(path="x/e.txt"),
    ]  # fmt: skip
    assert len({key(), *changed}) == 8
    assert key(path="y/d.txt") == key()
    assert key(strings=STRINGS[::-1]) == key()


def test_settings_and_code_are_told_apart():
    assert manifest.is_setting('title="a@b"')
    assert not manifest.is_setting("diffmbrl.a@12")


def test_the_store_serves_what_it_was_given_and_nothing_damaged(project):
    source = project / "source"
    source.write_text("x")
    store.put(proof(), {"seconds": 5}, {"runs": source})
    target = project / "target"
    assert store.serve("k1", {"runs": target})["report"] == {"seconds": 5}
    assert target.read_text() == "x"
    assert store.serve("k2", {"runs": target}) is None
    assert store.earlier(OUTPUT, proof()["outputs"]["runs"]["sha256"])
    (store.FOLDER / "k1/runs").write_text("y")
    assert store.serve("k1", {"runs": target}) is None
    assert store.holds("k1") == {}


def test_the_store_drops_what_was_unused_for_longest(project, monkeypatch):
    monkeypatch.setenv(store.LIMIT_GB, str(5000 / 1e9))
    source = project / "source"
    source.write_bytes(b"x" * 1000)
    for index in range(3):
        store.put({**proof(), "key": f"k{index}"}, {}, {"runs": source})
        os.utime(store.FOLDER / f"k{index}", (index, index))
    os.utime(store.FOLDER / "k0", (9, 9))  # used again
    monkeypatch.setenv(store.LIMIT_GB, str(4500 / 1e9))
    store.put({**proof(), "key": "k3"}, {}, {"runs": source})
    assert sorted(p.name for p in store.FOLDER.iterdir()) == ["k0", "k2", "k3"]
    monkeypatch.setenv(store.LIMIT_GB, "0")
    store.put({**proof(), "key": "k4"}, {}, {"runs": source})
    assert not (store.FOLDER / "k4").exists()


def test_hashes_are_remembered_until_a_file_changes_in_any_way(project):
    calls = []

    def count(path):
        calls.append(path)
        return path.read_text()

    path = project / "file"
    path.write_text("a")
    time.sleep(2 * files._SETTLED)
    first = files.Remembered("test.json", count)
    assert [first(path), first(path)] == ["a", "a"]
    first.save()
    assert files.Remembered("test.json", count)(path) == "a"
    assert len(calls) == 1
    before = path.stat()
    path.write_text("b")  # same size, and its old time put back
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.Remembered("test.json", count)(path) == "b"


def test_a_file_written_just_now_is_not_remembered(project):
    path = project / "file"
    path.write_text("a")
    remembered = files.Remembered("test.json", lambda p: p.read_text())
    assert remembered(path) == "a"
    assert remembered._known == {}


def test_an_atomic_write_that_fails_leaves_the_old_file(project, monkeypatch):
    path = project / "file"
    files.write_atomic(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="space"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(project.iterdir()) == [path]


def read_record(output):
    return json.loads(records.path_of(output).read_text())


def test_records_follow_manifests(project):
    data = project / "data/datasets/laptop/p/d.txt"
    data.parent.mkdir(parents=True)
    make(project)
    assert records.reconcile() == 1
    record = read_record(OUTPUT)
    assert record["params"] == sorted(map(repr, STRINGS))
    assert record["input"] == ["data/datasets/laptop/p/d.txt"]
    assert records.reconcile() == 0
    (project / OUTPUT).write_text("tampered")
    records.reconcile()
    assert any("its bytes" in param for param in read_record(OUTPUT)["params"])
    (project / OUTPUT).write_text("x")
    data.write_text("other")
    records.reconcile()
    assert any("other bytes of data/data" in param for param in read_record(OUTPUT)["params"])
    manifest.path_of(OUTPUT).unlink()
    records.reconcile()
    assert read_record(OUTPUT)["params"] == [repr(f"{OUTPUT} has no manifest")]


def test_records_are_where_and_what_snakemake_expects(project):
    from snakemake.io import _IOFile
    from snakemake.persistence import RECORD_FORMAT_VERSION
    from snakemake.persistence.file import FilePersistence

    long = "figures/laptop/p/" + "x" * 200 + ".txt"
    assert records.FORMAT == RECORD_FORMAT_VERSION
    (project / "figures/laptop/p").mkdir(parents=True)
    for output in (OUTPUT, long):
        (project / output).parent.mkdir(parents=True, exist_ok=True)
        (project / output).write_text("x")
        manifest.write(manifest.build(output, proof(output=output), {}))
    records.reconcile()
    theirs = FilePersistence(path=project / ".snakemake")
    for output in (OUTPUT, long):
        record = theirs.metadata(_IOFile(output, None))
        assert record.params == sorted(map(repr, STRINGS))
        assert record.input_checksums == {"data/datasets/laptop/p/d.txt": "sha256:00"}
