import dataclasses
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import autotm_jax as autotm
from autotm_jax import Plan, Status
from autotm_jax.budget import format_bytes
from autotm_jax.report.course import Course, Role, course_of
from autotm_jax.report.page import contents, page
from autotm_jax.simulate import Lane
from autotm_jax.solve import Schedule
from autotm_jax.trace import short_source

from .steps import chain_arguments, chain_step, moving_step


HOSTILE = '/tmp/</script><b>"&amp;<!--<script>.py:1:2 (f)'


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Of a step in which much moves."""
    return autotm.jit(moving_step, budget="min").plan(*chain_arguments())


@pytest.fixture(scope="module")
def course(plan: Plan) -> Course:
    return course_of(plan)


def data_of(text: str) -> dict[str, Any]:
    """What a page shows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</', text, re.S)
    assert found is not None
    return json.loads(found.group(1))


def hostile(plan: Plan) -> Plan:
    """The plan, all values of which come from a line with an odd name."""
    assert plan.program is not None
    values = (dataclasses.replace(v, source=HOSTILE) for v in plan.program.values)
    program = dataclasses.replace(plan.program, values=tuple(values))
    return dataclasses.replace(plan, program=program)


def test_the_data_is_that_of_the_course(plan: Plan, course: Course):
    found, before = data_of(page(plan)), course_of(plan, Schedule())
    texts = found["texts"]
    assert found["begins"] == [round(t * 1e9) for t in course.begins]
    assert found["before"]["begins"] == [round(t * 1e9) for t in before.begins]
    assert found["before"]["device"] == list(before.device)
    assert found["device"] == list(course.device)
    assert found["host"] == list(course.host)
    assert found["workspace"] == list(course.workspace)
    assert found["peak"] == course.peak
    assert tuple(texts[n] for n in found["segments"]) == course.segments
    assert found["phases"] == [[p.value, a, b] for p, a, b in course.phases]
    copies = [s for s in course.spans if s.lane is not Lane.COMPUTE]
    assert len(found["compute"]) + len(copies) == len(course.spans)
    for (lane, _, begin, end, nbytes, waits), span in zip(
        found["copies"], copies, strict=True
    ):
        assert (lane, nbytes, waits) == (span.lane.value, span.nbytes, span.waits)
        assert (begin, end) == (round(span.begin * 1e9), round(span.end * 1e9))
    for row, held in zip(found["held"], course.held, strict=True):
        value, nbytes, aval, source, short, way, layer, role, spans = row
        assert (value, nbytes, layer) == (held.value, held.nbytes, held.layer)
        assert (texts[aval], texts[source]) == (held.aval, held.source)
        assert found["ways"][way] == held.way.value
        assert role == held.role.value
        assert spans == [list(span) for span in held.spans]
        if held.role is not Role.ARGUMENT:
            assert texts[short] == short_source(held.source)
    assert len(set(texts)) == len(texts)


def test_what_is_read_first():
    args = chain_arguments()
    step = autotm.jit(chain_step, budget="100KiB")
    plan = step.plan(*args)
    found = contents(plan)
    assert found["title"] == "Budget 100.0 KiB"
    assert found["machine"] == "cpu"
    assert found["summary"] == str(plan)
    figures = {name: (text, remark) for name, text, remark in found["figures"]}
    course, before = course_of(plan), course_of(plan, Schedule())
    assert figures["Device, modelled"] == (
        format_bytes(max(course.device)),
        f"{format_bytes(max(before.device))} before",
    )
    assert figures["Host, modelled"][0] == format_bytes(max(course.host))
    assert re.fullmatch(r"[\d.]+ (ms|µs)", figures["Step, modelled"][0])
    assert re.fullmatch(
        r"1\.\d{3} x [\d.]+ (ms|µs) before", figures["Step, modelled"][1]
    )
    assert "Executable, compiled" not in figures
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", autotm.AutoTMWarning)
        step(*args)
    plan = step.plan(*args)
    assert plan.realised is not None
    figures = {name: text for name, text, _ in contents(plan)["figures"]}
    assert figures["Executable, compiled"] == format_bytes(plan.realised.device_bytes)


def test_the_least_memory_has_no_budget(plan: Plan):
    found = data_of(page(plan))
    assert found["budget"] is None
    assert found["title"] == 'Budget "min"'


def test_it_needs_nothing_else(plan: Plan, tmp_path: Path):
    path = tmp_path / "plan.html"
    plan.report(path)
    text = path.read_text(encoding="utf-8")
    assert text == page(plan)
    assert not re.search(r"http|\bsrc=|\bhref=|url\(|@import|fetch\(", text)


def test_texts_of_users_are_no_html(plan: Plan):
    text, plain = page(hostile(plan)), page(plan)
    assert HOSTILE in data_of(text)["texts"]
    for tag in ("</script>", "<script", "<b>", "<!--"):
        assert text.count(tag) == plain.count(tag)


def test_an_untouched_step(tmp_path: Path):
    said = (
        "There is nothing to draw: plain jax.jit fits the budget: nothing is changed."
    )
    with pytest.raises(autotm.ReportError, match=f"^{re.escape(said)}$"):
        Plan(2**30, Status.UNTOUCHED).report(tmp_path / "plan.html")
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_not_there(plan: Plan, tmp_path: Path):
    path = tmp_path / "nowhere" / "plan.html"
    said = (
        f"{path} could not be written (No such file or directory). Name a file in a "
        "directory that exists and may be written to."
    )
    with pytest.raises(autotm.ReportError, match=f"^{re.escape(said)}$"):
        plan.report(path)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a screen."""
    names = ("chromium", "chromium-headless-shell", "google-chrome")
    binary = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip(
            "Chromium or its driver is missing: "
            "apt-get install chromium-headless-shell chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for name in ("headless", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{name}")
    options.add_argument("--window-size=1280,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    found = webdriver.Chrome(options=options, service=service)
    yield found
    found.quit()


class Shown:
    """A page in a browser, and what a user sees of it."""

    def __init__(self, browser: webdriver.Chrome, plan: Plan, path: Path):
        plan.report(path)
        self.browser = browser
        browser.get(path.as_uri())

    def one(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.one(name).text

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def point_at(self, segment: int) -> ActionChains:
        """Moves the pointer to a segment of the chart."""
        middle = (
            "return (xOf(data.begins[arguments[0]]) + xOf(data.begins[arguments[1]]))"
        )
        x = self.browser.execute_script(middle, segment, segment + 1) / 2
        chart = self.one("chart")
        offset = round(x - chart.size["width"] / 2)
        move = ActionChains(self.browser)
        move.move_to_element_with_offset(chart, offset, 0).perform()
        return move

    def search(self, text: str) -> None:
        self.one("search").clear()
        self.one("search").send_keys(text)

    def click(self, selector: str, text: str) -> None:
        next(e for e in self.all(selector) if e.text == text).click()

    def column(self, name: str) -> list[str]:
        """A column of the table as it is shown."""
        names = [e.text for e in self.all("#values th")]
        place = names.index(name) + 1
        return [e.text for e in self.all(f"#values td:nth-child({place})")]

    def counts(self) -> int:
        """How many values the rows stand for."""
        return sum(int(text.lstrip("+ ")) for text in self.column("Count"))


@pytest.fixture
def shown(browser: webdriver.Chrome, plan: Plan, tmp_path: Path) -> Iterator[Shown]:
    yield Shown(browser, plan, tmp_path / "plan.html")
    assert browser.get_log("browser") == []


def test_it_opens(shown: Shown, plan: Plan, course: Course):
    assert shown.browser.title == 'Plan: Budget "min"'
    assert shown.text("title") == 'Budget "min"'
    shown.click("summary", "The plan as text")
    assert shown.text("summary") == str(plan)
    where = f"Segment {course.peak} of {len(course.segments)}"
    assert shown.text("segment").startswith(where)
    assert shown.text("segment").endswith(", peak")
    assert shown.counts() == len(course.held)
    assert shown.all("#chart .area.before") and shown.all("#chart .area.planned")
    wide = "return document.documentElement.scrollWidth <= window.innerWidth"
    assert shown.browser.execute_script(wide)


def test_pointing_shows_what_is_alive(shown: Shown, course: Course):
    for segment in (0, 8, len(course.segments) - 1):
        shown.point_at(segment)
        where = f"Segment {segment} of {len(course.segments)}, "
        assert shown.text("segment").startswith(where)
        assert shown.text("does") == course.segments[segment]
        facts = shown.text("facts").splitlines()
        assert format_bytes(course.device[segment]) in facts
        assert format_bytes(course.host[segment]) in facts
        alive = course.alive(segment)
        count = f"The largest {min(10, len(alive))} of {len(alive)} values alive:"
        assert shown.text("alive-title") == count
        rows = [e.text for e in shown.all("#alive tr")]
        assert len(rows) == min(10, len(alive))
        for row, held in zip(rows, alive, strict=False):
            assert row.startswith(f"{format_bytes(held.nbytes)} {held.aval} ")
            assert row.endswith(held.way.value)
        taken = format_bytes(course.workspace[segment])
        said = f"{taken} workspace of {course.segments[segment]}"
        own = [e.text.strip() for e in shown.all("#workspace tr")]
        assert own == [said] * bool(course.workspace[segment])


def test_keys_move_and_pin(shown: Shown):
    keys = shown.one("chart").send_keys
    keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert shown.text("segment").startswith("Segment 1 of ")
    assert shown.one("chart").get_attribute("aria-valuenow") == "1"
    keys(Keys.ENTER, Keys.ARROW_RIGHT)
    assert shown.text("pin") == "Pinned"
    assert shown.text("segment").startswith("Segment 2 of ")
    keys(Keys.ESCAPE)
    assert shown.text("pin") == "Pin"


def test_what_is_pinned_stays(shown: Shown, course: Course):
    assert not shown.one("alive-only").is_enabled()
    shown.point_at(3).click().perform()
    shown.point_at(8)
    assert shown.text("segment").startswith("Segment 3 of ")
    shown.one("alive-only").click()
    assert shown.counts() == len(course.alive(3)) < len(course.held)
    shown.point_at(8).click().perform()
    assert shown.counts() == len(course.alive(8))
    shown.one("pin").click()
    assert shown.counts() == len(course.held)
    assert not shown.one("alive-only").is_enabled()


def test_a_filter_narrows_the_rows(shown: Shown, course: Course):
    shown.search("f32[64,32]")
    assert shown.counts() == sum(h.aval == "f32[64,32]" for h in course.held)
    shown.search("UNREPEATABLE")
    assert shown.counts() == sum("unrepeatable" in h.source for h in course.held)
    shown.search("no such line")
    assert shown.column("Value") == []
    shown.search("")
    shown.click("#ways label", "stays")
    assert shown.counts() == sum(h.way.value != "stays" for h in course.held)
    assert "stays" not in shown.column("Decision")


def test_a_click_on_a_header_sorts(shown: Shown):
    def order() -> list[str | None]:
        return [e.get_attribute("aria-sort") for e in shown.all("#values th")]

    first = [order(), shown.column("Total")]
    shown.click("#values th button", "Value")
    found = shown.column("Value")
    assert found == sorted(found) != found[::-1]
    names = [e.text for e in shown.all("#values th")]
    assert order().index("ascending") == names.index("Value")
    shown.click("#values th button", "Value")
    assert shown.column("Value") == found[::-1]
    assert order().index("descending") == names.index("Value")
    shown.click("#values th button", "Total")
    assert [order(), shown.column("Total")] == first


def test_rows_that_are_alike_open(shown: Shown):
    row = next(e for e in shown.all("#values td button"))
    count = int(row.text.lstrip("+ "))
    rows = len(shown.column("Value"))
    row.click()
    assert len(shown.all("#values .member")) == count > 1
    assert len(shown.column("Value")) == rows + count
    assert shown.browser.switch_to.active_element.get_attribute("aria-expanded")
    shown.browser.switch_to.active_element.click()
    assert len(shown.column("Value")) == rows


def test_arguments_that_differ_by_a_number_share_a_row(shown: Shown):
    shown.search("argument weights")
    assert shown.column("Source line") == ["argument weights[*]"]
    assert shown.counts() == 6


def test_texts_of_users_are_shown_as_they_are(
    browser: webdriver.Chrome, plan: Plan, tmp_path: Path
):
    shown = Shown(browser, hostile(plan), tmp_path / "plan.html")
    lines = set(shown.column("Source line"))
    assert lines == {short_source(HOSTILE)}
    assert shown.all("b") == []
    assert browser.get_log("browser") == []
