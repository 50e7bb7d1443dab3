"""The report: its tables say what the records say, and its page shows them without asking anybody."""

import csv
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pages import opened
from PIL import Image

from edgeloop.report import page, sections, tables
from edgeloop.report.importance import importance

BUDGETS = {"bench": {"latency_ms": 0.5}}
RNG = np.random.default_rng(1)


def genotype(width, lr=0.01):
    return {
        "architecture": {"family": "conv2d", "widths": [width], "pixels": 41},
        "precision": "fp32",
        "training": {"lr": lr},
    }


def judged(number, failed=False):
    """A candidate whose error falls and whose latency rises with its width; from a width of 10 on over the budget."""
    width = number + 1
    figures = {"val_rmse": 0.3 / width, "parameters": 100 * width, "macs": 1000 * width, "training_s": 2.0}
    if failed:
        figures = dict.fromkeys(figures)
    return {
        "generation": number // 6,
        "genotype": genotype(width, 0.01 + 0.001 * (number % 3)),
        "architecture_id": f"{number:012x}",
        "status": "failed" if failed else "ok",
        "reason": "training diverged </script>" if failed else None,
        "feasible": not failed and width < 10,
        "devices": {"bench": {"latency_ms": None if failed else 0.05 * width}},
        **figures,
    }


def screened(number, latency_ms):
    costs = None if latency_ms is None else {"latency_ms": latency_ms, "peak_memory_mb": 1.0}
    genes = {key: value for key, value in genotype(number + 1).items() if key != "training"}
    return {"generation": number // 6, "genes": genes, "costs": {"bench": costs}}


def network(candidate, val_rmse, latency_ms, **further):
    figures = {"latency_ms": latency_ms, "latency_p50_ms": latency_ms, "latency_p99_ms": 2 * latency_ms}
    return {
        "candidate": candidate,
        "genotype": genotype(64),
        "val_rmse": val_rmse,
        "test_rmse": None,
        "parameters": 10**6,
        "macs": 10**9,
        "device": {"bench": figures},
        "finalist": None,
        **further,
    }


@pytest.fixture(scope="module")
def run():
    """A search of twelve candidates, one of them failed, with a best that was trained again with two seeds."""
    candidates = {f"{number:012x}": judged(number, failed=number == 3) for number in range(12)}
    front = [f"{number:012x}" for number in (8, 4, 0)]
    final = {"test_rmse": {"mean": 0.04, "std": 0.002, "values": [0.038, 0.042]}, "failed": {"2": "out of memory"}}
    against = {"hand": {"speedup": {"bench": 3.0}}, "timed": {"speedup": {"bench": None}}}
    best = network(front[0], 0.033, 0.45, test_rmse=0.04, finalist=final, against=against)
    summary = {
        "devices": {"bench": {"budget_ms": 0.5}},
        "baselines": {"hand": network("f" * 12, 0.1, 0.8), "timed": network("e" * 12, None, 88.0)},
        "best": best,
        "front": [best, *(network(name, 0.1, 0.2, against={}) for name in front[1:])],
        "search": {"strategy": "evolution", "trained": 12, "screened": 14, "wall_s": 90.0},
    }
    state = {
        "candidates": candidates,
        "front": front,
        "budgets": BUDGETS,
        "hypervolume": [0.3, 0.4],
        "screened": {f"{n:012x}": screened(n, 0.05 * (n + 1)) for n in range(14)} | {"refused": screened(2, None)},
    }
    samples = {name: {"status": "ok", "samples_ms": list(RNG.lognormal(size=50))} for name in [*front, "f" * 12]}
    moments = [{"time_s": 60.0 * n, "load_1min": 1.0 + n, "thermal_c": {"cpu": 40.0 + n}} for n in range(3)]
    clips = RNG.integers(0, 256, (8, 16, 41, 41), dtype=np.uint8)
    targets = RNG.uniform(0.5, 1.5, (8, 2))
    predictions = pd.DataFrame(
        {
            "object": "S003",
            "layer": "layer0001",
            "line": range(5),
            "clip": 0,
            "speed_mm_s": [500.0, 700, 900, 1100, 1300],
            "power_w": [100.0, 150, 200, 250, 300],
            "predicted_speed_mm_s": [510.0, 690, 900, 1150, 1200],
            "predicted_power_w": [100.0, 140, 210, 250, 290],
        }
    )
    return sections.Run(
        summary=summary,
        state=state,
        comparisons={"bench": {"candidates": samples | {"e" * 12: {"status": "failed"}}}},
        works={"screen": [(0.0, 10.0)], "train": [(12.0, 30.0), (20.0, 40.0)], "measure": [(50.0, 51.0)]},
        measurements=[{"device": "bench", "telemetry": {str(n): moment}} for n, moment in enumerate(moments)],
        predictions=predictions,
        examples=(clips, targets, targets + 0.1),
    )


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """The folder with the page of that search."""
    return write(run, tmp_path_factory.mktemp("report")).parent


def write(run, folder):
    page.write(
        folder / "report.html",
        folder / "report",
        sections.sections(run),
        title="edgeloop: evolution on bench",
        facts=sections.facts(run),
        records=run.state["candidates"],
    )
    return folder / "report.html"


# ---------------------------------------------------------------- tables


def test_every_trained_network_has_its_kind_and_what_failed_is_among_the_failures(run):
    table = tables.networks(run.state, run.summary, "bench")
    kinds = table.groupby("kind")["network"].count().to_dict()
    assert kinds == {"front": 3, "within the budgets": 5, "over a budget": 3, "baseline": 2}
    assert "conv2d, widths [1], pixels 41, lr 0.01" in set(table["genes"])
    failures = tables.failures(run.state, {"0" * 12: {"2": "out of memory"}})
    assert failures.values.tolist() == [
        [f"{3:012x}", "generation 0", "training diverged </script>"],
        ["0" * 12, "finalist, seed 2", "out of memory"],
    ]


def test_the_papers_factors_count_from_each_baseline_and_make_up_no_error(run):
    table = tables.references(tables.networks(run.state, run.summary, "bench")).set_index("network")
    assert table.loc["paper's factors from hand", "latency_ms"] == pytest.approx(0.8 / 8.8)
    assert table.loc["paper's factors from hand", "val_rmse"] == pytest.approx(0.1 / 1.35)
    assert table.loc["paper's factors from timed", "latency_ms"] == pytest.approx(10.0)
    assert np.isnan(table.loc["paper's factors from timed", "val_rmse"])


def test_a_budget_that_the_last_session_does_not_confirm_is_said_beside_the_chart(run):
    assert "last session" not in sections.sections(run)[0].text
    best, *others = run.summary["front"]
    slower = {**best, "device": {"bench": {**best["device"]["bench"], "latency_ms": 0.51}}}
    said = sections.sections(replace(run, summary={**run.summary, "front": [slower, *others]}))[0].text
    assert f"{slower['candidate']} met the budget of 0.5 ms on bench in the search, but its latency_ms is 0.51" in said


def test_progress_counts_the_trainings_until_then(run):
    assert tables.progress(run.state).values.tolist() == [[0, 6, 0.3], [1, 12, 0.4]]


def test_what_screening_spared_is_what_was_never_trained_and_over_a_budget(run):
    table = tables.screening(run.state)
    fates = table.groupby("fate")["architectures"].sum().to_dict()
    assert fates == {"trained": 12, "over a budget": 2, "refused by a device": 1}
    text = next(section.text for section in sections.sections(run) if section.name == "screening")
    assert (
        "3 of them exceeded a budget or were refused; to train them, at 2.0 s each on average, would have taken 6 s"
        in text
    )


def test_latencies_are_quantiles_of_the_raw_samples(run):
    table = tables.latencies(run.comparisons, {name: name for name in [*run.state["front"], "f" * 12]})
    samples = run.comparisons["bench"]["candidates"]["f" * 12]["samples_ms"]
    own = table[table["network"] == "f" * 12].set_index("share")["latency_ms"]
    assert own[0.0] == min(samples) and own[0.5] == np.median(samples) and own[1.0] == max(samples)


def test_residuals_are_predicted_minus_true_in_physical_units(run):
    table = tables.predictions(run.predictions)
    assert table["target"].unique().tolist() == ["speed, mm/s", "power, W"]
    assert table["residual"].tolist() == [10, -10, 0, 50, -100, 0, -10, 10, 0, -10]


def test_of_very_many_clips_an_even_part_is_drawn(run):
    many = pd.concat([run.predictions] * 2000, ignore_index=True)
    assert 1500 < len(tables.predictions(many)) / 2 <= tables.POINTS


def test_the_timeline_has_the_jobs_and_the_time_in_which_there_were_none(run):
    table = tables.timeline(run.works)
    waits = table[table["stage"] == "wait"]
    assert (60 * waits[["begin_min", "end_min"]]).round(6).values.tolist() == [[10, 12], [40, 50]]
    assert len(tables.timeline({"train": []})) == 0


def test_telemetry_tells_every_sensor_there_is_and_nothing_of_those_there_are_not(run):
    table = tables.telemetry(run.measurements)
    assert table.groupby("sensor")["value"].apply(list).to_dict() == {
        "cpu, °C": [40.0, 41.0, 42.0], "load, 1 min mean": [1.0, 2.0, 3.0]
    }  # fmt: skip
    assert table["time_min"].tolist() == [0.0, 1.0, 2.0] * 2


def test_the_gene_that_decides_is_the_most_important_one(run):
    table = importance(run.state, "bench")
    for figure, part in table.groupby("figure"):
        assert part.sort_values("importance")["gene"].iloc[-1] == "widths", figure
    assert set(table["gene"]) == {"widths", "lr"}  # what never varied is not there
    assert len(importance({**run.state, "candidates": {}, "screened": {}}, "bench")) == 0


# ---------------------------------------------------------------- the page


def test_the_page_renders_says_nothing_and_asks_nobody(run, written):
    path = written / "report.html"
    with opened(path, charts=8) as shown:
        assert shown.said == []
        assert [url for url in shown.asked if not url.startswith("data:")] == [f"file://{path}"]
        assert shown.locator("section h2").all_text_contents() == [part.title for part in sections.sections(run)]
        assert "0.0400 ± 0.0020" in shown.locator("header").text_content()
        assert "training diverged </script>" in shown.locator("#failures").text_content()
        for name, label in (
            ("front", "latency on bench, ms"),
            ("front", "budget 0.5 ms"),
            ("predictions", "true power, W"),
            ("timeline", "time since the first job began, min"),
        ):
            assert label in shown.locator(f"#chart-{name}").text_content()
        widest = shown.evaluate("document.documentElement.scrollWidth")
        assert widest <= 1200


def test_pointing_at_a_network_shows_its_genes_and_a_click_its_record(run, written):
    with opened(written / "report.html", charts=8) as shown:
        best = run.state["front"][0]
        point = shown.locator("#chart-front path[aria-roledescription='point']").filter(has_not_text="x")
        labels = [point.nth(n).get_attribute("aria-label") for n in range(point.count())]
        place = next(n for n, label in enumerate(labels) if best in label)
        point.nth(place).hover()
        shown.wait_for_selector("#vg-tooltip-element.visible")
        assert "widths [9]" in shown.locator("#vg-tooltip-element").text_content()
        point.nth(place).click()
        shown.wait_for_function("document.getElementById('record').textContent.includes('genotype')")
        assert shown.locator("#record").text_content().startswith(best)


def test_figures_are_there_as_png_and_their_data_as_csv(run, written):
    charts = {part.name for part in sections.sections(run) if part.chart}
    for name in charts:
        with Image.open(written / f"report/{name}.png") as picture:
            assert picture.format == "PNG" and picture.width > 600
    rows = list(csv.DictReader((written / "report/front.csv").open()))
    assert len(rows) == 13 and float(rows[0]["latency_ms"]) == 0.05
    assert {file.stem for file in (written / "report").glob("*.csv")} == charts | {"clips", "failures"}


def test_a_search_that_found_nothing_has_a_page_that_says_so(run, tmp_path):
    empty = {**run.state, "candidates": {}, "front": [], "screened": {}}
    summary = {**run.summary, "best": None, "front": []}
    bare = sections.Run(summary, empty, {}, {"screen": []}, [], None, None)
    with opened(write(bare, tmp_path), charts=1) as shown:
        assert shown.said == []
        for words in ("Nothing was screened", "No finalist was trained", "Fewer than 10 networks", "Nothing failed."):
            assert words in shown.locator("main").text_content()


def test_a_film_shows_frames_side_by_side_and_no_more_than_there_are():
    clip = np.zeros((4, 41, 41), np.uint8)
    clip[-1] = 255
    with Image.open(io.BytesIO(page.film(clip))) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (41 * page.ENLARGED, 4 * 42 * page.ENLARGED)
    assert pixels[0, 0] == 0 and pixels[0, -4 * page.ENLARGED] == 255
