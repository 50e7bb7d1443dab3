"""The card of a model that is deployed: what it is, what it was trained on, how good and how fast it is."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from edgeloop import finalists
from edgeloop.data.cache import TARGET_SCALE
from edgeloop.models import preprocess, registry
from edgeloop.precision import deployed
from edgeloop.records import SCHEMA_VERSION, Genotype

OF_DEVICE = ("provider", "threads", "measured_at")
OF_BATCH = ("batch_size", "latency_ms", "latency_p50_ms", "latency_p99_ms", "peak_memory_mb")
TRAINED = ("epochs", "training_clips", "best_epoch", "device", "versions", "val_rmse_speed_mm_s", "val_rmse_power_w")
EXPORTED = ("model_sha256", "bytes", "opset", "operators", "max_abs_difference")
IN_PYTORCH = ("val_rmse_speed_mm_s", "val_rmse_power_w")


def build(
    candidate: str,
    genotype: Genotype,
    seeds: finalists.Seeds,
    *,
    chosen: int,
    enrolments: Mapping[str, Mapping[str, Any]],
    cache: Mapping[str, Any],
) -> dict[str, Any]:
    """The card of the training `chosen` among `seeds` of a finalist, as data; `enrolments` are by device.

    It has figures of records and nothing of its own: no time, no path, no name of a machine.
    """
    records = seeds[chosen]
    export, test = records["export"], records["test"]
    train = deployed(records["train"], export)
    genes = registry.parse(genotype["architecture"])
    splits = cache["splits"]
    return {
        "schema_version": SCHEMA_VERSION,
        "candidate": candidate,
        "genotype": genotype,
        "parameters": train["parameters"],
        "macs": train["macs"],
        "model": {key: export[key] for key in EXPORTED} | _converted(records),
        "input": {
            "name": "clip",
            "type": "uint8",
            "shape": ["batch", genes.frames, preprocess.CLIP_PIXELS, preprocess.CLIP_PIXELS],
            "unit": "counts of the camera, 0 to 255",
            "frames": genes.frames,
            "pixels": preprocess.CLIP_PIXELS,
        },
        "output": {
            "name": "targets",
            "type": "float32",
            "shape": ["batch", 2],
            "meaning": ["laser speed", "laser power"],
            "scale": list(TARGET_SCALE),
            "unit": ["mm/s", "W"],
        },
        "preprocessing": {"before": _before(cache), "in_graph": _in_graph(genes.pixels)},
        "training": {
            "source": cache["source"],
            "data_fingerprint": cache["fingerprint"],
            "objects": splits["train"]["objects"],
            "validation_objects": splits["validation"]["objects"],
            "validation_clips": splits["validation"]["clips"],
            "seed": train["seed"],
            **{key: train[key] for key in TRAINED},
        },
        "test": {
            "objects": splits["test"]["objects"],
            "clips": test["clips"],
            "rmse_speed_mm_s": test["test_rmse_speed_mm_s"],
            "rmse_power_w": test["test_rmse_power_w"],
            "of_all_seeds": {
                key.removeprefix("test_"): value
                for key, value in finalists.together(seeds).items()
                if key.startswith("test_")
            },
        },
        "devices": {
            device: {
                "fingerprint": enrolments[device]["fingerprint"],
                "outputs_differ_by": record["parity_max_abs_difference"],
                **{key: record[key] for key in OF_DEVICE},
                "measurements": [
                    {key: entry[key] for key in OF_BATCH} for entry in finalists.by_batch_size(record).values()
                ],
            }
            for device, record in records["measured"].items()
        },
    }


def _converted(records: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model in another precision than fp32: which, and what the conversion has changed."""
    train, export = records["train"], records["export"]
    if "precision" not in export:
        return {}
    return {
        "precision": export["precision"],
        "converted_max_abs_difference": export["converted_max_abs_difference"],
        "in_pytorch": {key: train[key] for key in IN_PYTORCH},
    }


def _before(cache: Mapping[str, Any]) -> list[str]:
    side = cache["pixels"]
    return [
        f"take {cache['frames']} consecutive frames of one scan line while the laser is on: their brightest pixels are "
        f"above {cache['lit_threshold']} counts",
        f"cut {side} x {side} pixels of all of them around the brightest pixel of the line's mean lit frame",
        "leave the counts as they are (uint8)",
    ]


def _in_graph(pixels: int) -> list[str]:
    cut = [f"the centre {pixels} x {pixels} pixels"] if pixels < preprocess.CLIP_PIXELS else []
    resize = [f"a bilinear resize to {pixels} x {pixels} pixels"] if pixels > preprocess.CLIP_PIXELS else []
    return [
        *cut,
        "the square root of the counts",
        *resize,
        f"(sqrt(count / {preprocess.COUNTS:g}) - {preprocess.MEAN:g}) / {preprocess.STD:g}, within the first layer",
        "mean and standard deviation of the training targets, within the last layer",
    ]


def as_text(card: Mapping[str, Any]) -> str:
    """The card in Markdown, for people."""
    speed, power = card["output"]["scale"]
    training, test = card["training"], card["test"]
    simulated = " This is simulated video: nothing is known of how good the network is on a real machine's."
    lines = [
        f"# Melt-pool network {card['candidate']}",
        "",
        f"A `{card['genotype']['architecture']['family']}` network of {card['parameters']:,} parameters and "
        f"{card['macs']:,} multiply-accumulates a clip that reads laser speed and power off a short "
        "video of the melt pool. All figures again, and more: `model-card.json`.",
        "",
        "## Use",
        "",
        "    python3 predict.py clip.npy        # mm/s and W of each clip",
        "    python3 predict.py --self-test     # known clips, known outputs",
        "    sha256sum -c SHA256SUMS",
        "",
        "| | `model.onnx` |",
        "|---|---|",
        f"| input | `clip`, uint8 {_shape(card['input'])}, {card['input']['unit']} |",
        f"| output | `targets`, float32 {_shape(card['output'])}: speed / {speed:g} mm/s, power / {power:g} W |",
        f"| operators | ONNX opset {card['model']['opset']}: {', '.join(card['model']['operators'])} |",
        "",
        "To be done before the network sees a clip:",
        "",
        *_listed(card["preprocessing"]["before"]),
        f"- of a longer clip take the {card['input']['frames']} frames in its centre (`predict.py` does)",
        "",
        "Done in the graph itself:",
        "",
        *_listed(card["preprocessing"]["in_graph"]),
        "",
        "## Trained on",
        "",
        f"{training['training_clips']:,} clips of {', '.join(training['objects'])} (source `{training['source']}`), "
        f"{training['epochs']} epochs, the weights of epoch {training['best_epoch']}: that of the lowest error on "
        f"{training['validation_clips']:,} validation clips." + (simulated if training["source"] == "simulate" else ""),
        "",
        "## How good",
        "",
        _quality(card),
        "",
        *_as_trained(card),
        "The seed was chosen by the validation clips. "
        + (
            f"Test: {test['clips']:,} clips of {', '.join(test['objects'])}, which nothing in the search has read."
            if test["clips"]
            else "There were no test clips."
        ),
        "",
        "## How fast",
        "",
        _latency(card),
        "",
        *(_device(name, about["fingerprint"]) for name, about in card["devices"].items()),
        "",
    ]
    return "\n".join(lines)


def _shape(about: Mapping[str, Any]) -> str:
    return f"[{', '.join(map(str, about['shape']))}]"


def _listed(items: list[str]) -> list[str]:
    return [f"- {item}" for item in items]


def _quality(card: Mapping[str, Any]) -> str:
    training, test = card["training"], card["test"]
    figures = [("speed", "speed_mm_s", "mm/s", ".1f"), ("power", "power_w", "W", ".2f")]

    def figure(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    def spread(value: Mapping[str, Any] | None, form: str) -> str:
        if value is None:
            return "-"
        mean = format(value["mean"], form)
        return mean if value["std"] is None else f"{mean} ± {value['std']:{form}} ({len(value['values'])} seeds)"

    rows = [
        [
            f"{name}, {unit}",
            figure(training[f"val_rmse_{key}"], form),
            figure(test[f"rmse_{key}"], form),
            spread(test["of_all_seeds"][f"rmse_{key}"], form),
        ]
        for name, key, unit, form in figures
    ]
    return tabulate(
        rows,
        ["RMSE", "validation", "test", "test, mean ± standard deviation"],
        tablefmt="github",
        disable_numparse=True,
    )


def _as_trained(card: Mapping[str, Any]) -> list[str]:
    if "precision" not in card["model"]:
        return []
    model, before = card["model"], card["model"]["in_pytorch"]
    return [
        f"These are the errors of `model.onnx`, which computes in {model['precision']}. As it was trained, before the "
        f"conversion, the network had {before['val_rmse_speed_mm_s']:.1f} mm/s and {before['val_rmse_power_w']:.2f} W "
        "on the validation clips.",
        "",
    ]


def _latency(card: Mapping[str, Any]) -> str:
    rows = [
        [
            device,
            *(entry[key] for key in ("batch_size", "latency_p50_ms", "latency_p99_ms", "peak_memory_mb")),
            f"{about['provider'].removesuffix('ExecutionProvider')}, threads: {about['threads']}",
        ]
        for device, about in card["devices"].items()
        for entry in about["measurements"]
    ]
    heads = ["device", "batch", "p50 ms", "p99 ms", "memory MB", "by"]
    return tabulate(rows, heads, tablefmt="github", floatfmt=".4g", missingval="-")


def _device(name: str, fingerprint: Mapping[str, Any]) -> str:
    told = (fingerprint["board"], fingerprint["cpu_model"], f"{fingerprint['cores']} cores", fingerprint["arch"])
    return f"`{name}`: {', '.join(word for word in told if word)}, onnxruntime {fingerprint['onnxruntime']}."
