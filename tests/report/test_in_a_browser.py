"""The page in a headless Chromium: as its readers have it, from a file, without a network."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By

from tests.report.made_folders import HOSTILE

WIDTHS = {"desk": 1280, "phone": 390}


@pytest.fixture
def shown(browser, page):
    """The page, opened from its file at a desk's width, in light colours."""
    browser.get_log("browser")
    show(browser, page)
    return browser


def show(
    browser, page, width: int = WIDTHS["desk"], dark: bool = False, media: str = "screen"
) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(page.file.as_uri())


def table_of(browser, caption: str):
    """The block of the table whose caption begins so."""
    return browser.execute_script(
        """
        return Array.from(document.querySelectorAll('div.table')).find(
          block => block.querySelector('h4').textContent.startsWith(arguments[0]))""",
        caption,
    )


def column(browser, block, place: int) -> list[str]:
    """A column's cells, of the rows that are shown."""
    return browser.execute_script(
        """
        return Array.from(arguments[0].querySelectorAll('tbody tr'))
          .filter(row => row.checkVisibility()).map(row => row.cells[arguments[1]].innerText)""",
        block, place,
    )  # fmt: skip


def test_it_opens_without_an_error_and_asks_for_nothing(shown):
    assert shown.get_log("browser") == []
    asked = shown.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in asked if not name.startswith("data:")] == []


def test_what_users_wrote_is_text_and_runs_nothing(shown):
    assert shown.execute_script("return document.querySelectorAll('script').length") == 1
    (rows,) = column(shown, table_of(shown, "Rejected rows"), 0)[:1]
    assert rows == HOSTILE  # an id, shown as it is


def test_every_section_has_its_figures_and_each_is_seen(shown, page):
    titles = {
        "Energies of the library", "p-values of the library",
        "Training set and library in chemical space",
        "Critical difference", "AUROC by data set and method", "Training loss",
        "Validation AUROC", "Misranked pairs", "Margin", "Weight of pairs in the loss",
        "ROC: finding OOD molecules by energy", "Precision and recall, OOD positive",
        "Energies of test molecules", "Calibration of p-values", "Energies, frozen encoder",
    }  # fmt: skip
    figures = shown.execute_script(
        """
        return Array.from(document.querySelectorAll('figure')).map(figure => {
          const all = figure.querySelectorAll('.scroll > svg'), svg = all[0];
          return [figure.querySelector('h4').innerText, all.length, svg.clientWidth,
                  svg.clientHeight, svg.getAttribute('role'), svg.getAttribute('aria-label')];
        })"""
    )
    assert titles <= {title for title, *_ in figures}
    for title, drawings, width, height, role, label in figures:
        assert drawings == 1 and width > 250 and height > 100, title
        assert role == "img" and label, title
    links = shown.find_elements(By.CSS_SELECTOR, "nav a")
    assert len(links) == len(page.made["sections"]) == 6
    for link in links:
        assert shown.find_elements(By.CSS_SELECTOR, link.get_attribute("href").split(".html")[1])


def test_marks_lie_within_their_axes(shown):
    beyond = shown.execute_script(
        """
        return Array.from(document.querySelectorAll('svg.plot, svg.ranks')).filter(svg => {
          const axis = svg.querySelector('.axis').getBBox();
          const upright = axis.height > 0;  // ranks have no second axis
          return Array.from(svg.querySelectorAll('[class*="c-"], .clique')).some(mark => {
            const box = mark.getBBox();
            return box.x < axis.x - 4 || box.x + box.width > axis.x + axis.width + 4
              || upright && (box.y < axis.y - 4
                             || box.y + box.height > axis.y + axis.height + 4);
          }) || Array.from(svg.querySelectorAll('.lead')).some(line => {
            const x = line.getPointAtLength(0).x;
            return x < axis.x - 1 || x > axis.x + axis.width + 1;
          });
        }).map(svg => svg.getAttribute('aria-label'))"""
    )
    assert beyond == []
    assert shown.execute_script("return document.querySelectorAll('svg.ranks .lead').length") > 3


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_no_text_of_a_figure_is_cut_off_and_the_page_is_as_wide_as_the_screen(browser, page, width):
    show(browser, page, width)
    cut = browser.execute_script(
        """
        return Array.from(document.querySelectorAll('figure .scroll > svg')).flatMap(svg => {
          const box = svg.getBoundingClientRect();
          return Array.from(svg.querySelectorAll('text')).filter(text => {
            const own = text.getBoundingClientRect();
            return own.left < box.left - 1 || own.right > box.right + 1
              || own.top < box.top - 1 || own.bottom > box.bottom + 1;
          }).map(text => svg.getAttribute('aria-label') + ': ' + text.textContent);
        })"""
    )
    assert cut == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_table_sorts_both_ways_by_numbers_and_by_text(shown):
    block = table_of(shown, "Mean ± standard deviation")
    heads = block.find_elements(By.CSS_SELECTOR, "th button")
    area = [head.text.split(" ")[0] for head in heads].index("AUROC")
    for turn in ("descending", "ascending"):
        heads[area].click()
        values = [float(text.split(" ")[0]) for text in column(shown, block, area)]
        assert values == sorted(values, reverse=turn == "descending")
        head = block.find_elements(By.TAG_NAME, "th")[area]
        assert head.get_attribute("aria-sort") == turn
    heads[1].click()
    methods = column(shown, block, 1)
    assert methods == sorted(methods, reverse=True) and len(set(methods)) == 6


def test_a_table_filters_by_words_in_any_column(shown):
    block = table_of(shown, "Mean ± standard deviation")
    field = block.find_element(By.CSS_SELECTOR, "input")
    field.send_keys("set_3 KNN")
    assert column(shown, block, 0) == ["set_3", "set_3"]
    assert column(shown, block, 1) == ["minimol/knn", "unimol/knn"]
    assert block.find_element(By.CSS_SELECTOR, ".shown").text == "2 of 42"
    field.clear()
    field.send_keys(" ")
    assert len(column(shown, block, 0)) == 42


def test_it_prints_black_on_white_at_the_width_of_paper_with_all_rows(browser, page):
    show(browser, page, 700, dark=True, media="print")
    wide, back, tall = browser.execute_script(
        """
        const boxes = Array.from(document.querySelectorAll('.table .scroll'));
        return [document.documentElement.scrollWidth,
                getComputedStyle(document.body).backgroundColor,
                boxes.filter(box => box.scrollHeight > box.clientHeight + 1).length];"""
    )
    assert (wide <= 700, back, tall) == (True, "rgb(255, 255, 255)", 0)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_the_page(browser, page, dark):
    """By WCAG 2: 4.5 for text, 3 for marks."""
    show(browser, page, dark=dark)
    names = {"ink": 4.5, "soft": 4.5, "link": 4.5}
    names |= dict.fromkeys(("id", "ood", "inside", "outside", "frozen", "finetuned"), 3)
    names |= {f"atom-{each}": 3 for each in ("n", "o", "f", "cl", "br", "i", "p", "s")}
    read = "return getComputedStyle(document.documentElement).getPropertyValue('--' + arguments[0])"
    back = luminance(browser.execute_script(read, "page"))
    assert (back < 0.1) == dark
    for name, least in names.items():
        mine = luminance(browser.execute_script(read, name))
        contrast = (max(mine, back) + 0.05) / (min(mine, back) + 0.05)
        assert contrast >= least, name
    ink, heat = (luminance(browser.execute_script(read, name)) for name in ("ink", "heat"))
    assert (max(ink, heat) + 0.05) / (min(ink, heat) + 0.05) >= 4.5  # text of a full cell


def luminance(color: str) -> float:
    parts = [int(color.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
