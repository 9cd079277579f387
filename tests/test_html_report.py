"""The HTML report: one file without links, text that stays text, a script that computes rightly and works in a browser.

The structure is always tested. The script's functions are tested where ``node`` is, and the page in headless Chromium
where that is; ``NEKO_REQUIRE_BROWSER=1`` makes their absence a failure instead of a skip.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import required

import neko_rules.backend
from neko_rules.backends.numpy import NumpyBackend
from neko_rules.cli import main
from neko_rules.report import html
from neko_rules.report.sampling import uncertainty_section

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

TINY = """
data: {name: mnist1d, num_samples: 60}
model: {name: ALIF, hidden: 12, outputs: 10, threshold: 0.2}
rule: {name: bptt, optimizer: {name: adam, learning_rate: 2e-3}}
train: {epochs: 2, batch_size: 16}
"""


def tool(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        if required("BROWSER"):
            pytest.fail(f"NEKO_REQUIRE_BROWSER is set, but there is no {names[0]}")
        pytest.skip(f"{names[0]} is not installed")
    return found


class Twin(NumpyBackend):
    """NumPy under another name."""

    name = "twin"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a comparison that was verified."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "tiny.yaml").write_text(TINY)
    run = folder / "run"
    rules = ["bptt", "eprop:symmetric", "eprop:random"]
    assert main(["compare", str(folder / "tiny.yaml"), "--rules", *rules, "--out", str(run), "-q"]) == 0
    verified = ["--backends", "numpy", "twin", "--steps", "1", "--into", str(run)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(neko_rules.backend._instances, "twin", Twin())
        assert main(["verify", str(run / "config.yaml"), *verified]) == 0
    assert main(["report", str(run)]) == 0
    return (run / "report.html").read_text(encoding="utf-8")


class Structure(HTMLParser):
    """What a page consists of; it must be well formed."""

    VOID = ("meta", "br", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


class TestStructure:
    def test_sections_and_tables(self, page: str) -> None:
        found = Structure(page)
        expected = ["What was run", "Learning", "Rules compared with bptt", "Activity", "Backends", "Environment"]
        assert found.headings == expected
        words = " ".join(found.texts)
        for said in ("eprop:random", "hidden.recurrent.weight", "same numbers", "mean rate", "finished after 2 of 2"):
            assert said in words

    def test_nothing_is_loaded_from_anywhere(self, page: str) -> None:
        found = Structure(page)
        loading = ("src", "href", "srcset", "data", "action", "poster")
        assert [each for each in found.attributes if each[1] in loading] == []
        assert not re.search(r"https?:|//[a-z]|@import|url\(|import\(|fetch\(|XMLHttp", page.replace("// ", ""))

    def test_it_fits_a_phone_and_both_themes(self, page: str) -> None:
        assert 'content="width=device-width, initial-scale=1"' in page
        assert "prefers-color-scheme: dark" in page
        assert '[data-theme="dark"]' in page

    def test_the_numbers_in_it_are_those_of_the_run(self, page: str) -> None:
        charts = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
        figures = [value for tag, name, value in Structure(page).attributes if name == "data-chart"]
        assert sorted(map(int, figures)) == list(range(len(charts)))  # type: ignore[arg-type]
        cosine = next(chart for chart in charts if chart["y"].startswith("Cosine"))
        assert {one["group"] for one in cosine["series"]} == {"eprop:symmetric", "eprop:random"}
        readout = next(one for one in cosine["series"] if one["name"] == "eprop:random, readout")
        assert readout["y"] == pytest.approx([1.0] * len(readout["x"]), abs=1e-4)
        assert len({len(one["x"]) for one in cosine["series"]}) == 1

    def test_it_says_what_was_compared_and_leaves_out_what_is_not_set(self, page: str) -> None:
        title = re.search(r"<title>(.*?)</title>", page)
        assert title
        assert title[1].endswith("2 rules compared with bptt")
        assert "<td>None</td>" not in page
        assert "<td>posterior</td>" not in page

    def test_a_raster_shows_the_whole_time_and_all_neurons(self, page: str) -> None:
        charts = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
        raster = next(chart for chart in charts if chart["kind"] == "points")
        assert raster["extent"] == [0, 40, 0, 11]

    def test_calibration_has_not_the_colours_of_right_and_wrong(self) -> None:
        built = html.Page("")
        doubt = {
            "entropy": {"right": [0.0, 1.0], "wrong": [0.5, 1.0]},
            "confidence": [0.5],
            "accuracy": [0.4],
            "coverage": [1.0],
            "risk": [0.5],
        }
        uncertainty_section(built, {"test_accuracy": 0.5}, doubt)
        entropy, calibration, risk = (chart["series"] for chart in built.charts)
        assert not any("colour" in one for one in entropy)
        assert {one["colour"] for one in (*calibration, *risk)} == {"c2", "soft"}
        assert calibration[0]["x"] == [50]

    def test_names_cannot_become_markup(self) -> None:
        evil = '</script><script>alert(1)</script><b>&"'
        built = html.Page(evil, evil)
        chart = built.chart("s", evil, evil, [html.curve(evil, [0, 1], [0.0, 1.0])])
        built.section(evil, chart, html.table([evil], [[evil]], [evil]), html.legend(evil), html.folded(evil, evil))
        text = built.text()
        assert "<script>alert" not in text
        assert text.count("<script") == 2
        assert Structure(text).headings == [evil]

    def test_long_curves_are_averaged_and_gaps_stay(self) -> None:
        values = np.sin(np.linspace(0, 6, 5000))
        found = html.curve("a", np.arange(5000), values)
        assert 300 < len(found["x"]) <= html.POINTS
        at = np.asarray(found["x"], int)
        np.testing.assert_allclose(found["y"], values[at], atol=0.01)
        assert html.curve("a", [0, 1], [np.nan, np.inf])["y"] == [None, None]

    def test_a_run_without_data_says_why_there_is_no_activity(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(0)
        np.savez(tmp_path / "d.npz", x=rng.standard_normal((20, 5, 3)), y=rng.integers(0, 2, 20))
        config = tmp_path / "c.yaml"
        config.write_text(
            f"data: {{name: arrays, path: '{tmp_path / 'd.npz'}'}}\nmodel: {{name: LIF, hidden: 4, outputs: 2}}\n"
            "rule: bptt\ntrain: {epochs: 1}\n"
        )
        run = tmp_path / "run"
        assert main(["run", str(config), "--out", str(run), "-q"]) == 0
        (tmp_path / "d.npz").unlink()
        assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 0
        assert "Not shown: " in (tmp_path / "r.html").read_text()

    def test_a_folder_of_no_run_is_refused(self, tmp_path: Path, capsys: Any) -> None:
        assert main(["report", str(tmp_path)]) == 2
        assert "must be the folder of a run" in capsys.readouterr().err


def test_the_scripts_functions() -> None:
    script = Path(html.__file__).parent / "page" / "report.js"
    code = f"""
    const {{ escaped, ticks, shown, path, nearest, range }} = require({json.dumps(str(script))});
    const px = (x) => 10 * x, py = (y) => -y;
    console.log(JSON.stringify([
      escaped("<a b='c'>&"), ticks(0, 1, 5), ticks(-3, 47, 5), ticks(2, 2, 5), shown(0.123456), shown(123456),
      shown(null),
      path([0, 1, 2, 3], [1, 2, null, 4], px, py), nearest([0, 5, 9], 6), range([{{ y: [null, 2, 5] }}], "y"),
      range([{{ y: [3] }}], "y"), range([], "y"), shown(-0.00001), ticks(0.5, 1.5, 5, true), ticks(1, 3, 8, true),
    ]));"""
    done = subprocess.run([tool("node"), "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found[0] == "&#60;a b=&#39;c&#39;&#62;&#38;"
    np.testing.assert_allclose(found[1], [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(found[2], [0, 10, 20, 30, 40])
    assert found[3:7] == [[2], "0.1235", "1.2e+5", "–"]
    assert found[7] == "M0.0 -1.0L10.0 -2.0M30.0 -4.0"
    assert found[8:] == [1, [2, 5], [2.5, 3.5], [0, 1], "-1.0e-5", [1], [1, 2, 3]]


BEFORE = "<script>window.wrong = []; window.addEventListener('error', (e) => window.wrong.push(e.message));</script>"

AFTER = """<script>
const scope = '.legend[data-scope="comparison"]', cosine = document.querySelectorAll('figure')[DRAWN];
const drawn = () => cosine.querySelectorAll('path.curve').length;
const rows = () => document.querySelectorAll('tr[hidden]').length;
const say = {}, button = document.querySelector(scope + ' button');
say.buttons = [...document.querySelectorAll(scope + ' button')].map((b) => b.textContent);
say.before = [drawn(), rows()];
button.click(); say.hidden = [drawn(), rows(), button.getAttribute('aria-pressed')];
button.click(); say.again = [drawn(), rows(), button.getAttribute('aria-pressed')];
const svg = cosine.querySelector('svg'), box = svg.getBoundingClientRect();
svg.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + box.width / 2, clientY: box.top + 50 }));
say.tip = cosine.querySelector('.tip').textContent; say.tipHidden = cosine.querySelector('.tip').hidden;
const paper = () => getComputedStyle(document.body).backgroundColor, first = paper();
document.querySelector('#theme').click(); say.papers = [first, paper()];
say.cut = [...document.querySelectorAll('.words')].map((t) => t.scrollWidth - t.parentElement.clientWidth);
const wide = [...document.querySelectorAll('.scroll')].filter((t) => t.scrollWidth > t.clientWidth);
say.scrolls = wide.map((t) => getComputedStyle(t).overflowX);
say.width = [innerWidth, document.documentElement.scrollWidth];
say.marks = document.querySelectorAll('figure circle').length;
say.wrong = window.wrong;
document.body.dataset.say = JSON.stringify(say);
</script>"""


@pytest.mark.parametrize("width", [1200, 375], ids=["desk", "phone"])
def test_in_a_browser(page: str, tmp_path: Path, width: int) -> None:
    browser = tool(*BROWSERS)
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    number = next(i for i, chart in enumerate(charts) if chart["y"].startswith("Cosine"))
    tested = page.replace("<style>", BEFORE + "<style>", 1)
    tested = tested.replace("</body>", AFTER.replace("DRAWN", str(number)) + "</body>")
    if width < 500:
        # A window cannot be made that narrow, but a frame can.
        copied = "document.body.dataset.say = frames[0].document.body.dataset.say"
        frame = (
            f'<iframe style="width:{width}px;height:800px;border:0" srcdoc="{html.escaped(tested)}" onload="{copied}">'
        )
        tested = f"<!doctype html><body>{frame}</iframe></body>"
    (tmp_path / "page.html").write_text(tested, encoding="utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={max(width, 500)},900",
        "--enable-logging=stderr",
        "--dump-dom",
        f"file://{tmp_path / 'page.html'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    dom = re.search(r'<body data-say="(.*?)"', done.stdout)
    assert dom, done.stdout[-2000:] + done.stderr[-2000:]
    said = json.loads(dom[1].replace("&quot;", '"').replace("&amp;", "&"))
    assert said["wrong"] == []
    assert "CONSOLE" not in done.stderr
    assert said["buttons"] == ["eprop:symmetric", "eprop:random"]
    whole, none = said["before"]
    assert (whole, none) == (4, 0)
    assert said["hidden"][0] == 2
    assert said["hidden"][1] > 4
    assert said["hidden"][2] == "false"
    assert said["again"] == [4, 0, "true"]
    assert not said["tipHidden"]
    assert re.search(r"Batch \d.*eprop:random, hidden -?[\d.]+", said["tip"])
    assert said["papers"][0] != said["papers"][1]
    assert said["width"][1] <= said["width"][0] == width
    assert said["marks"] > 10
    assert max(said["cut"]) <= 0
    assert set(said["scrolls"]) <= {"auto"}
    if width > 1000:
        assert said["scrolls"] == []
