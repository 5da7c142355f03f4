"""What Firefox's profile says: the preferences that Mozilla's own automation uses, and ours on top."""

from __future__ import annotations

import json
from pathlib import Path

from marionette_driver.geckoinstance import DesktopInstance, GeckoInstance  # type: ignore[import-not-found]

__all__ = ["ALTERNATIVES", "ALT_SVC", "QLOG", "write_preferences"]

ALT_SVC = "network.http.altsvc.enabled"
"Whether alternatives to an origin are used at all (RFC 7838)."
ALTERNATIVES = "network.http.http3.alt-svc-mapping-for-testing"
"Alternatives known without having been told: `host;h3=:port`, separated by commas."
QLOG = "network.http.http3.enable_qlog"
"Whether QUIC connections write qlogs, below the folder for temporary files."

_OURS = {
    # The proxy is used for every host, also for this machine's, and nothing goes past it when it fails.
    "network.proxy.allow_hijacking_localhost": True,
    "network.proxy.failover_direct": False,
    "network.proxy.allow_bypass": False,
    # HTTP/3 is used with the authority that a test made, and does not quietly become something else.
    "network.http.http3.disable_when_third_party_roots_found": False,
    "network.http.http3.fallback_to_h2_on_error": False,
    "network.http.http3.parallel_fallback_conn_limit": 0,
    # Every fetch asks the origin, for what was asked and for nothing else.
    "browser.cache.disk.enable": False,
    "browser.cache.memory.enable": False,
    "browser.chrome.site_icons": False,
    "network.http.speculative-parallel-limit": 0,
    "network.prefetch-next": False,
    "network.dns.disablePrefetch": True,
    # No traffic of Firefox's own.
    "app.normandy.enabled": False,
    "browser.safebrowsing.blockedURIs.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "extensions.systemAddon.update.url": "",
    "network.trr.mode": 5,
    "network.dns.upgrade_with_https_rr": False,
    "network.dns.use_https_rr_as_altsvc": False,
    "nimbus.rollouts.enabled": False,
    "security.OCSP.enabled": 0,
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.unified": False,
    # Any free port; Firefox writes it into the profile.
    "marionette.port": 0,
}


def write_preferences(profile: Path, extra: dict[str, str | bool]) -> None:
    """Write the file that Firefox reads at its start.

    Args:
        profile: the profile's folder.
        extra: more preferences, stronger than the others.

    Raises:
        OSError: it cannot be written.
    """
    preferences = {**GeckoInstance.required_prefs, **DesktopInstance.desktop_prefs, **_OURS, **extra}
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items())
    (profile / "user.js").write_text("".join(lines), encoding="utf-8")
