"""Manifests, the store, remembered hashes and Snakemake's records."""

import hashlib
import json
import os
import time
from dataclasses import replace

import pytest

from diffmbrl.errors import DataError, UserError
from diffmbrl.pipeline import files, manifests, processes, records, snakemake, store
from diffmbrl.pipeline.proof import File, Fingerprint, Manifest, Proof

CODE, SETTINGS = {"diffmbrl.a": "1"}, {"seeds": [1, 2]}
OUTPUT = "data/results/laptop/p/a.txt"
DATA = "data/datasets/laptop/p/d.txt"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(store.LIMIT_GB, raising=False)
    return tmp_path


def proof(content="x", output=OUTPUT, **changes):
    return replace(
        Proof(
            "p.a",
            Fingerprint(CODE, "2", SETTINGS),
            "x86-64-v3",
            {"data": [File(DATA, "00")]},
            {"runs": File(output, hashlib.sha256(content.encode()).hexdigest())},
        ),
        **changes,
    )


def make(project, content="x", report=None):
    path = project / OUTPUT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    made = Manifest(OUTPUT, proof(content), report or {})
    manifests.write(made)
    return made


def test_a_manifest_reads_back_and_settings_with_it(project):
    made = make(project, report={"seconds": 1})
    assert manifests.read(OUTPUT) == made
    assert manifests.read(OUTPUT).proof.fingerprint.settings == {"seeds": [1, 2]}
    assert list(manifests.every()) == [OUTPUT]


def test_the_same_proof_leaves_the_file_and_another_replaces_it(project):
    make(project, report={"seconds": 1})
    first = manifests.path_of(OUTPUT).read_bytes()
    make(project, report={"seconds": 2})
    assert manifests.path_of(OUTPUT).read_bytes() == first
    make(project, content="y", report={"seconds": 3})
    assert json.loads(manifests.path_of(OUTPUT).read_text())["report"]["seconds"] == 3


EDITS = {
    "code": lambda m: m["proof"].update(fingerprint=["diffmbrl.a@9", "requirements.txt@2"]),
    "platform": lambda m: m["proof"].update(platform="aarch64"),
    "output": lambda m: m.update(output="data/results/laptop/p/b.txt"),
    "accepted": lambda m: m.update(accepted=[{"reason": "none"}]),
    "proof is no mapping": lambda m: m.update(proof=[]),
}


@pytest.mark.parametrize("change", [*EDITS, "garbage", "truncated"])
def test_an_edited_manifest_is_refused(project, change):
    made = json.loads(make(project).text())
    if change in EDITS:
        EDITS[change](made)
    text = json.dumps(made)
    path = manifests.path_of(OUTPUT)
    path.write_text({"garbage": "[]", "truncated": text[:-20]}.get(change, text))
    with pytest.raises(DataError, match="seal"):
        manifests.read(OUTPUT)


def test_an_unknown_platform_is_named(project):
    made = make(project)
    odd = replace(made, proof=replace(made.proof, platform="abacus"))
    manifests.path_of(OUTPUT).write_text(odd.text())
    with pytest.raises(
        DataError, match=r"a\.txt\.json: platform 'abacus' is unknown; expected x86"
    ):
        manifests.read(OUTPUT)


def test_a_manifest_in_another_outputs_place_is_refused(project):
    make(project)
    other = manifests.path_of("data/results/laptop/p/b.txt")
    other.write_text(manifests.path_of(OUTPUT).read_text())
    with pytest.raises(DataError, match=r"is the manifest of .*a\.txt"):
        manifests.read("data/results/laptop/p/b.txt")


def test_a_key_depends_on_all_that_decides_bytes_and_on_nothing_else():
    def key(stage="p.a", code=CODE, lock="2", settings=SETTINGS, entries=None, platform="aarch64",
            path="x/d.txt", sha256="0", role="data", out="runs", content="x"):  # fmt: skip
        fingerprint = Fingerprint(code, lock, settings, entries or {})
        return Proof(stage, fingerprint, platform, {role: [File(path, sha256)]},
                     {out: File(OUTPUT, content)}).key  # fmt: skip

    changed = [
        key(stage="p.b"), key(code={"diffmbrl.a": "2"}), key(sha256="1"), key(lock="3"),
        key(settings={"seeds": [2, 1]}), key(role="other"), key(out="other"), key(path="x/e.txt"),
        key(platform="x86-64-v3"), key(entries={"p.b.c": {"diffmbrl.c": "1"}}),
    ]  # fmt: skip
    assert len({key(), *changed}) == 11
    assert key(path="y/d.txt") == key()
    assert key(content="y") == key()


def test_a_fingerprint_is_the_same_after_a_trip_through_strings():
    there = Fingerprint(
        CODE, "2", {"title": "a@b uses c=d", "n": 1}, {"p.domains.x": {"diffmbrl.p.x": "3"}}
    )
    assert Fingerprint.parse(there.strings()) == there
    assert there.of_code() == {"diffmbrl.a": "1", "diffmbrl.p.x": "3"}
    with pytest.raises(UserError, match=r"'n=\[': the value is not JSON"):
        Fingerprint.parse(["n=["])
    with pytest.raises(UserError, match="'seeds': give settings as name=<json>"):
        Fingerprint.parse(["seeds"])


def test_changes_are_told_by_kind():
    before = Fingerprint(CODE, "2", {"n": 1, "gone": "x"})
    after = Fingerprint({"diffmbrl.a": "9", "diffmbrl.b": "1"}, "3", {"n": "1"})
    assert [tuple(change) for change in before.changes(after)] == [
        ("code", "diffmbrl.a changed"),
        ("code", "diffmbrl.b came or went"),
        ("lock", "requirements.txt changed"),
        ("settings", 'gone: "x" -> none'),
        ("settings", 'n: 1 -> "1"'),
    ]
    assert list(before.changes(before)) == []


def test_the_store_serves_what_it_was_given_and_nothing_damaged(project):
    source = project / "source"
    source.write_text("x")
    key = proof().key
    store.put(proof(), {"seconds": 5}, {"runs": source})
    target = project / "target"
    assert store.serve(key, {"runs": target}) == {"seconds": 5}
    assert target.read_text() == "x"
    assert store.serve("other", {"runs": target}) is None
    assert store.earlier(OUTPUT, proof().outputs["runs"].sha256)
    (store.FOLDER / key / "runs").write_text("y")
    assert store.serve(key, {"runs": target}) is None
    assert store.holds(key) == {}


def test_the_store_drops_what_was_unused_for_longest(project, monkeypatch):
    monkeypatch.setenv(store.LIMIT_GB, str(7000 / 1e9))
    source = project / "source"
    source.write_bytes(b"x" * 1500)
    proofs = [proof(stage=f"p.{index}") for index in range(5)]
    for index in range(3):
        store.put(proofs[index], {}, {"runs": source})
        os.utime(store.FOLDER / proofs[index].key, (index, index))
    os.utime(store.FOLDER / proofs[0].key, (9, 9))  # used again
    monkeypatch.setenv(store.LIMIT_GB, str(6600 / 1e9))
    store.put(proofs[3], {}, {"runs": source})
    kept = {proofs[index].key for index in (0, 2, 3)}
    assert {p.name for p in store.FOLDER.iterdir()} == kept
    monkeypatch.setenv(store.LIMIT_GB, "0")
    store.put(proofs[4], {}, {"runs": source})
    assert not (store.FOLDER / proofs[4].key).exists()


def test_hashes_are_remembered_until_a_file_changes_in_any_way(project):
    calls = []

    def count(path):
        calls.append(path)
        return path.read_text()

    path = project / "file"
    path.write_text("a")
    time.sleep(2 * files._SETTLED)
    first = files.Remembered("test", count)
    assert [first(path), first(path)] == ["a", "a"]
    first.save()
    assert files.Remembered("test", count)(path) == "a"
    assert len(calls) == 1
    before = path.stat()
    path.write_text("b")  # same size, and its old time put back
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.Remembered("test", count)(path) == "b"


def test_a_file_written_just_now_is_not_remembered(project):
    path = project / "file"
    path.write_text("a")
    remembered = files.Remembered("test", lambda p: p.read_text())
    assert remembered(path) == "a"
    remembered.save()
    assert not (files.STATE / "test").exists()


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
    return json.loads(snakemake.record_path(output).read_text())


def test_records_have_the_times_of_the_manifest(project):
    make(project, report={"started": "2026-11-24T23:12:28Z", "seconds": 9.5})
    assert records.reconcile() == 1
    record = json.loads(snakemake.record_path(OUTPUT).read_text())
    assert (record["starttime"], record["endtime"]) == (1795561948, 1795561957.5)
    assert records.reconcile() == 0
    make(project, content="y", report={"started": "yesterday", "seconds": 9.5})
    records.reconcile()
    record = json.loads(snakemake.record_path(OUTPUT).read_text())
    assert record["starttime"] == 1795561948  # what is not known is left as it was
    assert record["rule"] == ""


def test_records_follow_manifests(project):
    data = project / DATA
    data.parent.mkdir(parents=True)
    made = make(project)
    assert records.reconcile({"p.a": "p_a"}) == 1
    record = read_record(OUTPUT)
    assert record["params"] == sorted(map(repr, made.proof.fingerprint.strings()))
    assert record["input"] == [DATA]
    assert record["rule"] == "p_a"
    assert records.reconcile({"p.a": "p_a"}) == 0
    (project / OUTPUT).write_text("tampered")
    records.reconcile()
    assert any("its bytes" in param for param in read_record(OUTPUT)["params"])
    (project / OUTPUT).write_text("x")
    data.write_text("other")
    records.reconcile()
    assert any("other bytes of data/data" in param for param in read_record(OUTPUT)["params"])
    manifests.path_of(OUTPUT).unlink()
    records.reconcile()
    assert read_record(OUTPUT)["params"] == [repr(f"{OUTPUT} has no manifest")]


def test_what_a_living_job_is_writing_is_left_alone(project, monkeypatch):
    make(project)
    (project / OUTPUT).write_text("its new bytes, the manifest not yet written")
    note = processes.note("p.a", [OUTPUT])
    entry = json.loads(note.read_text())
    note.write_text(
        json.dumps({**entry, "pid": os.getppid(), "birth": processes.birth(os.getppid())})
    )
    assert records.reconcile() == 0
    note.unlink()
    assert records.reconcile() == 1


def test_only_a_real_run_fills_the_store(project):
    make(project)
    records.reconcile()
    assert not store.FOLDER.exists()
    records.keep()
    assert [p.name for p in store.FOLDER.iterdir()] == [proof().key]


def test_another_hosts_note_counts_until_it_is_stale(project):
    note = processes.note("p.a", [OUTPUT])
    entry = json.loads(note.read_text())
    note.write_text(json.dumps({**entry, "host": "elsewhere pid:[1]"}))
    assert [entry["what"] for entry in processes.living()] == ["p.a"]
    old = time.time() - 2 * processes.STALE
    os.utime(note, (old, old))
    assert processes.living() == []
    assert not note.exists()


def test_records_are_where_and_what_snakemake_expects(project):
    from snakemake.io import _IOFile
    from snakemake.persistence.file import FilePersistence

    long = "figures/laptop/p/" + "x" * 200 + ".txt"
    for output in (OUTPUT, long):
        (project / output).parent.mkdir(parents=True, exist_ok=True)
        (project / output).write_text("x")
        manifests.write(Manifest(output, proof(output=output), {}))
    records.reconcile()
    theirs = FilePersistence(path=project / ".snakemake")
    for output in (OUTPUT, long):
        record = theirs.metadata(_IOFile(output, None))
        assert record.params == sorted(map(repr, proof().fingerprint.strings()))
        assert record.input_checksums == {DATA: "sha256:00"}
