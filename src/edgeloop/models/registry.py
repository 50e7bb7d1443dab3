"""Families of networks by name. A new family is one file and one line here."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgeloop.models.genes import Genes
from edgeloop.models.preprocess import CLIP_PIXELS

FAMILIES: dict[str, str] = {
    "conv2d": "edgeloop.models.conv2d:Conv2d",
    "conv2d_temporal": "edgeloop.models.conv2d_temporal:Conv2dTemporal",
    "conv3d": "edgeloop.models.conv3d:Conv3d",
    "moments": "edgeloop.models.moments:Moments",
    "motion": "edgeloop.models.motion:Motion",
    "swin3d": "edgeloop.models.swin3d:Swin3d",
}


@dataclass(frozen=True)
class Gene:
    """What a space has to know of a gene. `default` is None where the gene is required."""

    required: bool
    default: Any
    kind: Any
    limits: Mapping[str, Any]


def family(name: str) -> type[Genes]:
    """The frozen dataclass whose fields are the genes of the family `name`, imported on demand."""
    if name not in FAMILIES:
        raise ValueError(f"family {name!r} is unknown: expected one of {', '.join(sorted(FAMILIES))}")
    module, _, cls = FAMILIES[name].partition(":")
    return getattr(import_module(module), cls)


def genes(name: str) -> dict[str, Gene]:
    """The genes of the family `name`, in the order of their declaration."""
    return declared(family(name))


def declared(cls: type) -> dict[str, Gene]:
    """The genes that a dataclass declares as its fields, in their order."""
    return {
        f.name: Gene(f.default is MISSING, None if f.default is MISSING else f.default, f.type, f.metadata)
        for f in fields(cls)
    }


def parse(architecture: Mapping[str, Any]) -> Genes:
    """The family's dataclass with the genes of ``{"family": name, gene: value, ...}``.

    Raises ValueError that names the family and the gene: unknown, missing, of a wrong type, out of its
    limits, or not going together with another.
    """
    if "family" not in architecture:
        raise ValueError(f"the architecture {dict(architecture)} has no family: add one of {', '.join(FAMILIES)}")
    name = architecture["family"]
    cls, known = family(name), genes(name)
    given = {key: value for key, value in architecture.items() if key != "family"}
    for key in given:
        if key not in known:
            raise ValueError(f"family {name} has no gene {key!r}: its genes are {', '.join(known)}")
    missing = [key for key, info in known.items() if info.required and key not in given]
    if missing:
        raise ValueError(f"family {name} needs the gene {missing[0]!r}: add it to the architecture")
    try:
        return cls(**given)
    except ValueError as error:
        raise ValueError(f"family {name}: {error}") from error


def check(architecture: Mapping[str, Any]) -> None:
    """Raise ValueError, in plain words, when no network can be built of `architecture`. Builds nothing."""
    parse(architecture)


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """The network: uint8 [N, frames, 41, 41] in, float32 [N, 2] = [speed/900, power/215] out.

    Weights come from PyTorch's global generator: seed it first.
    """
    return parse(architecture).network()


def input_frames(architecture: Mapping[str, Any]) -> int:
    """How many frames, the centre ones of a clip, the network takes."""
    return parse(architecture).frames


def count(model: nn.Module, architecture: Mapping[str, Any]) -> dict[str, int]:
    """Parameters, and multiply-accumulates of one clip (matrix products and convolutions)."""
    device = next(model.parameters()).device
    shape = (1, input_frames(architecture), CLIP_PIXELS, CLIP_PIXELS)
    training, counter = model.training, FlopCounterMode(display=False)
    model.eval()
    with torch.no_grad(), counter:
        model(torch.zeros(shape, dtype=torch.uint8, device=device))
    model.train(training)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "macs": counter.get_total_flops() // 2}


def size(architecture: Mapping[str, Any]) -> dict[str, int]:
    """`count` of a network that is not built in memory, and `activations`: numbers that its layers put out for a clip.

    Deterministic; takes milliseconds, a tenth of a second for the largest Swin.
    """
    # Importing a family's module creates constants that other networks share: those must not be without data.
    genes = parse(architecture)
    with torch.device("meta"):
        model = genes.network()
    activations = 0

    def add(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal activations
        activations += output.numel() if isinstance(output, Tensor) else 0

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(add)
    counts = count(model, architecture)
    return {**counts, "activations": activations}
