"""DVC remotes as a lab has them: real servers on loopback, and what goes wrong with them."""

import pytest

from toy import servers
from toy.project import RUNS
from toy.published import clone, configure, publishable


def skipped_without(server):
    reason = server.missing()
    return pytest.param(
        server, id=server.__name__,
        marks=pytest.mark.skipif(reason is not None, reason=f"no server here: {reason}"),
    )  # fmt: skip


EVERY = [skipped_without(servers.WebDav), skipped_without(servers.Ssh)]
dav_only = pytest.mark.skipif(
    servers.WebDav.missing() is not None, reason=f"no server here: {servers.WebDav.missing()}"
)


@pytest.fixture
def serve(tmp_path):
    """Starts a server; all are ended after the test."""
    started = []

    def start(kind, **how):
        started.append(kind(tmp_path / "server", **how))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def publish(project):
    """Publishes and commits."""
    assert "pushed" in project.diffmbrl("publish").stdout
    project.git("add", "-A")
    project.git("commit", "-q", "--allow-empty", "-m", "published")


def pulled_clone(project, server, root):
    """A fresh clone with what the server has."""
    copy = clone(project, root)
    configure(copy, **server.settings, url=server.url)
    copy.run("dvc", "pull")
    return copy


def refusal(project):
    """The one line of a publish that fails."""
    before = project.bytes()
    refused = project.diffmbrl("publish", check=False)
    assert refused.returncode == 5, refused.stdout
    assert before.items() <= project.bytes().items()  # .dvc files may have come beside them
    (line,) = refused.stdout.strip().splitlines()
    return line


@pytest.mark.parametrize("kind", EVERY)
def test_a_clone_elsewhere_pulls_and_has_nothing_to_do(kind, serve, tmp_path):
    server = serve(kind)
    project = publishable(tmp_path / "p", server.url, **server.settings)
    publish(project)
    copy = pulled_clone(project, server, tmp_path / "clone")
    assert copy.nothing_to_do()
    assert copy.audit()["problems"] == []
    assert "secret" not in (project.root / ".dvc/config").read_text()
    assert project.git("status", "--short") == ""


@pytest.mark.parametrize("kind", EVERY)
def test_wrong_credentials_are_one_line_and_lose_nothing(kind, serve, tmp_path):
    server = serve(kind)
    project = publishable(tmp_path / "p", server.url, **(server.settings | server.wrong))
    line = refusal(project)
    assert "dvc push: ERROR" in line
    assert any(word in line for word in ("401", "Permission denied")), line
    configure(project, **server.settings)
    publish(project)


@dav_only
def test_a_server_that_dies_half_way_is_one_line_and_publishing_again_goes_on(serve, tmp_path):
    dies = serve(servers.WebDav, puts=3)
    project = publishable(tmp_path / "p", dies.url, **dies.settings)
    assert "dvc push: ERROR" in refusal(project)
    server = serve(servers.WebDav)
    configure(project, url=server.url)
    publish(project)
    assert pulled_clone(project, server, tmp_path / "clone").nothing_to_do()


@dav_only
def test_an_object_that_the_server_lost_is_named_and_can_be_brought_back(serve, tmp_path):
    server = serve(servers.WebDav)
    project = publishable(tmp_path / "p", server.url, **server.settings)
    publish(project)
    objects = {path: path.read_bytes() for path in server.store.rglob("*") if path.is_file()}
    run = (project.root / min(RUNS)).read_bytes()
    (lost,) = (path for path, data in objects.items() if data == run)
    lost.unlink()

    copy = clone(project, tmp_path / "clone")
    configure(copy, **server.settings)
    pulled = copy.run("dvc", "pull", check=False)
    assert pulled.returncode != 0
    copy.make()
    assert (copy.root / min(RUNS)).read_bytes() == run  # made anew, the same

    line = refusal(project)
    assert f"({min(RUNS)})" in line
    (remedy,) = (word for word in line.split() if word.endswith(".dir"))
    (server.store / remedy).unlink()
    publish(project)
    assert lost.read_bytes() == run
    assert pulled_clone(project, server, tmp_path / "again").nothing_to_do()
