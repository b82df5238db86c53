"""The report in a real browser with the network off: nothing fails, everything is drawn, and it can be read.

W2SR_PAGE_SHOTS=DIR keeps screenshots to look at.
"""

import os
import re
from pathlib import Path

import pytest

from tests.page.browser import Browser, find
from tests.reporting.test_lab import made
from tests.stages.results import experiment, seeds
from w2sr_jax.core.files import write_jsonl
from w2sr_jax.core.stage_config import ReportConfig
from w2sr_jax.stages import report

pytestmark = pytest.mark.page
WIDTHS = (380, 1600)
SMALLEST_TEXT, CONTRAST = 9.9, 4.5  # px; WCAG 2.2 level AA for text of ordinary size
EVIL = "</pre><script>document.title='owned'</script><img src=http://evil.example/x>"


@pytest.fixture(scope="module")
def browser():
    path = find()
    if path is None:
        pytest.fail("no chromium: apt-get install chromium fonts-dejavu-core (make test-page does it as root)")
    found = Browser(path)
    yield found
    found.close()


def traces(path, number):
    """A small trace file whose right answers become fewer with its number."""
    from w2sr_jax.core.records import GradedTrace

    rows = [
        GradedTrace(
            problem_id=f"p{i}", sample=0, response=f"Wait, {i}+{number}={i + number}. So {EVIL} \\boxed{{{i}}}",
            response_tokens=10 + (7 * i) % 40 + number, finish_reason="stop", teacher="t", extracted=str(i),
            correct=(i * 7) % 10 > number, grader="g", hygiene=["url_or_html"],
        )
        for i in range(60)
    ]  # fmt: skip
    write_jsonl(path, rows)
    return str(path)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{name: (report.json, page)} of an experiment, its seeds, several reports, the trace lab, published rows."""
    root = tmp_path_factory.mktemp("pages")
    config = experiment(root / "one")
    long = "a_very_long_name_of_an_arm_that_nobody_would_choose"
    for name in (EVIL, long):
        config.arms[name] = config.arms["w2sr"]
        config.routes[name] = config.routes["w2sr"]
    config.title = f"An experiment {EVIL}"
    config.claims[f"nothing is shown of {EVIL}"] = (EVIL, "w2sr")
    config.trace_sets = {name: traces(root / f"{i}.jsonl", i) for i, name in enumerate(config.arms)}
    config.teachers = {"base": "Qwen2.5-7B", "w2sr": "Qwen2.5-1.5B", long: "Qwen2.5-7B"}
    places = seeds(root / "seeds")
    configs = {
        "experiment": config,
        "summary": ReportConfig(title="Three seeds", reports=places),
        "book": ReportConfig(title="A book", sections={f"Question {i}?": place for i, place in enumerate(places)}),
        "traces": ReportConfig(title="Trace lab", traces=tuple(config.trace_sets.values())),
        "published": ReportConfig(
            title="Rows", rows={"base": (10.0, 0.0), "rl": (40.0, 0.0)}, row_problems={"big": 500, "tiny": 30},
            student_row=(30.0, 0.0), ceiling="rl", bootstrap=500,
        ),
    }  # fmt: skip
    return {name: (report.main(c, str(root / name)), root / name / "report.html") for name, c in configs.items()}


NAMES = ("experiment", "summary", "book", "traces", "published")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_page_opens_without_the_network_and_nothing_is_wrong_with_it(browser, pages, name, width):
    _, page = pages[name]
    browser.open(page, width)
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.ask("document.title") != "owned"
    assert browser.ask("document.scripts.length + document.images.length") == 0
    assert browser.ask("document.documentElement.scrollWidth") == width
    widest = browser.ask(WIDEST)
    assert widest == [], "stands out of the page"
    if shots := os.environ.get("W2SR_PAGE_SHOTS"):
        for scheme in ("light", "dark"):
            browser.resize(width, scheme)
            browser.screenshot(Path(shots) / f"{name}_{width}_{scheme}.png")


# Elements that reach out of the window, apart from what scrolls inside a box of its own.
WIDEST = """[...document.querySelectorAll('main *, header *, nav *')]
  .filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"""

FIGURES = """[...document.querySelectorAll('svg')].map(svg => ({
  label: svg.getAttribute('aria-label'), role: svg.getAttribute('role'),
  width: svg.getBoundingClientRect().width, height: svg.getBoundingClientRect().height,
  expected: +svg.dataset.marks,
  marks: [...svg.querySelectorAll('.mark')].filter(m => {
    const b = m.getBoundingClientRect();
    return b.width + b.height > 0 && m.querySelector('title').textContent }).length,
  texts: [...svg.querySelectorAll('text')].filter(t => t.textContent.trim()).map(t => {
    const b = t.getBoundingClientRect(), m = t.getScreenCTM();
    const size = parseFloat(getComputedStyle(t).fontSize) * Math.hypot(m.a, m.b);
    return [t.textContent, b.left, b.top, b.right, b.bottom, size] }),
  box: (b => [b.left, b.top, b.right, b.bottom])(svg.getBoundingClientRect()),
}))"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn_with_its_marks_and_its_text_can_be_read(browser, pages, name, width):
    found, page = pages[name]
    browser.open(page, width)
    figures = browser.ask(FIGURES)
    assert figures
    for figure in figures:
        label = figure["label"]
        assert (figure["role"], figure["width"] > 300, figure["height"] > 60) == ("img", True, True), label
        assert figure["marks"] == figure["expected"] > 0, label
        for text, left, top, right, bottom, size in figure["texts"]:
            assert size >= SMALLEST_TEXT, f"{label}: {text!r} is {size:.1f} px"
            box = figure["box"]
            inside = left >= box[0] - 1 and top >= box[1] - 1 and right <= box[2] + 1 and bottom <= box[3] + 1
            assert inside, f"{label}: {text!r} is cut"
        assert overlaps(figure["texts"]) == [], label
    if name == "experiment":
        bars = next(f for f in figures if "Every model" in f["label"])
        assert bars["marks"] == len(found["arms"])
        cost = next(f for f in figures if "training cost" in f["label"])
        assert cost["marks"] == len(found["ledger"]["routes"])
        assert any("by length" in f["label"] for f in figures)


def overlaps(texts):
    """Pairs of labels that share more than a touch of their edges."""
    found = []
    for i, (one, left, top, right, bottom, _) in enumerate(texts):
        for other, left2, top2, right2, bottom2, _ in texts[i + 1 :]:
            wide, high = min(right, right2) - max(left, left2), min(bottom, bottom2) - max(top, top2)
            if wide > 1 and high > 0.25 * min(bottom - top, bottom2 - top2):
                found.append((one, other))
    return found


COLOURS = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = c => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data] };
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] === 255) return c } return [255, 255, 255, 255] };
  const found = new Map();
  for (const e of document.querySelectorAll('h1,h2,h3,p,td,th,a,b,span,summary,label,figcaption,pre,footer,svg text')) {
    if (!e.textContent.trim()) continue;
    const style = getComputedStyle(e);
    const pair = [rgb(e.closest('svg') ? style.fill : style.color), ground(e)];
    found.set(JSON.stringify(pair), e.tagName + ' ' + e.textContent.slice(0, 30));
  }
  return [...found].map(([pair, text]) => [...JSON.parse(pair), text]);
})()"""


def luminance(colour):
    parts = [c / 255 for c in colour[:3]]
    return sum(w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
               for w, c in zip((0.2126, 0.7152, 0.0722), parts))  # fmt: skip


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["experiment", "book"])
def test_text_stands_out_from_its_ground_in_both_themes(browser, pages, name, scheme):
    browser.open(pages[name][1], 1600, scheme)
    pairs = browser.ask(COLOURS)
    assert len(pairs) >= 6
    ground = luminance(browser.ask(COLOURS)[0][1])
    assert (ground < 0.05) == (scheme == "dark")
    for text, behind, what in pairs:
        assert contrast(text, behind) >= CONTRAST, f"{what}: {text} on {behind}"


def test_the_reader_chooses_light_or_dark_whatever_the_system_says(browser, pages):
    browser.open(pages["experiment"][1], 1600, "light")
    ground = "getComputedStyle(document.body).backgroundColor"
    bar = "getComputedStyle(document.querySelector('svg .mark path')).fill"
    light, bar_light = browser.ask(ground), browser.ask(bar)
    browser.ask("document.querySelector('label[for=theme-dark]').click()")
    dark = browser.ask(ground)
    assert dark != light
    assert browser.ask(bar) != bar_light
    browser.resize(1600, "dark")
    browser.ask("document.querySelector('label[for=theme-light]').click()")
    assert browser.ask(ground) == light
    browser.ask("document.querySelector('label[for=theme-auto]').click()")
    assert browser.ask(ground) == dark


def test_the_contents_lead_to_every_heading_and_open_on_a_phone(browser, pages):
    browser.open(pages["experiment"][1], 380)
    listed = "getComputedStyle(document.querySelector('nav > ul')).display"
    assert browser.ask(listed) == "none"
    browser.ask("document.querySelector('nav > label').click()")
    assert browser.ask(listed) != "none"
    missing = browser.ask(
        "[...document.querySelectorAll('nav a')].filter(a => !document.getElementById(a.hash.slice(1))).length"
    )
    count = browser.ask("document.querySelectorAll('nav a').length")
    assert (missing, count) == (0, browser.ask("document.querySelectorAll('h2, h3').length"))


def test_wide_tables_scroll_in_their_own_box(browser, pages):
    browser.open(pages["experiment"][1], 380)
    boxes = browser.ask("[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth, e.clientWidth])")
    assert any(inner > outer for inner, outer in boxes)
    assert all(outer <= 380 for _, outer in boxes)


def test_a_lab_of_one_set_is_a_page_too(browser, tmp_path):
    from w2sr_jax.reporting import lab_page
    from w2sr_jax.reporting.export import write_page

    found = {"sets": {"a": made(4)}, "gains": {}, "gain_is": "x", "go_with": {}}
    write_page(tmp_path, "One", lab_page.sections({"trace_lab": found}))
    browser.open(tmp_path / "report.html", 380)
    assert browser.complaints() == []
    assert re.search("No evaluated student", browser.ask("document.body.textContent"))
