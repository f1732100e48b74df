"""The leaderboard page: what it shows, that it needs nothing else, what it does in a browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from latticezoo.training.board import COLUMNS, board_page, card_row, decades, panel_colours
from latticezoo.training.card_check import read_metrics
from latticezoo.zoo.sources import card_folder, list_pretrained

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium on this machine: apt-get install chromium"
)
#: Elements that are not closed.
VOID = {"meta", "wbr"}


class Page(HTMLParser):
    """Reads a page; notes every start tag with its attributes, the rows, and faults of nesting."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append([dict(attributes)["data-value"], ""])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.rows[-1][-1][1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def board(command):
    assert command("leaderboard", "--out", "board.html")[0] == 0
    return Path("board.html").resolve()


def test_every_card_is_a_row_with_its_measurements(board):
    page = Page(board.read_text())
    rows = {row[0][0]: row for row in page.rows if row}
    assert sorted(rows) == list_pretrained()
    keys = [column.key for column in COLUMNS]
    for name, row in rows.items():
        measured = read_metrics(card_folder(name))["measurements"]
        assert float(row[keys.index("symmetry")][0]) == measured["equivariance_float32"]
        assert row[keys.index("parameters")][1] == f"{measured['parameters']:,}"
        assert (row[keys.index("transfer")][1] == "–") == ("rmse_transfer" not in measured)
        assert len(row) == len(COLUMNS)


def test_every_network_is_a_point_in_the_panel_of_its_system(board):
    page = Page(board.read_text())
    systems = [attributes["data-system"] for attributes in page.all("figure")]
    assert len(systems) == len(set(systems))
    assert {attributes["data-system"] for attributes in page.all("tr") if attributes} == set(
        systems
    )
    assert len(page.all("circle")) == len(list_pretrained())
    for point in page.all("circle"):
        assert 44 <= float(point["cx"]) <= 215
        assert 12 <= float(point["cy"]) <= 168


def test_the_page_needs_nothing_else(board):
    text = board.read_text()
    page = Page(text)
    assert {"link", "img", "iframe", "object"} & {tag for tag, _ in page.tags} == set()
    assert all("src" not in attributes for attributes in page.all("script"))
    assert not re.search(r"url\(|@import|https?://|fetch\(|import\(", text)
    assert {"width=device-width, initial-scale=1"} <= {a.get("content") for a in page.all("meta")}
    assert "prefers-color-scheme: dark" in text
    for attributes in page.all("a"):
        assert (board.parent / attributes["href"]).is_file()


def test_own_cards_and_links(command, refused):
    cards = Path("cards")
    name = list_pretrained()[0]
    shutil.copytree(card_folder(name), cards / "a.b")
    metrics = json.loads((cards / "a.b" / "metrics.json").read_text())
    metrics["name"] = "a.<b>"
    (cards / "a.b" / "metrics.json").write_text(json.dumps(metrics))
    words = ("--cards", cards, "--links", "https://example.org/zoo/", "--out", "new/board.html")
    assert command("leaderboard", *words)[0] == 0
    page = Page(Path("new/board.html").read_text())  # nothing of a card is taken for HTML
    assert [attributes["href"] for attributes in page.all("a")] == ["https://example.org/zoo/a.b"]
    assert [row[0][0] for row in page.rows if row] == ["a.<b>"]
    Path("empty").mkdir()
    assert "there are no cards in empty" in refused("leaderboard", "--cards", "empty")


def test_a_roll_out_is_told_in_standard_errors():
    metrics = read_metrics(card_folder(list_pretrained()[0]))
    one = {"name": "a", "exact": 1.0, "exact_error": 0.3, "network": 1.0, "network_error": 0.4}
    broken = {**one, "name": "largest violation of Gauss's law", "network": 9.0}
    metrics["rollout"] = {"observables": [one, {**one, "network": 2.0}, broken]}
    row = card_row(metrics, "x")
    assert row["rollout"] == pytest.approx(2.0)
    noisy = {**one, "name": "a; with noise", "network": 1.5}
    metrics["rollout"]["observables"].append(noisy)
    assert card_row(metrics, "x")["rollout"] == pytest.approx(1.0)
    assert ">2.0<" in board_page([row])


def test_panels_hold_what_can_be_compared():
    metrics = read_metrics(card_folder("gcn.holstein_weak"))
    assert card_row(metrics, "x")["system"] == "holstein_weak"
    series = {**metrics["measurements"], "frames_per_second": 1.0}
    assert card_row({**metrics, "measurements": series}, "x")["system"] == "holstein_square"
    metrics["data"]["options"]["preset"] = None
    assert card_row(metrics, "x")["system"] == "holstein_square"


def test_no_colour_stands_for_two_networks_of_a_panel():
    networks = [f"n{k:02d}" for k in range(16)]
    for shown in (["n00", "n07", "n14"], networks[3:10], ["n15", "n01", "n08"]):
        colours = panel_colours(shown, networks)
        assert set(colours) == set(shown)
        assert len(set(colours.values())) == len(shown)
    assert panel_colours(["n05", "n09"], networks) == {"n05": 5, "n09": 2}
    assert set(panel_colours(networks, networks).values()) == set(range(7))


def test_axes_hold_all_values():
    assert decades([0.3, 20]) == [0.1, 1, 10, 100]
    assert decades([1, 10]) == [1, 10]
    assert decades([5]) == [1, 10]


def browse(board, width, script=""):
    """The page after a script ran in it, as the browser has it."""
    tried = board.with_name("tried.html")
    tried.write_text(board.read_text().replace("</body>", f"<script>{script}</script></body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    options += [
        f"--user-data-dir={board.parent}/profile",
        "--dump-dom",
        "--virtual-time-budget=2000",
    ]
    done = subprocess.run(
        [
            BROWSER,
            *options,
            f"--user-data-dir={board.parent}/profile",
            "--dump-dom",
            tried.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return Page(done.stdout)


def names(page):
    return [row[0][0] for row in page.rows if row]


@needs_browser
def test_in_a_browser_headings_sort_and_systems_are_chosen(board):
    column = [column.key for column in COLUMNS].index("microseconds")
    for clicks, descending in ((1, False), (2, True)):
        script = f"document.querySelectorAll('th button')[{column}].click();" * clicks
        page = browse(board, 1280, script)
        values = [float(row[column][0]) for row in page.rows if row]
        assert values == sorted(values, reverse=descending)
        assert len(values) == len(list_pretrained())
    script = (
        "const chosen = document.getElementById('system'); chosen.value = 'holstein_weak';"
        "chosen.dispatchEvent(new Event('change'));"
    )
    page = browse(board, 1280, script)
    for attributes in [*page.all("tr"), *page.all("figure")]:
        if "data-system" in attributes:
            assert ("hidden" in attributes) == (attributes["data-system"] != "holstein_weak")


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_no_page_scrolls_sideways(board, width):
    # A frame is as narrow as one likes, which a window is not.
    html = json.dumps(board.read_text()).replace("</", "<\\/")
    script = (
        "const frame = document.createElement('iframe');"
        f"frame.style = 'border: 0; width: {width}px; height: 800px'; frame.srcdoc = {html};"
        "frame.onload = () => {"
        "  const root = frame.contentDocument.documentElement;"
        "  const head = frame.contentWindow.getComputedStyle(root.querySelector('thead'));"
        "  const seen = [root.clientWidth, root.scrollWidth, head.display];"
        "  document.body.dataset.seen = seen.join(' ')"
        "}; document.body.append(frame)"
    )
    page = browse(board, 1400, script)
    inner, scroll, head = page.all("body")[0]["data-seen"].split()
    assert width - 20 <= int(inner) <= width  # a bar to scroll down takes some
    assert int(scroll) <= int(inner)
    assert (head == "none") == (width == 390)
