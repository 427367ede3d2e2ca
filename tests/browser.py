"""A real browser without a window, driven by Chrome's DevTools protocol over a pipe: no driver, no package, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_TIMEOUT_S = 60
_COMPLAINTS = ("error", "warning", "assert")
# The browser reads commands from its file 3 and answers on 4.
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), " ": (32, " "), "Escape": (27, "")}


def find_browser() -> str:
    """The browser to test with, or skip the test."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser, one of {', '.join(NAMES)} (scripts/test-browser installs one)")
    return found


class Browser:
    """A browser process. What it says about itself is dropped; what pages say is kept by `Page`."""

    def __init__(self, program: str, profile: Path) -> None:
        from_browser, browser_writes = os.pipe()
        browser_reads, to_browser = os.pipe()
        # Beyond 4, so that neither is in the way of the numbers the browser wants.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (browser_reads, browser_writes)]
        flags = [
            "--headless",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--disable-gpu",
            "--hide-scrollbars",
        ]
        flags += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *map(str, ends), program, *flags, "about:blank"],
            pass_fds=ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (*ends, browser_reads, browser_writes):
            os.close(end)
        self._in, self._out = from_browser, to_browser
        self._unread = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        """Not taken yet by `wait_for`."""

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its result."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def wait_for(self, method: str) -> dict[str, Any]:
        """The next event of that name; those before it stay in `events`."""
        for place, event in enumerate(self.events):
            if event.get("method") == method:
                return self.events.pop(place)
        while (event := self._read()).get("method") != method:
            self.events.append(event)
        return event

    def close(self) -> None:
        """End the process."""
        self.call("Browser.close")
        self._process.wait(_TIMEOUT_S)
        os.close(self._in)
        os.close(self._out)

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + _TIMEOUT_S
        while b"\0" not in self._unread:
            if not select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no word from the browser for {_TIMEOUT_S} s")
            data = os.read(self._in, 1 << 16)
            if not data:
                raise RuntimeError("the browser has ended")
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)


class Page:
    """A tab of a given size, with a file or an address open in it."""

    def __init__(
        self,
        browser: Browser,
        opened: Path | str,
        *,
        width: int,
        height: int,
        scale: float = 1,
        is_dark: bool = False,
        is_still: bool = False,
        scripts: bool = True,
    ) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        is_phone = width < 600
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=is_phone,
        )
        wishes = {
            "prefers-color-scheme": "dark" if is_dark else "light",
            "prefers-reduced-motion": "reduce" if is_still else "no-preference",
        }
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self._call("Emulation.setEmulatedMedia", features=features)
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._call("Page.navigate", url=opened if isinstance(opened, str) else opened.as_uri())
        browser.wait_for("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, of a promise when it is kept. Raises RuntimeError where it throws."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def click(self, selector: str) -> None:
        """Press the mouse button over the middle of an element."""
        box = self.evaluate(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)}); found.scrollIntoView();"
            " const box = found.getBoundingClientRect();"
            " return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **box)

    def press(self, key: str, *, control: bool = False) -> None:
        """Press and release a key: one of `_KEYS`. control: with the control key held."""
        code, text = _KEYS[key]
        more = {"modifiers": 2} if control else {"text": text}
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def wait_until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true. Raises TimeoutError where it stays false."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition} was not true for {_TIMEOUT_S} s")
            time.sleep(0.02)

    def give_file(self, selector: str, path: Path) -> None:
        """Choose a file in a file field."""
        document = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def choose(self, name: str, value: str) -> None:
        """Give the control with this id a value, as a person would."""
        self.evaluate(
            f"(() => {{ const found = document.getElementById({json.dumps(name)}); found.value = {json.dumps(value)};"
            " for (const kind of ['input', 'change']) found.dispatchEvent(new Event(kind)); })()"
        )

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self._call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """What is to be seen, as a PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[str]:
        """What the console, the security policy and uncaught errors have said so far."""
        self.evaluate("0")  # what was said before this has been read by now
        said = []
        for event in self._events():
            told = event["params"]
            if event["method"] == "Runtime.consoleAPICalled" and told["type"] in _COMPLAINTS:
                said.append(" ".join(str(argument.get("value")) for argument in told["args"]))
            elif event["method"] == "Runtime.exceptionThrown":
                said.append(str(told["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded":
                said.append(told["entry"]["text"])
        return said

    def addresses(self) -> list[str]:
        """What the page has asked for, itself included."""
        self.evaluate("0")
        sent = [event for event in self._events() if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def _events(self) -> list[dict[str, Any]]:
        return [event for event in self._browser.events if event.get("sessionId") == self._session]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, session=self._session, **parameters)


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser for the block, or skip the test."""
    browser = Browser(find_browser(), profile)
    try:
        yield browser
    finally:
        browser.close()
