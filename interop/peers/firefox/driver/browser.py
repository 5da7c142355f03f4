"""A headless Firefox with a profile of its own, under remote control by Marionette.

Authorities are trusted in that profile alone. The functions block; one thread at a time may call them, and any thread
`stop`.
"""

from __future__ import annotations

import json
import re
import socket
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marionette_driver.addons import Addons  # type: ignore[import-not-found]
from marionette_driver.errors import MarionetteException  # type: ignore[import-not-found]
from marionette_driver.marionette import Marionette  # type: ignore[import-not-found]

from .preferences import QLOG
from .process import FirefoxError, Process

__all__ = ["Firefox"]

_EXTENSION = Path(__file__).parent.parent / "extension"
_EXTENSION_ID = "interop@masque.test"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_ANSWER_SECONDS = 30.0
_QUIT_SECONDS = 2.5
_POLL_SECONDS = 0.02

_TRUST = """
    const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
    database.addCertFromBase64(arguments[0], "C,,");
"""
# The first request makes Firefox open its store of alternatives to origins; listing them waits until it was read.
# Before that, an alternative is forgotten as soon as it is learned.
_OPEN_ALTERNATIVES = """
    const [port, done] = arguments;
    const { NetUtil } = ChromeUtils.importESModule("resource://gre/modules/NetUtil.sys.mjs");
    NetUtil.asyncFetch({ uri: `https://127.0.0.1:${port}/`, loadUsingSystemPrincipal: true }, () => {
        done(Services.io.getProtocolHandler("https").QueryInterface(Ci.nsIHttpProtocolHandler).altSvcCacheKeys);
    });
"""
_QUIT = """
    const { setTimeout } = ChromeUtils.importESModule("resource://gre/modules/Timer.sys.mjs");
    setTimeout(() => Services.startup.quit(Ci.nsIAppStartup.eForceQuit), 0);
"""
_IS_READY = "return typeof browser.extension.getBackgroundPage()?.begin === 'function'"
_CALL = "return browser.extension.getBackgroundPage()[arguments[0]](...arguments[1])"


class Firefox:
    """One Firefox: made, it starts; `attach` waits until it can be used; `stop` ends it and removes its folder."""

    def __init__(self) -> None:
        """Start the process.

        Raises:
            FirefoxError: it cannot be started.
        """
        self._page = uuid.uuid4()
        known = json.dumps({_EXTENSION_ID: str(self._page)})
        # Firefox makes the folder of its qlogs at its start or never; afterwards they can be switched off and on.
        self._process = Process({"extensions.webextensions.uuids": known, QLOG: True})
        self._marionette: Marionette = None
        self._trusted: set[str] = set()
        self._qlogs = ""
        self.version = ""
        "Known once attached."

    def attach(self, timeout: float) -> None:
        """Wait for Firefox, take control of it, and install the extension.

        Args:
            timeout: seconds.

        Raises:
            FirefoxError: it ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout
        port_file = self._process.profile / "MarionetteActivePort"
        self._wait_for(lambda: port_file.is_file() and port_file.read_text().isdecimal(), deadline)
        try:
            port = int(port_file.read_text())
            self._marionette = Marionette(host="127.0.0.1", port=port, socket_timeout=_ANSWER_SECONDS)
            self.version = self._marionette.start_session()["browserVersion"]
            Addons(self._marionette).install(str(self._pack_extension()), temp=True)
            self._marionette.navigate(f"moz-extension://{self._page}/control.html")
            self._wait_for(lambda: bool(self._marionette.execute_script(_IS_READY, sandbox=None)), deadline)
            self._open_alternatives()
        except (MarionetteException, OSError) as error:
            raise FirefoxError(f"Firefox cannot be controlled: {error}") from error

    def _wait_for(self, is_done: Callable[[], bool], deadline: float) -> None:
        while not is_done():
            self._process.check()
            if time.monotonic() > deadline:
                raise FirefoxError("timeout: Firefox is not ready")
            time.sleep(_POLL_SECONDS)

    def _open_alternatives(self) -> None:
        with socket.socket() as nobody, self._marionette.using_context("chrome"):
            nobody.bind(("127.0.0.1", 0))
            self._marionette.execute_async_script(_OPEN_ALTERNATIVES, [nobody.getsockname()[1]])

    def _pack_extension(self) -> Path:
        packed = self._process.folder / "extension.xpi"
        with zipfile.ZipFile(packed, "w") as archive:
            for file in _EXTENSION.iterdir():
                archive.write(file, file.name)
        return packed

    def trust(self, file: str) -> None:
        """Trust the authorities in a PEM file for servers, in this profile.

        Args:
            file: the file's path.

        Raises:
            FirefoxError: the file cannot be read, has no certificate, or Firefox does not take it.
        """
        try:
            certificates = ["".join(body.split()) for body in _PEM.findall(Path(file).read_text(encoding="ascii"))]
        except (OSError, ValueError) as error:
            raise FirefoxError(f"{file} cannot be read: {error}") from error
        if not certificates:
            raise FirefoxError(f"{file} has no certificate")
        for certificate in certificates:
            if certificate not in self._trusted:
                self._in_chrome(_TRUST, certificate)
                self._trusted.add(certificate)

    def set_preference(self, name: str, value: bool | int | str) -> None:
        """Set a preference, from now on.

        Args:
            name: its name.
            value: its value.

        Raises:
            FirefoxError: Firefox did not answer.
        """
        try:
            self._marionette.set_pref(name, value)
        except (MarionetteException, OSError) as error:
            raise FirefoxError(f"{name} cannot be set: {error}") from error

    def call(self, function: str, *arguments: object) -> Any:
        """Call a function of the extension.

        Args:
            function: a function in extension/background.js.
            arguments: its arguments, anything that JSON has.

        Returns:
            Its result.

        Raises:
            FirefoxError: it threw, or Firefox is gone.
        """
        try:
            return self._marionette.execute_script(_CALL, [function, list(arguments)], sandbox=None)
        except (MarionetteException, OSError) as error:
            raise FirefoxError(f"the extension cannot be asked: {error}") from error

    def keep_qlogs(self, folder: str) -> None:
        """Write qlogs from now on; `stop` moves them.

        Args:
            folder: where they go.

        Raises:
            FirefoxError: Firefox did not answer.
        """
        self._qlogs = folder
        self.set_preference(QLOG, True)

    def _in_chrome(self, script: str, *arguments: str) -> Any:
        try:
            with self._marionette.using_context("chrome"):
                return self._marionette.execute_script(script, list(arguments))
        except (MarionetteException, OSError) as error:
            raise FirefoxError(f"Firefox refused: {error}") from error

    def quit(self) -> None:
        """Let Firefox close its connections and end by itself; `stop` follows in any case."""
        try:
            self._in_chrome(_QUIT)
        except FirefoxError:
            return  # it is not there any more
        self._process.wait(_QUIT_SECONDS)

    def stop(self) -> None:
        """End the process and remove its folder. May be called at any time, from any thread."""
        self._process.stop(self._qlogs)
