"""The report of a real run: a page that opens anywhere, and Snakemake's own with its captions."""

import pytest
from pages import opened

from edgeloop.records import read_json

pytestmark = pytest.mark.workflow
PARTS = (
    "front",
    "hypervolume",
    "screening",
    "latencies",
    "predictions",
    "clips",
    "importance",
    "timeline",
    "telemetry",
)


def test_a_run_ends_with_a_page_that_renders_in_a_browser_and_asks_nobody(finished):
    path = finished.path("report.html")
    best = read_json(finished.path("summary.json"))["best"]
    with opened(path, charts=7) as shown:
        assert shown.said == []
        assert [url for url in shown.asked if not url.startswith("data:")] == [f"file://{path}"]
        assert best["candidate"] in shown.locator("header").text_content()
        for part in (*PARTS, "failures"):
            assert shown.locator(f"section#{part}").count() == 1
        assert shown.locator("#clips img").count() == 6


def test_every_part_has_its_data_beside_the_page(finished):
    folder = finished.path("report")
    assert {file.stem for file in folder.glob("*.csv")} == {*PARTS, "failures"}
    assert {"front.png", "predictions.png", "clips-1.png"} <= {file.name for file in folder.glob("*.png")}


def test_a_page_that_was_removed_is_made_again_and_nothing_else(copy):
    copy.path("report.html").unlink()
    executed = copy.executed(copy.snakemake())
    assert dict(executed) == {"report": 1, "all": 1}


def test_snakemakes_own_report_has_the_page_the_figures_and_the_captions(copy):
    copy.snakemake("--report", str(copy.folder / "snakemake.html"))
    text = (copy.folder / "snakemake.html").read_text()
    for words in ("The whole run on one page", "Figures", "Finalists", "front.png", "lowest validation error"):
        assert words in text
