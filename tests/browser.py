"""A real Chromium without a window, spoken to over a pipe in the DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Keys that are no letters: what the protocol calls them, and their codes.
_CODES = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27, "Enter": 13, "Tab": 9}


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def find_axe() -> Path | None:
    """Return axe-core, which looks for what keeps people out: the file that AXE_PATH names, or a package's."""
    if named := os.environ.get("AXE_PATH"):
        return Path(named)
    found = find_spec("axe_playwright_python")
    return Path(found.origin).with_name("axe.min.js") if found is not None and found.origin else None


class Tab:
    """A page in the browser.

    requests: the addresses of all that it asked for; errors: what its scripts, or the browser, complained of.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write = write
        self._read = read
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Performance"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its answer; notes what happens meanwhile."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def close_browser(self) -> None:
        with suppress(RuntimeError, OSError):
            self._on_browser("Browser.close")

    def _on_browser(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call what is no page's."""
        session, self._session = self._session, None
        try:
            return self.call(method, **parameters)
        finally:
            self._session = session

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event["method"] == "Log.entryAdded" and parameters["entry"]["source"] in ("security", "javascript"):
            self.errors.append(parameters["entry"]["text"])

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a page from the disk and wait until it shows images, or says that there are none."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=page.as_uri() + fragment)
        self.wait_for("document.readyState === 'complete' && document.getElementById('count').textContent !== ''")
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is being read."""
        self.wait_for("document.getElementById('progress').hidden")

    def evaluate(self, expression: str) -> Any:
        """Return what an expression, or the promise that it is, comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 20.0) -> None:
        self.wait(lambda: bool(self.evaluate(expression)), expression, timeout_s)

    def wait(self, is_there: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_there():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the page never came to: {what}; errors: {self.errors}")
            time.sleep(0.02)

    def key(self, key: str) -> None:
        """Press a key and let it go."""
        code = _CODES.get(key, ord(key[0].upper()))
        text = {} if key in _CODES and key != "Enter" else {"text": "\r" if key == "Enter" else key}
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def forget(self) -> None:
        """Begin to note anew."""
        self.requests.clear()
        self.errors.clear()

    def downloads_to(self, folder: Path) -> None:
        self._downloads = folder
        self._on_browser("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def downloaded(self, name: str) -> str:
        """Return what a file holds once it has arrived."""
        path = self._downloads / name
        self.wait(path.exists, f"a download of {name}")
        text = path.read_text("utf-8")
        path.unlink()
        return text

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Take the size of a screen and a colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def memory_mb(self) -> float:
        """Return the memory of the process that shows the page, in megabytes; of what it shares, its share.

        Without what earlier pages in it have left to the garbage collector.
        """
        self.call("HeapProfiler.collectGarbage")
        processes = self._on_browser("SystemInfo.getProcessInfo")["processInfo"]
        smaps = [Path("/proc", str(each["id"]), "smaps_rollup") for each in processes if each["type"] == "renderer"]
        return max(int(path.read_text().split("Pss:")[1].split()[0]) / 1000 for path in smaps)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(chromium: str, profile: Path) -> Iterator[Tab]:
    """Run a browser with a profile of its own, downloads and all; it ends with the block."""
    there_read, here_write = os.pipe()
    here_read, there_write = os.pipe()
    arguments = [
        *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *(
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ),
    ]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$0" "$@" 3<&{there_read} 4>&{there_write}', chromium, *arguments],
        pass_fds=(there_read, there_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(there_read)
    os.close(there_write)
    try:
        tab = Tab(here_write, here_read)
        yield tab
        tab.close_browser()
    finally:
        os.close(here_write)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(here_read)
