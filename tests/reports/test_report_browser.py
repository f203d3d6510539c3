"""The report in a real browser: on a phone as on a desktop nothing sticks out, and nothing is asked of a network."""

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.report_runs import TRAINING, straight_network, theory_network, write_run
from ufm.reports import read_run, report

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_BROWSER = next((found for found in map(shutil.which, _NAMES) if found), None)
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
_FLAGS += ("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000")

pytestmark = pytest.mark.skipif(_BROWSER is None, reason=f"no browser: none of {', '.join(_NAMES)} is installed")

# A window of the browser has a least width, which a frame has not: the page is measured inside of one.
_FRAME = """<!doctype html><iframe id="page" style="border: 0; width: {width}px; height: {height}px" srcdoc="{page}">
</iframe><p id="found"></p><script>
page.onload = () => {{
  const inner = page.contentDocument, wide = [];
  for (const each of inner.body.querySelectorAll("*"))
    if (each.getBoundingClientRect().right > {width} && !each.closest(".scroll, pre"))
      wide.push(each.outerHTML.slice(0, 80));
  const images = [...inner.images].map(each => each.complete && each.naturalWidth > 0);
  const asked = page.contentWindow.performance.getEntriesByType("resource").map(each => each.name.slice(0, 40));
  found.textContent = JSON.stringify({{
    scroll: inner.documentElement.scrollWidth, width: page.contentWindow.innerWidth, wide: wide, images: images,
    asked: asked.filter(name => !name.startsWith("data:")), height: inner.documentElement.scrollHeight,
  }});
}};
</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("runs")
    long = "a_run_whose_name_is_so_long_that_it_does_not_fit_on_the_line_of_a_phone_at_all"
    runs = [read_run(write_run(place / long, theory_network())), read_run(write_run(place / "b", straight_network()))]
    return {"one": report(runs[:1], "ufm report a").html(), "several": report(runs, "ufm report a b").html()}


def seen(page: str, width: int, height: int, folder: Path) -> dict:
    """Return what the browser measures of a page in a frame of this size."""
    frame = folder / "frame.html"
    frame.write_text(_FRAME.format(width=width, height=height, page=html.escape(page)), encoding="utf-8")
    command = [str(_BROWSER), *_FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", "--dump-dom"]
    finished = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<p id="found">(\{.*?\})</p>', finished.stdout)
    assert found, finished.stderr[-500:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("which", ["one", "several"])
@pytest.mark.parametrize(("width", "height"), [(360, 800), (1280, 900)])
def test_the_page_never_scrolls_sideways(pages: dict[str, str], which: str, width: int, height: int, tmp_path: Path):
    found = seen(pages[which], width, height, tmp_path)
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert found["images"]
    assert all(found["images"])
    assert found["asked"] == []
    assert found["height"] > height


def test_a_page_that_sticks_out_would_be_noticed(tmp_path: Path):
    page = "<!doctype html><body><table><tr><td style='min-width: 500px'>x</td></tr></table></body>"
    found = seen(page, 360, 800, tmp_path)
    assert found["scroll"] > 360
    assert found["wide"]


_HOSTILE = "<img src=x onerror=document.title='hacked'><script>document.title='hacked'<"


def test_names_with_markup_are_text(tmp_path: Path):
    training = dataclasses.replace(TRAINING, data=_HOSTILE, architecture='"><svg onload=alert(1)>')
    run = read_run(write_run(tmp_path / _HOSTILE, theory_network(), training=training))
    page = tmp_path / "page.html"
    probe = (
        "<script>document.body.insertAdjacentHTML('beforeend', '<p id=found></p>');"
        "found.textContent = JSON.stringify({title: document.title, heading: document.querySelector('h2').textContent,"
        "hostile: document.querySelectorAll('[onerror], [onload], svg, script').length})</script>"
    )
    page.write_text(report([run], f"ufm report {_HOSTILE}").html().replace("</body>", f"{probe}</body>"))
    command = [str(_BROWSER), *_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<p id="found">(\{.*?\})</p>', finished.stdout)
    assert found, finished.stderr[-500:]
    # One script: the probe.
    expected = {"title": f"ufm report: {_HOSTILE}", "heading": _HOSTILE, "hostile": 1}
    assert json.loads(html.unescape(found[1])) == expected
