"""Pages as a browser sees them: every element with its attributes, and what a headless Chromium makes of a page."""

from __future__ import annotations

import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: no page was opened in it")


class Elements(HTMLParser):
    """Every start tag with its attributes, as a browser's parser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    """Start tags of a page and their attributes."""
    parser = Elements()
    parser.feed(page)
    return parser.found


def opened(page: Path, *flags: str) -> tuple[str, list[str]]:
    """The page as a browser without a network makes it, scripts run, and what its console said."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'profile'}",
        "--virtual-time-budget=15000", "--window-size=1300,2000", "--dump-dom", *flags, page.as_uri(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return result.stdout, [line for line in result.stderr.splitlines() if "CONSOLE" in line]


def used(page: Path, script: str, *flags: str) -> tuple[str, list[str]]:
    """What ``script`` (a function body of ``page``, the page's document) returns, and what the console said.

    The page is in a frame of another page, whose script it is: its own security policy stays in force.
    """
    outer = page.with_name("outer.html")
    outer.write_text(
        f"<iframe id=inner width=1200 height=1500 src={page.name}></iframe><pre id=result></pre><script>"
        # What the page carries is unpacked after it has loaded; these marks say that it has been drawn.
        "const drawn = (page) => [['figures-packed', 'ready'], ['token-data', 'tokens']].every("
        "([id, mark]) => !page.getElementById(id) || page.documentElement.dataset[mark] !== undefined);"
        "const use = () => { if (!drawn(inner.contentDocument)) { setTimeout(use, 50); return; }"
        "Promise.resolve((function (page) {"
        f"{script}}})(inner.contentDocument)).then((found) => {{ result.textContent = JSON.stringify(found); }}); }};"
        "inner.onload = use;</script>"
    )
    dom, problems = opened(outer, "--allow-file-access-from-files", *flags)
    return unescape(dom.partition('<pre id="result">')[2].partition("</pre>")[0]), problems
