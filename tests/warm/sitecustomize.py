"""Python imports this first, where its folder is on PYTHONPATH: hands a command to a warm server.

The server (tests/warm_server.py) has the libraries imported and forks a process per command; this
process passes on arguments, environment, folder and streams, and ends as that one ends. A server
that is not there, or will not, leaves the command to this process.
"""

import os
import sys

COMMANDS = ("snakemake", "dvc", "diffmbrl.cli")
REFUSED = 255


def _command() -> list[str]:
    """Module and arguments of a command that the server takes; empty for any other."""
    words = sys.orig_argv[1:]
    if words[:1] == ["-m"]:
        words = words[1:]
    elif words and os.sep in words[0]:
        words = [os.path.basename(words[0]), *words[1:]]
    return words if words and words[0] in COMMANDS else []


def _hand_over(address: str, words: list[str]) -> None:
    import json
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
        except OSError:
            return
        told = json.dumps([words, dict(os.environ), os.getcwd()]).encode()
        socket.send_fds(server, [len(told).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(told)
        code = server.recv(1)
    if not code:
        os.write(2, b"the warm server (tests/warm_server.py) is gone\n")
    if code != bytes([REFUSED]):
        os._exit(code[0] if code else 1)


if (_address := os.environ.get("DIFFMBRL_WARM")) and (_words := _command()):
    _hand_over(_address, _words)
