"""A headless Chromium, steered over a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
_FLAGS += ["--disable-quic", "--disable-extensions", "--disable-background-networking"]
_FLAGS += ["--disable-component-update", "--disable-sync", "--remote-debugging-pipe"]
_FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")  # looks up no names


class Browser:
    """One page in a browser of its own; use it in a `with`.

    Attributes:
        requests: the addresses of all that the page has asked for.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (1300, 900)):
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        flags = [*_FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        # the browser reads its file 3 and writes its file 4
        command = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "-", str(CHROMIUM), *flags]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        fds = (theirs_in, theirs_out)
        self._process = subprocess.Popen(command, start_new_session=True, pass_fds=fds, **quiet)
        for fd in fds:
            os.close(fd)
        self._buffer, self._number, self._session = b"", 0, None
        self.requests: list[str] = []

    def __enter__(self) -> Browser:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Page", "Runtime"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, seconds: float = 120, **params: Any) -> dict[str, Any]:
        """Give a command of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + seconds
        while True:
            answer = self._read(end)
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _read(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._in, 1 << 20)
            assert part, "the browser is gone"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, script: str, by_value: bool = True) -> Any:
        """Return what a JavaScript expression is, or a handle of it."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=by_value)["result"]
        return result.get("value") if by_value else result.get("objectId")

    def wait_for(self, script: str, seconds: float = 240) -> Any:
        """Return what an expression is as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"not in {seconds} s: {script}")
            time.sleep(0.1)
        return value

    def drop(self, selector: str, file: Path) -> None:
        """Give a file to an <input type=file>."""
        handle = self.evaluate(f"document.querySelector({json.dumps(selector)})", by_value=False)
        self.call("DOM.setFileInputFiles", files=[str(file.resolve())], objectId=handle)

    def screenshot(self, file: Path) -> None:
        """Write a PNG of the window."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))
