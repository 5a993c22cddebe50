"""The report in headless Chromium: it renders, sorts, changes theme, prints, and loads nothing."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from edgesmith.reports.overview import render_overview
from edgesmith.reports.render import render_html
from tests.reports.compression_sample import compressed_result, entries
from tests.reports.sample import HOSTILE, Sample, bare_result, device_result, sample_result
from tests.reports.search_sample import searched_result

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
DRIVER = shutil.which("chromedriver") or ""
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
SAMPLES = {
    "full": sample_result(),
    "failed": sample_result(Sample(layers=3, classes=2, ok=False, runs=100)),
    "large": sample_result(Sample(layers=300, classes=100)),
    "hostile": sample_result(Sample(layers=9, classes=9, hostile=True)),
    "bare": bare_result(),
    "device": device_result(),
    "device-large": device_result(Sample(layers=300, classes=100)),
    "compressed": compressed_result(),
    "compressed-large": compressed_result(Sample(layers=300, classes=100)),
    "compressed-hostile": compressed_result(Sample(layers=9, classes=9, hostile=True)),
    "device-hostile": device_result(Sample(layers=9, classes=9, hostile=True)),
    "searched": searched_result(Sample(device=True)),
    "searched-hostile": searched_result(Sample(layers=9, classes=9, hostile=True)),
}
DEVICE_PLOTS = ["plot-arena", "plot-instructions", "plot-flash"]

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium and chromedriver are not installed (apt install chromium-driver)",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    pages = {name: render_html(result) for name, result in SAMPLES.items()}
    pages["overview"] = render_overview(HOSTILE[0], entries())
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder


def show(browser: Chrome, folder: Path, name: str, *, scheme: str = "light") -> None:
    """Open a report and wait until it has drawn everything."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # clicks must not chase a scroll
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")  # nothing that an earlier page still does counts
    log(browser, "browser")
    log(browser, "performance")
    browser.get((folder / f"{name}.html").as_uri())
    WebDriverWait(browser, 120).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.ready")
    )


def log(browser: Chrome, kind: str) -> list[dict[str, Any]]:
    """What the log of that kind gained since it was last read."""
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def script(browser: Chrome, code: str, *arguments: object) -> Any:
    return browser.execute_script(code, *arguments)


def requests(browser: Chrome) -> list[str]:
    """Every URL that the page, not the browser, asked for since the log was last read."""
    page = browser.current_url
    events = [json.loads(entry["message"])["message"] for entry in log(browser, "performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent" and event["params"]["documentURL"] == page
    ]


def _answered(browser: Chrome) -> list[str]:
    """Every URL that brought a response."""
    events = [json.loads(entry["message"])["message"] for entry in log(browser, "performance")]
    return [
        event["params"]["response"]["url"]
        for event in events
        if event["method"] == "Network.responseReceived"
    ]


def column(browser: Chrome, table: str, index: int) -> list[str]:
    code = """return [...document.querySelectorAll(arguments[0])].map(
        row => row.cells[arguments[1]].dataset.key)"""
    found: list[str] = script(browser, code, f"#{table} tbody tr", index)
    return found


@pytest.mark.parametrize("name", [*SAMPLES, "overview"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_renders_without_error_and_without_a_request(
    browser: Chrome, folder: Path, name: str, scheme: str
) -> None:
    show(browser, folder, name, scheme=scheme)
    assert log(browser, "browser") == []
    found = requests(browser)
    assert found[0] == (folder / f"{name}.html").as_uri()
    assert all(url.startswith(("data:", "blob:")) for url in found[1:])


@pytest.mark.parametrize("name", ["full", "failed", "large", "hostile"])
def test_every_plot_is_drawn(browser: Chrome, folder: Path, name: str) -> None:
    show(browser, folder, name)
    code = """return [...document.querySelectorAll('.plot')].map(
        plot => [plot.id, plot.querySelectorAll('.main-svg').length, plot.clientHeight])"""
    drawn = script(browser, code)
    assert [plot[0] for plot in drawn] == [
        "plot-accuracy",
        "plot-latency",
        "plot-drift",
        "plot-confusion",
    ]
    assert all(layers >= 1 and height > 150 for _, layers, height in drawn)


@pytest.mark.parametrize("name", ["device", "device-large", "device-hostile"])
def test_every_plot_of_a_device_is_drawn(browser: Chrome, folder: Path, name: str) -> None:
    show(browser, folder, name)
    code = """return [...document.querySelectorAll('.plot')].map(
        plot => [plot.id, plot.querySelectorAll('.main-svg').length, plot.clientHeight])"""
    drawn = script(browser, code)
    assert [plot[0] for plot in drawn] == [
        "plot-accuracy",
        *DEVICE_PLOTS,
        "plot-drift",
        "plot-confusion",
    ]
    assert all(layers >= 1 and height > 150 for _, layers, height in drawn)
    device = SAMPLES[name].device
    assert device is not None
    bars = script(
        browser, "return document.querySelectorAll('#plot-arena .barlayer .point path').length"
    )
    assert bars >= len(device.slots)
    tiles = script(browser, "return document.querySelectorAll('#plot-flash path.surface').length")
    assert tiles > len(device.flash_parts)


COMPRESSION_PLOTS = ["plot-pruning", "plot-front", "plot-choices", "plot-formats"]
SEARCH_PLOTS = ["plot-search", "plot-hypervolume", "plot-predictors"]


@pytest.mark.parametrize(
    ("name", "plots"),
    [
        ("compressed", COMPRESSION_PLOTS),
        ("compressed-hostile", COMPRESSION_PLOTS),
        ("compressed-large", [name for name in COMPRESSION_PLOTS if name != "plot-choices"]),
        ("overview", ["plot-targets", "plot-front", "plot-choices"]),
        ("searched", SEARCH_PLOTS),
        ("searched-hostile", SEARCH_PLOTS),
    ],
)
def test_every_plot_of_compression_is_drawn(
    browser: Chrome, folder: Path, name: str, plots: list[str]
) -> None:
    show(browser, folder, name)
    code = """return [...document.querySelectorAll('.plot')].map(
        plot => [plot.id, plot.querySelectorAll('.main-svg').length, plot.clientHeight])"""
    drawn = {plot: (layers, height) for plot, layers, height in script(browser, code)}
    assert [plot for plot in drawn if plot in plots] == plots
    assert all(layers >= 1 and height > 150 for layers, height in drawn.values())


def test_bars_of_formats_change_colour_with_the_theme(browser: Chrome, folder: Path) -> None:
    code = """return getComputedStyle(
        document.querySelector('#plot-formats .barlayer .point path')).fill"""
    show(browser, folder, "compressed", scheme="light")
    light = script(browser, code)
    show(browser, folder, "compressed", scheme="dark")
    assert script(browser, code) != light


def test_slots_change_colour_with_the_theme(browser: Chrome, folder: Path) -> None:
    code = """return getComputedStyle(
        document.querySelector('#plot-arena .barlayer .point path')).stroke"""
    show(browser, folder, "device", scheme="light")
    light = script(browser, code)
    show(browser, folder, "device", scheme="dark")
    assert script(browser, code) != light


def test_a_bar_of_flash_is_as_long_as_its_share(browser: Chrome, folder: Path) -> None:
    show(browser, folder, "device")
    code = """const bar = document.querySelector('.meter .stack');
        return [...bar.children].reduce((sum, part) => sum + part.offsetWidth, 0)
            / bar.clientWidth"""
    device = SAMPLES["device"].device
    assert device is not None
    assert device.flash_limit is not None
    assert script(browser, code) == pytest.approx(device.flash.value / device.flash_limit, abs=0.02)


def test_sorting_device_layers_by_instructions(browser: Chrome, folder: Path) -> None:
    show(browser, folder, "device")
    browser.find_elements(By.CSS_SELECTOR, "#device-table thead button")[5].click()
    keys = [float(key) for key in column(browser, "device-table", 5)]
    assert len(keys) == len(SAMPLES["device"].layers)
    assert keys == sorted(keys, reverse=True)


def test_the_policy_really_blocks(browser: Chrome, folder: Path) -> None:
    """The log above would stay empty if the policy were not read at all."""
    show(browser, folder, "bare")
    script(
        browser,
        """window.ran = false;
        const code = document.createElement('script');
        code.textContent = 'window.ran = true';
        document.body.append(code);
        const image = new Image(); image.src = 'https://example.org/x.png';
        document.body.append(image);""",
    )
    messages = "".join(entry["message"] for entry in log(browser, "browser"))
    assert messages.count("Content Security Policy") >= 2
    assert not any(url.startswith("http") for url in _answered(browser))
    assert script(browser, "return window.ran") is False


@pytest.mark.parametrize("keys", [None, Keys.ENTER, Keys.SPACE], ids=["click", "enter", "space"])
def test_sorting_layers_by_macs(browser: Chrome, folder: Path, keys: str | None) -> None:
    show(browser, folder, "full")
    header = browser.find_elements(By.CSS_SELECTOR, "#layer-table thead th")[6]
    button = header.find_element(By.TAG_NAME, "button")

    def press() -> None:
        button.click() if keys is None else button.send_keys(keys)

    macs = [layer.macs for layer in SAMPLES["full"].layers]
    press()
    assert header.get_attribute("aria-sort") == "descending"
    assert [int(key) for key in column(browser, "layer-table", 6)] == sorted(macs, reverse=True)
    press()
    assert header.get_attribute("aria-sort") == "ascending"
    assert [int(key) for key in column(browser, "layer-table", 6)] == sorted(macs)
    sorts = script(
        browser,
        "return [...document.querySelectorAll('#layer-table th[aria-sort]')].map(h => h.ariaSort)",
    )
    assert sorts.count("none") == len(sorts) - 1


def test_sorting_is_stable_and_keeps_missing_values_last(browser: Chrome, folder: Path) -> None:
    show(browser, folder, "full")
    bits = [layer.weight_bits for layer in SAMPLES["full"].layers]
    present = sorted(str(bit) for bit in bits if bit is not None)
    missing = [""] * bits.count(None)
    button = browser.find_elements(By.CSS_SELECTOR, "#layer-table thead button")[4]
    for expected in (present[::-1] + missing, present + missing):
        button.click()
        assert column(browser, "layer-table", 4) == expected
    last = [int(key) for key in column(browser, "layer-table", 0)][-len(missing) :]
    assert last == sorted(last)


def test_identical_layers_sort_above_every_sqnr(browser: Chrome, folder: Path) -> None:
    show(browser, folder, "full")
    browser.find_element(By.CSS_SELECTOR, "#edge-choice button[data-edge='1']").click()
    code = """return [...document.querySelectorAll('#layer-table thead th')].findIndex(
        header => header.dataset.edge === '1') + 2"""
    index = script(browser, code)
    browser.find_elements(By.CSS_SELECTOR, "#layer-table thead button")[index].click()
    keys = [float(key.replace("Infinity", "inf")) for key in column(browser, "layer-table", index)]
    assert keys[0] == float("inf")
    assert keys == sorted(keys, reverse=True)


def test_choosing_an_edge_shows_only_its_columns(browser: Chrome, folder: Path) -> None:
    show(browser, folder, "full")
    visible = """return [...document.querySelectorAll('#layer-table thead th')].filter(
        h => h.offsetWidth > 0).length"""
    assert script(browser, visible) == 8 + 3
    browser.find_element(By.CSS_SELECTOR, "#edge-choice button[data-edge='all']").click()
    assert script(browser, visible) == 8 + 4 * 3


def test_filtering_layers(browser: Chrome, folder: Path) -> None:
    show(browser, folder, "full")
    browser.find_element(By.ID, "layer-filter").send_keys("fully")
    code = """return [...document.querySelectorAll('#layer-table tbody tr')].filter(
        row => !row.hidden).length"""
    wanted = sum(layer.op == "FullyConnected" for layer in SAMPLES["full"].layers)
    assert script(browser, code) == wanted
    total = len(SAMPLES["full"].layers)
    assert browser.find_element(By.ID, "layer-shown").text == f"{wanted} of {total}"


def test_the_theme_follows_the_system_and_the_switch(browser: Chrome, folder: Path) -> None:
    colours = """return [getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector('#plot-drift .legendtext')).fill]"""
    show(browser, folder, "full", scheme="light")
    light = script(browser, colours)
    show(browser, folder, "full", scheme="dark")
    dark = script(browser, colours)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    button = browser.find_element(By.ID, "theme")
    assert button.text == "Light"
    for word, expected in (("Dark", light), ("Light", dark)):
        button.click()
        assert script(browser, colours) == expected
        assert button.text == word


def test_confusion_choices_show_one_matrix(browser: Chrome, folder: Path) -> None:
    show(browser, folder, "full")
    for trace in ("1", "2", "0"):
        browser.find_element(By.CSS_SELECTOR, f"[data-trace='{trace}']").click()
        shown = script(
            browser,
            "return document.getElementById('plot-confusion').data.map(trace => trace.visible)",
        )
        assert shown == [str(index) == trace for index in range(3)]


@pytest.mark.parametrize(
    "name", ["hostile", "device-hostile", "compressed-hostile", "searched-hostile"]
)
def test_hostile_names_run_nothing_and_are_drawn_as_text(
    browser: Chrome, folder: Path, name: str
) -> None:
    show(browser, folder, name)
    assert script(browser, "return document.querySelectorAll('img, .plot a, .plot b').length") == 0
    assert browser.find_element(By.TAG_NAME, "h1").text == HOSTILE[0]
    ticks = script(
        browser,
        """return [...document.querySelectorAll('#plot-confusion .ytick text')].map(
            text => text.textContent)""",
    )
    assert "<img src…alert(1)>" in ticks


@pytest.mark.parametrize(
    "name",
    [
        *("full", "large", "device", "device-hostile"),
        *("compressed-hostile", "searched", "searched-hostile", "overview"),
    ],
)
def test_a_narrow_screen_scrolls_down_only(browser: Chrome, folder: Path, name: str) -> None:
    metrics = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        show(browser, folder, name)
        assert script(browser, "return document.documentElement.scrollWidth") <= 360
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("name", "plots"), [("full", 4), ("device", 6)])
def test_printing_draws_light_plots_that_fit_the_page(
    browser: Chrome, folder: Path, name: str, plots: int
) -> None:
    show(browser, folder, name, scheme="dark")
    script(
        browser,
        """window.addEventListener('beforeprint', () => {
            window.printed = [...document.querySelectorAll('.plot')].map(
                plot => [plot._fullLayout.width, plot._fullLayout.font.color]);
        });""",
    )
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(pdf["data"]).startswith(b"%PDF")
    assert script(browser, "return window.printed") == [[680, "#1f2428"]] * plots
    after = script(browser, "return document.getElementById('plot-drift')._fullLayout.font.color")
    assert after == "#e6e8ea"


@pytest.mark.parametrize("name", ["large", "device"])
def test_tables_can_be_scrolled_with_the_keyboard(browser: Chrome, folder: Path, name: str) -> None:
    show(browser, folder, name)
    regions = browser.find_elements(By.CSS_SELECTOR, ".scroll")
    assert regions
    for region in regions:
        assert region.get_attribute("tabindex") == "0"
        assert region.get_attribute("aria-label")
