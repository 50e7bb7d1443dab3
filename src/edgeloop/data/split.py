"""Which layers serve training, validation and test: whole layers or whole objects, never single scan lines.

Neighbouring scan lines look alike, so a split by line would test on what training has as good as seen.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.data.raw import Layer


def _by_objects(
    name: str, wanted: Sequence[str], layers: Sequence[Layer], lost: Collection[str]
) -> tuple[list[Layer], list[str]]:
    present = {layer.object for layer in layers}
    unknown = sorted(set(wanted) - present - set(lost))
    if unknown:
        raise ValueError(
            f"split.{name}.objects names {', '.join(unknown)}, which no file holds."
            f" Objects found: {', '.join(sorted(present))}."
        )
    messages = [
        f"split.{name}.objects names {object_}, but its file could not be used (see problems)."
        for object_ in sorted(set(wanted) - present)
    ]
    chosen = [layer for layer in layers if layer.object in wanted]
    withheld = sorted({layer.object for layer in chosen if not layer.labelled})
    if withheld:
        messages.append(
            f"split.{name}.objects names {', '.join(withheld)}, whose labels are withheld: nothing to compare with."
        )
    return [layer for layer in chosen if layer.labelled], messages


def _by_share(name: str, share: float, by: str, free: Sequence[Layer], rng: np.random.Generator) -> list[Layer]:
    def unit(layer: Layer) -> tuple[str, ...]:
        return (layer.object,) if by == "object" else (layer.object, layer.name)

    units = sorted({unit(layer) for layer in free})
    if share <= 0 or not units:
        return []
    count = max(1, round(share * len(units)))
    if count >= len(units):
        raise ValueError(
            f"split.{name} takes {share:.0%} of {len(units)} {by}(s), which leaves none for training."
            f" Lower split.{name}.share,"
            f"{' split by layer instead of by object,' if by == 'object' else ''} or add files."
        )
    chosen = {units[i] for i in rng.permutation(len(units))[:count]}
    return [layer for layer in free if unit(layer) in chosen]


def assign(
    layers: Sequence[Layer], split: Mapping[str, Any], seed: int, lost: Collection[str] = ()
) -> tuple[dict[tuple[str, str], str], list[str]]:
    """The split of each (object, layer), and messages for the user; a pure function of its arguments.

    `split` holds a rule for "test" and one for "validation", each ``{"objects": [...]}`` or ``{"share": s,
    "by": "object" | "layer"}``; test is taken first, training is the rest. Layers without labels are
    "unlabelled" whatever the rules say. `lost` are objects that may be named though no layer of theirs could
    be read.

    Raises ValueError for a rule that names an unknown object or leaves nothing to train on.
    """
    rng = np.random.default_rng([seed, 0])
    result = {(layer.object, layer.name): "train" if layer.labelled else "unlabelled" for layer in layers}
    messages: list[str] = []
    named = {object_ for rule in split.values() for object_ in (rule or {}).get("objects", ())}
    for name in ("test", "validation"):
        rule = split.get(name) or {}
        free = [layer for layer in layers if result[layer.object, layer.name] == "train"]
        if "objects" in rule:
            chosen, said = _by_objects(name, rule["objects"], layers, lost)
            messages += said
        else:
            # What another rule names is not up for the draw.
            open_ = [layer for layer in free if layer.object not in named]
            chosen = _by_share(name, rule.get("share", 0), rule.get("by", "layer"), open_, rng)
        taken = {(layer.object, layer.name) for layer in chosen}
        twice = sorted({layer.object for layer in chosen if result[layer.object, layer.name] == "test"})
        if twice:
            raise ValueError(
                f"split.validation.objects names {', '.join(twice)}, which split.test has taken. Name it once."
            )
        result |= dict.fromkeys(taken, name)
    counts = {name: sum(value == name for value in result.values()) for name in ("train", "validation", "test")}
    if sum(counts.values()):
        for name in ("train", "validation"):
            if not counts[name]:
                raise ValueError(
                    f"The {name} split has no layer: {len(layers)} layers of"
                    f" {len({layer.object for layer in layers})} objects,"
                    f" {counts['test']} of them in test and {counts['validation']} in validation. Change split.test or"
                    " split.validation, or add files."
                )
    return result, messages
