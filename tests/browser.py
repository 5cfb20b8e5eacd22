"""A headless Chromium, driven by the DevTools protocol; skips, in words, where there is none."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0", "about:blank",
)  # fmt: skip
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, "/": 191, " ": 32}
WITHIN = 30  # s; a browser that takes longer to answer hangs


class Tab:
    """A page in the browser.

    Attributes:
        requests: addresses that were asked for, `data:` and `blob:` left out.
        errors: what the console, scripts and policies objected to.
    """

    def __init__(self, socket, port: str):
        self._socket, self._port, self._count = socket, port, 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol; its result."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=WITHIN))
            if message.get("id") == self._count:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message["method"], message["params"])

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("data:", "blob:")):
                self.requests.append(url)
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:500])
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(json.dumps(params["args"])[:500])
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif event == "Page.loadEventFired":
            self._loaded = True

    def open(self, url: str, width: int, height: int = 900) -> None:
        """Opens an address in a window of a width; returns when it is loaded."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self._loaded = False
        self.send("Page.navigate", url=url)
        until(lambda: self.do("document.readyState") == "complete" and self._loaded)

    @contextmanager
    def frame(self) -> Iterator["Tab"]:
        """The page's only frame, which has a process of its own."""
        with _tab(self._port, "iframe") as tab:
            yield tab

    def do(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        done = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key: str) -> None:
        """Presses a key, or types a character."""
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        pressed = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def picture(self, path: Path, whole: bool = False) -> None:
        """Saves what is to be seen, or the whole page, as a PNG."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


def until(true) -> None:
    """Waits until something is so."""
    end = time.monotonic() + WITHIN
    while not true():
        assert time.monotonic() < end, "the browser does not come to it"
        time.sleep(0.02)


@contextmanager
def _tab(port: str, kind: str) -> Iterator[Tab]:
    """What the browser shows, of a kind, once there is one."""
    found: list[str] = []

    def there() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=WITHIN) as answer:
            for target in json.load(answer):
                if target["type"] == kind:
                    found.append(target["webSocketDebuggerUrl"])
        return bool(found)

    until(there)
    with connect(found[0], max_size=None, proxy=None) as socket:
        yield Tab(socket, port)


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a browser that keeps its files in a folder."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser to look with: none of {', '.join(NAMES)} is installed")
    command = [program, f"--user-data-dir={folder}", *FLAGS]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            told = folder / "DevToolsActivePort"
            until(lambda: told.is_file() and told.read_text().count("\n"))
            with _tab(told.read_text().split()[0], "page") as tab:
                yield tab
        finally:
            process.kill()
