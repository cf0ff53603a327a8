"""The report as a browser shows it: at phone and desktop width, light and dark, with tables that sort and filter."""

import html
import json
import re
import shutil
import subprocess

import pytest

from potstill.command.report import write_report

from .folders import HOSTILE, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--single-process", "--no-zygote", "--no-first-run",
         "--disable-extensions", "--disable-background-networking", "--dump-dom"]  # fmt: skip

PROBE = """
<script>
const found = {};
const layers = [...document.querySelectorAll("table.sorts")].find(table => table.dataset.what === "layers");
const column = place => [...layers.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[place].textContent);
const button = name => [...layers.querySelectorAll("button")].find(one => one.textContent === name);
found.before = column(0);
button("after").click(); found.rising = column(2);
button("after").click(); found.falling = column(2);
button("layer").click(); found.named = column(0);
const input = layers.parentElement.previousElementSibling.querySelector("input");
input.value = "CONV"; input.dispatchEvent(new Event("input")); found.filtered = column(0);
found.count = input.nextSibling.textContent;
found.overflow = {};
for (const width of [360, 1280]) {
  document.documentElement.style.width = document.body.style.width = `${width}px`;
  const wide = [...document.querySelectorAll("main > *, figure, .tiles > div, .wide, pre, h1")];
  const leaves = one => one.getBoundingClientRect().right > width + 0.5;
  found.overflow[width] = wide.filter(leaves).map(one => one.className || one.tagName);
}
const style = getComputedStyle(document.body);
found.colours = [style.backgroundColor, style.color];
found.fetched = performance.getEntriesByType("resource").map(one => one.name);
found.owned = typeof window.owned;
document.body.replaceChildren(JSON.stringify(found));
</script>
"""


def opened(path, tmp_path, *more):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *more, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it(tmp_path, dark):
    path = write_report(write_run(tmp_path / "run", name=HOSTILE))
    bare = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text()).replace("</body>", f"{PROBE}</body>")
    (tmp_path / "probe.html").write_text(bare)
    dom = opened(tmp_path / "probe.html", tmp_path, *(["--blink-settings=preferredColorScheme=0"] if dark else []))
    found = json.loads(html.unescape(re.search(r"<body[^>]*>(\{.*\})\s*</body>", dom, re.DOTALL)[1]))
    assert found["rising"] == ["3", "10", "12", "49"] and found["falling"] == ["49", "12", "10", "3"]
    assert found["named"] == sorted(found["before"], key=str.lower)
    assert found["filtered"] == ["conv1", "conv2"] and found["count"] == "2 of 4 layers"
    assert found["overflow"] == {"360": [], "1280": []}
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in found["colours"]]
    assert (brightness[0] < brightness[1] - 300) if dark else (brightness[1] < brightness[0] - 300)
    assert found["fetched"] == [] and found["owned"] == "undefined"


def test_the_policy_holds_in_a_browser(tmp_path):
    """Our script makes the filters; one that got into the page all the same does not run."""
    path = write_report(write_run(tmp_path / "run"))
    more = path.read_text().replace("</body>", "<script>document.title = 'owned'</script></body>")
    (tmp_path / "more.html").write_text(more)
    dom = opened(tmp_path / "more.html", tmp_path)
    assert '<input type="search"' in dom and "<title>run</title>" in dom
