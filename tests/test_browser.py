"""Snakemake's report in a real browser: pictures load, nothing fails, every artifact is there."""

import shutil
import zipfile
from pathlib import Path

import pytest
from project import snakemake
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver")

# As root there is no sandbox; the rest keeps the browser from calling home.
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1400,1000"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(done, tmp_path_factory):
    """The report of a tiny project, unpacked."""
    snakemake(done, "--report", "report.zip")
    folder = tmp_path_factory.mktemp("report")
    with zipfile.ZipFile(done / "report.zip") as archive:
        archive.extractall(folder)
    (found,) = folder.rglob("report.html")
    return found


def click(browser, element):
    """Click an element wherever it is: the page moves its parts about while it opens a list."""
    browser.execute_script("arguments[0].click()", element)


def open_category(browser, page, name):
    """Click through to a category's list of files."""
    browser.get(page.as_uri())
    click(browser, WebDriverWait(browser, 60).until(lambda driver: driver.find_elements(By.LINK_TEXT, name))[0])
    return WebDriverWait(browser, 60).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "tbody tr"))


def shown(browser, row):
    """Click the eye of a row; what is shown of it: a picture or an HTML page."""
    click(browser, row.find_element(By.CSS_SELECTOR, "[iconname=eye]"))
    name = row.text.strip()
    selector = f'img[src$="{Path(name).name}"]' if name.endswith(".png") else "iframe"
    return WebDriverWait(browser, 60).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, selector))[0]


def test_every_picture_and_table_is_shown(browser, page):
    seen = set()
    for category in ("Figures", "Tables", "Summary"):
        for number in range(len(open_category(browser, page, category))):
            row = open_category(browser, page, category)[number]
            name, element = row.text.strip(), shown(browser, row)
            seen.add(Path(name).stem)
            if element.tag_name == "img":
                WebDriverWait(browser, 60).until(lambda _, image=element: image.get_property("naturalWidth") > 500)
            else:
                browser.switch_to.frame(element)
                assert browser.find_elements(By.CSS_SELECTOR, "table tr"), name
                browser.switch_to.default_content()
    assert seen == {"figure3", "figure4", "figure6", "figure8", "table1", "table3", "costs", "claims", "comparison"}
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_captions_say_where_it_comes_from(browser, page):
    browser.get(page.as_uri())
    body = WebDriverWait(browser, 60).until(lambda driver: driver.find_element(By.TAG_NAME, "body"))
    WebDriverWait(browser, 60).until(lambda _: "model tiny: path" in body.text)
    assert "torch" in body.text
    assert "preset paper: memit, jeep" in body.text
