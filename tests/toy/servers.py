"""Servers on loopback that keep DVC's objects as a lab's would: WebDAV, and OpenSSH's."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from toy.waiting import wait_for

USER, PASSWORD = "lab", "secret"
DAV = """
import os, sys
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp

root, user, password, puts = *sys.argv[1:4], int(sys.argv[4])
app = WsgiDAVApp({
    "provider_mapping": {"/": root},
    "http_authenticator": {"accept_basic": True, "accept_digest": False,
                           "default_to_digest": False},
    "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}},
    "verbose": 1,
})
seen = 0

def serve(environ, start):
    global seen
    seen += environ["REQUEST_METHOD"] == "PUT"
    if seen > puts >= 0:
        os._exit(1)
    return app(environ, start)

server = wsgi.Server(("127.0.0.1", 0), serve)
server.prepare()
print(server.bind_addr[1], flush=True)
server.serve()
"""


class WebDav:
    """A WebDAV server with one user; `puts` files later it dies, in the middle of the next."""

    needs = ("wsgidav", "cheroot", "dvc_webdav")

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be started here, None where it can."""
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else None

    def __init__(self, folder: Path, puts: int = -1):
        self.store = folder / "store"
        self.store.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", DAV, str(folder), USER, PASSWORD, str(puts)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.url = f"webdav://127.0.0.1:{int(self._process.stdout.readline())}/store"
        self.settings = {"user": USER, "password": PASSWORD}
        self.wrong = {"password": "guessed"}

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait(timeout=30)
        self._process.stdout.close()


class Ssh:
    """OpenSSH's server, which knows one key."""

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be started here, None where it can."""
        if importlib.util.find_spec("dvc_ssh") is None:
            return "dvc_ssh not installed"
        return None if Path("/usr/sbin/sshd").exists() else "OpenSSH's server not installed"

    def __init__(self, folder: Path):
        self.store = folder / "store"
        self.store.mkdir(parents=True, exist_ok=True)
        for name in ("host", "right", "other"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(key, check=True)
        shutil.copy(folder / "right.pub", folder / "authorized_keys")
        port = _free_port()
        (folder / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            f"PasswordAuthentication no\nPidFile none\nSubsystem sftp internal-sftp\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self._log = open(folder / "sshd.log", "w")  # noqa: SIM115
        self._process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")], stderr=self._log
        )
        wait_for(lambda: "listening" in (folder / "sshd.log").read_text(), what="sshd")
        self.url = f"ssh://127.0.0.1:{port}{self.store}"
        user = os.environ.get("USER") or subprocess.check_output(["id", "-un"], text=True).strip()
        self.settings = {"user": user, "keyfile": str(folder / "right")}
        self.wrong = {"keyfile": str(folder / "other")}

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(timeout=30)
        self._log.close()


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
