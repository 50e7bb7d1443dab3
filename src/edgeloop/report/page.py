"""The report as one HTML file that needs nothing else, with its figures as PNG and its data as CSV beside it."""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import numpy as np
import pandas as pd
import vl_convert
from PIL import Image

from edgeloop.records import atomic
from edgeloop.report import charts

TEMPLATE = Path(__file__).with_name("page.html")
ENLARGED, FRAMES_SHOWN = 3, 8
PIXELS_OF_PNG = 2  # for each of the page, so that figures can be printed


@dataclass(frozen=True)
class Section:
    """A part of the page. `chart` is drawn of `table`; without rows `empty` says why there is nothing to see, and of a
    section without a chart the table itself is shown. `pictures` are PNGs with a caption each."""

    name: str
    title: str
    text: str
    table: pd.DataFrame
    empty: str
    chart: Callable[[], alt.TopLevelMixin] | None = None
    pictures: Sequence[tuple[str, bytes]] = field(default=())


def write(
    path: str | Path,
    folder: str | Path,
    sections: Sequence[Section],
    *,
    title: str,
    facts: Sequence[tuple[str, str, str]],
    records: Mapping[str, Any],
) -> None:
    """Write the page `path`; and NAME.png and NAME.csv of each section into `folder`.

    facts: (figure, its meaning, a remark), shown on top. records: what a click on a network shows, by candidate.
    """
    folder, shown = Path(folder), []
    for section in sections:
        chart = None
        with atomic(folder / f"{section.name}.csv") as temporary:
            section.table.to_csv(temporary, index=False)
        if section.chart is not None and len(section.table):
            chart = charts.themed(section.chart()).to_dict()
            _write_bytes(folder / f"{section.name}.png", vl_convert.vegalite_to_png(chart, scale=PIXELS_OF_PNG))
        for number, (_, picture) in enumerate(section.pictures, start=1):
            _write_bytes(folder / f"{section.name}-{number}.png", picture)
        shown.append(
            {
                "about": section,
                "chart": chart,
                "rows": section.table.to_dict("records") if section.chart is None and not section.pictures else [],
                "pictures": [(text, base64.b64encode(png).decode()) for text, png in section.pictures],
            }
        )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["script"] = _for_script
    page = environment.from_string(TEMPLATE.read_text()).render(
        title=title,
        facts=facts,
        sections=shown,
        charts={entry["about"].name: entry["chart"] for entry in shown if entry["chart"]},
        records=records,
        folder=folder.name,
        vega=jinja2.utils.markupsafe.Markup(vl_convert.javascript_bundle().replace("</script", "<\\/script")),
    )
    _write_bytes(path, page.encode())


def film(clip: np.ndarray) -> bytes:
    """Frames of a clip, uint8 [T, H, W], evenly spread and side by side: a PNG. Brightness as its square root."""
    frames = clip[np.linspace(0, len(clip) - 1, min(FRAMES_SHOWN, len(clip))).round().astype(int)]
    bright = (np.sqrt(frames / 255) * 255).round().astype(np.uint8)
    strip = np.concatenate([np.pad(frame, ((0, 0), (0, 1)), constant_values=255) for frame in bright], axis=1)
    size = strip.shape[1] * ENLARGED, strip.shape[0] * ENLARGED
    buffer = io.BytesIO()
    Image.fromarray(strip).resize(size, Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def _write_bytes(path: str | Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def _for_script(value: Any) -> Any:
    """JSON that cannot end the script element that it stands in."""
    return jinja2.utils.markupsafe.Markup(json.dumps(value).replace("</", "<\\/"))
