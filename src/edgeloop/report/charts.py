"""From the tables of a run to charts: one function for each figure, axes with units."""

import altair as alt
import pandas as pd

alt.data_transformers.disable_max_rows()

WIDTH, HEIGHT = 840, 380
WHOLE = alt.Axis(tickMinStep=1, format="d")
KINDS = {
    "front": "#d1495b",
    "within the budgets": "#5b8fb9",
    "over a budget": "#c3c7cc",
    "baseline": "#22313f",
    "paper's factors": "#8a6fb0",
}
STAGES = {
    "screen": "#e0a458",
    "train": "#5b8fb9",
    "export": "#7fb285",
    "measure": "#d1495b",
    "finalists: train": "#8fb8de",
    "finalists: export": "#b5d3b9",
    "finalists: measure": "#e59aa5",
    "finalists: test": "#8a6fb0",
    "wait": "#d9dce0",
}
FATES = {
    "trained": "#5b8fb9",
    "not chosen": "#b9cfe2",
    "over a budget": "#e0a458",
    "refused by a device": "#d1495b",
}


def themed(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """The look that all charts have in common."""
    margins = {"left": 4, "top": 4, "right": 24, "bottom": 8}
    return chart.configure(
        font="system-ui, Helvetica, Arial, sans-serif", background="white", padding=margins
    ).configure_axis(
        labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridColor="#eceef0", domainColor="#9aa3ad",
        tickColor="#9aa3ad", labelColor="#3b4650", titleColor="#3b4650",
    ).configure_legend(
        labelFontSize=12, titleFontSize=12, titleFontWeight="normal", symbolSize=90, labelLimit=420,
    ).configure_view(stroke=None).configure_header(labelFontSize=13, titleFontSize=13)  # fmt: skip


def _colors(kinds: dict[str, str], title: str | None = None) -> alt.Color:
    scale = alt.Scale(domain=list(kinds), range=list(kinds.values()))
    return alt.Color("kind:N", scale=scale, legend=alt.Legend(title=title, orient="top"))


def front(networks: pd.DataFrame, references: pd.DataFrame, budget_ms: float | None, device: str) -> alt.LayerChart:
    """Validation error against latency, both on logarithmic axes; what has no error is a line at its latency."""
    x = alt.X("latency_ms:Q", scale=alt.Scale(type="log", nice=False, padding=24), title=f"latency on {device}, ms")
    y = alt.Y(
        "val_rmse:Q",
        scale=alt.Scale(type="log", nice=False, padding=24),
        title="validation RMSE (of 900 mm/s and 215 W)",
    )
    references = references.assign(
        kind="paper's factors", candidate=None, genes="8.8 times faster, 1.35 times lower RMSE"
    )
    known = pd.concat([networks, references], ignore_index=True)
    tooltip = [
        alt.Tooltip("network:N"),
        alt.Tooltip("kind:N"),
        alt.Tooltip("latency_ms:Q", title="latency, ms", format=".4g"),
        alt.Tooltip("val_rmse:Q", title="validation RMSE", format=".4f"),
        alt.Tooltip("parameters:Q", format=","),
        alt.Tooltip("genes:N"),
    ]
    shapes = alt.Scale(domain=list(KINDS), range=["circle", "circle", "circle", "diamond", "cross"])
    points = (
        alt.Chart(known[known["val_rmse"].notna()])
        .mark_point(filled=True, size=110, opacity=0.9, cursor="pointer")
        .encode(
            x,
            y,
            _colors(KINDS),
            alt.Shape("kind:N", scale=shapes, legend=alt.Legend(title=None, orient="top")),
            tooltip=tooltip,
        )
    )
    best = networks[networks["kind"] == "front"].sort_values("latency_ms")
    steps = alt.Chart(best).mark_line(interpolate="step-after", color=KINDS["front"], opacity=0.5).encode(x, y)
    lines = (
        alt.Chart(known[known["val_rmse"].isna()])
        .mark_rule(strokeDash=[2, 3], size=2)
        .encode(x, color=_colors(KINDS), tooltip=tooltip[:3])
    )
    layers = [*([steps] if len(best) else []), *([lines] if known["val_rmse"].isna().any() else []), points]
    if budget_ms is not None:
        limit = alt.Chart(pd.DataFrame({"latency_ms": [budget_ms], "text": [f"budget {budget_ms:g} ms"]}))
        layers += [
            limit.mark_rule(color="#e0a458", size=2).encode(x),
            limit.mark_text(align="right", dx=-6, baseline="top", color="#a8741f").encode(
                x, y=alt.value(2), text="text:N"
            ),
        ]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT + 60)


def progress(table: pd.DataFrame) -> alt.LayerChart:
    """The hypervolume against the trainings that it took."""
    base = alt.Chart(table).encode(
        alt.X("trainings:Q", title="trained candidates", axis=WHOLE),
        alt.Y("hypervolume:Q", title="hypervolume (share of budget x error of the mean)", scale=alt.Scale(zero=False)),
        tooltip=["generation:O", "trainings:Q", alt.Tooltip("hypervolume:Q", format=".4f")],
    )
    marks = (
        base.mark_point(filled=True, size=90, color="#5b8fb9"),
        base.mark_text(dy=-12, color="#3b4650").encode(text=alt.Text("generation:O")),
    )
    line = base.mark_line(interpolate="step-after", color="#5b8fb9", opacity=0.6)
    return alt.layer(line, *marks).properties(width=WIDTH, height=HEIGHT - 100)


def screening(table: pd.DataFrame) -> alt.Chart:
    """What became of the architectures that were timed untrained, by generation."""
    scale = alt.Scale(domain=list(FATES), range=list(FATES.values()))
    return (
        alt.Chart(table)
        .mark_bar(size=38)
        .encode(
            alt.X("generation:O", title="generation", axis=alt.Axis(labelAngle=0)),
            alt.Y("architectures:Q", title="architectures timed untrained", axis=WHOLE),
            alt.Color("fate:N", scale=scale, legend=alt.Legend(title=None, orient="top")),
            tooltip=["generation:O", "fate:N", "architectures:Q"],
        )
        .properties(width=WIDTH, height=HEIGHT - 140)
    )


def latencies(table: pd.DataFrame) -> alt.Chart:
    """Raw samples of every compared network, as the share of runs that took at most so long."""
    return (
        alt.Chart(table)
        .mark_line(size=2, interpolate="step-after")
        .encode(
            alt.X("latency_ms:Q", scale=alt.Scale(type="log", nice=False), title="latency of a run by the clock, ms"),
            alt.Y("share:Q", title="share of runs that took at most so long", axis=alt.Axis(format="%")),
            alt.Color("network:N", legend=alt.Legend(title=None, orient="bottom", columns=3)),
            tooltip=["network:N", alt.Tooltip("latency_ms:Q", format=".4g"), alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(width=WIDTH, height=HEIGHT - 80)
        .facet(row=alt.Row("device:N", title=None))
        .resolve_scale(x="independent")
    )


def predictions(table: pd.DataFrame) -> alt.ConcatChart:
    """Predicted against true values of each target, and the residuals below."""
    columns = []
    for target, part in table.groupby("target", sort=False):
        name, _, unit = target.partition(", ")
        limits = [float(part[["true", "predicted"]].min().min()), float(part[["true", "predicted"]].max().max())]
        scale = alt.Scale(domain=limits, nice=True, zero=False)
        ends = pd.DataFrame({"true": limits, "predicted": limits})
        dots = alt.Chart(part).mark_circle(size=18, opacity=0.45, color="#5b8fb9").encode(
            alt.X("true:Q", scale=scale, title=f"true {name}, {unit}"),
            tooltip=["clip:N", *(alt.Tooltip(f"{key}:Q", format=".1f") for key in ("true", "predicted", "residual"))],
        )  # fmt: skip
        diagonal = alt.Chart(ends).mark_line(color="#d1495b", strokeDash=[4, 4]).encode(
            alt.X("true:Q", scale=scale), alt.Y("predicted:Q", scale=scale)
        )  # fmt: skip
        zero = alt.Chart(pd.DataFrame({"residual": [0.0]})).mark_rule(color="#d1495b", strokeDash=[4, 4]).encode(
            alt.Y("residual:Q")
        )  # fmt: skip
        above = dots.encode(alt.Y("predicted:Q", scale=scale, title=f"predicted {name}, {unit}"))
        below = dots.encode(alt.Y("residual:Q", title=f"predicted - true, {unit}"))
        columns.append(
            alt.vconcat(
                alt.layer(above, diagonal).properties(width=370, height=330),
                alt.layer(below, zero).properties(width=370, height=150),
            )
        )
    return alt.hconcat(*columns, spacing=40)


def importance(table: pd.DataFrame) -> alt.HConcatChart:
    """How much each gene matters for error and latency, with the spread over shuffles."""
    table = table.assign(low=table["importance"] - table["std"], high=table["importance"] + table["std"])
    return alt.hconcat(*(_importance(figure, part) for figure, part in table.groupby("figure", sort=False)), spacing=40)


def _importance(figure: str, table: pd.DataFrame) -> alt.LayerChart:
    order = table.sort_values("importance", ascending=False)["gene"].tolist()
    base = alt.Chart(table).encode(alt.Y("gene:N", sort=order, title=None))
    bars = base.mark_bar(color="#5b8fb9", height={"band": 0.6}).encode(
        alt.X("importance:Q", title=f"fall of R² of {figure} when the gene is shuffled"),
        tooltip=["gene:N", alt.Tooltip("importance:Q", format=".3f"), alt.Tooltip("std:Q", format=".3f"), "networks:Q"],
    )
    whiskers = base.mark_rule(color="#22313f").encode(alt.X("low:Q"), alt.X2("high:Q"))
    return alt.layer(bars, whiskers).properties(width=300)


def timeline(table: pd.DataFrame) -> alt.Chart:
    """When jobs were at work, a row for each stage."""
    scale = alt.Scale(domain=list(STAGES), range=list(STAGES.values()))
    present = [stage for stage in STAGES if stage in set(table["stage"])]
    return (
        alt.Chart(table)
        .mark_bar(height={"band": 0.7}, opacity=0.75)
        .encode(
            alt.X("begin_min:Q", title="time since the first job began, min"),
            alt.X2("end_min:Q"),
            alt.Y("stage:N", sort=present, title=None, scale=alt.Scale(domain=present)),
            alt.Color("stage:N", scale=scale, legend=None),
            tooltip=["stage:N", alt.Tooltip("begin_min:Q", format=".2f"), alt.Tooltip("end_min:Q", format=".2f")],
        )
        .properties(width=WIDTH - 60, height=34 * len(present))
    )


def telemetry(table: pd.DataFrame) -> alt.FacetChart:
    """What the devices told of themselves, a row for each sensor."""
    return (
        alt.Chart(table)
        .mark_line(point=alt.OverlayMarkDef(size=14), interpolate="linear", size=1)
        .encode(
            alt.X("time_min:Q", title="time since the first measurement, min"),
            alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            alt.Color("device:N", legend=alt.Legend(title=None, orient="top")),
            tooltip=[
                "device:N",
                "sensor:N",
                alt.Tooltip("value:Q", format=".4g"),
                alt.Tooltip("time_min:Q", format=".2f"),
            ],
        )
        .properties(width=WIDTH - 40, height=110)
        .facet(row=alt.Row("sensor:N", title=None, header=alt.Header(labelOrient="top", labelAnchor="start")))
        .resolve_scale(y="independent")
    )
