"""Networks: what they take and give, what they refuse, and that they are what they are called."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgeloop.models import registry
from edgeloop.models.layers import TemporalShift
from edgeloop.models.moments import (
    FEW_FRAMES,
    FLOOR,
    NEAR,
    SHAPES,
    STEADY,
    UNIT_AREA_PX,
    UNIT_PX,
    Masks,
    NormedHead,
    NormedLinear,
    RunningNorm,
    Shape,
    Spread,
    forms,
    monomials,
)
from edgeloop.models.motion import BACKGROUNDS, LIMIT, SHARPNESS, UNEVEN, Glide, Kept, by_lag, in_time
from edgeloop.models.preprocess import (
    MANY_FRAMES,
    MEAN,
    STD,
    Conv2d,
    FirstConv2d,
    FirstConv3d,
    Preprocess,
    standardise_targets,
)

BASELINE = {
    "family": "swin3d",
    "frames": 16,
    "pixels": 224,
    "patch": [2, 4, 4],
    "embed": 96,
    "depths": [2, 2, 6, 2],
    "heads": [3, 6, 12, 24],
    "mlp_ratio": 4,
}
SMALLEST_SWIN = {"family": "swin3d", "embed": 12, "depths": [1, 2], "heads": [3, 6], "mlp_ratio": 1}
SMALL = [
    {"family": "conv2d", "widths": [16, 32, 64]},
    {"family": "conv3d", "widths": [8, 16, 32]},
    {"family": "conv2d", "widths": [8], "pooling": "mean_max"},
    {"family": "conv2d_temporal", "widths": [8, 16], "temporal": "mean", "convolution": "temporal_shift"},
    {"family": "conv2d_temporal", "widths": [8, 16], "temporal": "conv"},
    {"family": "conv2d_temporal", "widths": [8, 16], "temporal": "gru"},
    {"family": "conv2d_temporal", "widths": [8, 16], "temporal": "transformer"},
    {"family": "moments"},
    {"family": "motion"},
    {"family": "motion", "frame_thresholds": 2, "lags": 2, "directed": True, "offsets": True},
    {"family": "motion", "stem_stride": 2, "frequencies": 8, "background": "local"},
    SMALLEST_SWIN,
]
ACTIVATIONS = ["relu", "leaky_relu", "hard_swish", "silu"]
CONVOLUTIONS = ["dense", "separable", "temporal_shift"]
POOLINGS = ["mean", "max", "mean_max", "flatten"]


def clips(n: int, frames: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, frames, 41, 41), dtype=np.uint8)


def name(architecture: dict) -> str:
    return "-".join(str(architecture[key]) for key in ("family", "pooling", "temporal") if key in architecture)


def random_architecture(family: str, rng: np.random.Generator) -> dict:
    def pick(values):
        return values[rng.integers(len(values))]

    common = {"frames": pick([4, 8, 15, 16]), "pixels": pick([24, 33, 40, 41, 48])}
    if family == "swin3d":
        stages = int(rng.integers(1, 4))
        return common | {
            "family": family,
            "patch": [pick([2, 4]) for _ in range(3)],
            "embed": pick([12, 24]),
            "depths": [pick([1, 2]) for _ in range(stages)],
            "heads": [3, 6, 12][:stages],
            "window": pick([[8, 7, 7], [2, 3, 4]]),
            "mlp_ratio": pick([1, 2.5]),
            "head": pick([[], [20], [20, 10]]),
        }
    if family in ("moments", "motion"):
        kind = {"family": family, "thresholds": pick([1, 4, 8]), "activation": pick(ACTIVATIONS)}
        kind |= {"shapes": pick(SHAPES), "frame_thresholds": pick([0, 1, 3])}
        kind["offsets"] = pick([False, True] if kind["thresholds"] > 1 else [False])
        kind["stem_stride"] = pick([1, 2] if common["pixels"] <= 41 else [1])
        if family == "motion":
            kind |= {"lags": pick([1, 2]), "directed": pick([False, True]), "grid": pick([6, 16])}
            kind |= {"lag": pick([1] if kind["lags"] > 1 else [1, 2, 3])}
            kind |= {"frequencies": pick([4, 8, 11]), "pixels": pick([25, 33, 40, 41]), "stem_stride": 1}
            kind |= {"background": pick(BACKGROUNDS)}
            if pick([False, True]):
                kind |= {"frequencies": pick([4, 5]), "stem_stride": 2}
        return common | kind | {"head": pick([[], [16], [16, 8]]), "dropout": pick([0.0, 0.2])}
    stages = int(rng.integers(1, 4))
    common |= {
        "family": family,
        "widths": [int(pick([4, 8, 12])) for _ in range(stages)],
        "depths": [pick([1, 2]) for _ in range(stages)],
        "kernel": pick([3, 5]),
        "stem_stride": pick([1, 2, 3]),
        "activation": pick(ACTIVATIONS),
        "head": pick([[], [16]]),
        "dropout": pick([0.0, 0.2]),
        "convolution": pick(["dense", "separable"]),
        "pooling": pick(POOLINGS),
    }
    if family == "conv3d":
        strides = [pick([1, 2]) for _ in range(stages)]
        kind = {"temporal_strides": strides, "kernel_time": pick([1, 3])}
        return common | kind | {"downsample": pick(["stride", "max_pool"])}
    if family == "conv2d":
        return common
    kind = {"temporal": pick(["mean", "conv", "gru", "transformer"]), "convolution": pick(CONVOLUTIONS)}
    kind |= {"pooling": pick([pooling for pooling in POOLINGS if pooling != "flatten"])}
    return common | kind | {"heads": pick([1, 2, 4]), "layers": pick([1, 2]), "temporal_width": pick([8, 16])}


def test_the_human_designed_baseline_has_28_million_parameters():
    model = registry.build(BASELINE)
    assert sum(p.numel() for p in model.parameters()) == 28_232_336
    head = sum(p.numel() for p in model.head[2:].parameters())
    assert 28_232_336 - head == 28_151_734  # with the paper's 400 outputs and before its last two layers


@pytest.mark.parametrize(
    ("architecture", "parameters", "macs"),
    [
        ({"family": "conv2d", "widths": [16, 32, 64]}, 25_698, 2_237_312),
        ({"family": "conv3d", "widths": [8, 16, 32]}, 17_674, 3_430_144),
    ],
    ids=["conv2d", "conv3d"],
)
def test_parameters_and_multiply_accumulates_are_counted(architecture, parameters, macs):
    model = registry.build(architecture).train()
    assert registry.count(model, architecture) == {"parameters": parameters, "macs": macs}
    assert model.training


@pytest.mark.parametrize("architecture", SMALL, ids=name)
def test_a_network_takes_raw_clips_and_gives_two_targets_for_each(architecture):
    torch.manual_seed(0)
    model = registry.build(architecture).eval()
    x = torch.from_numpy(clips(3, registry.input_frames(architecture)))
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(one[None]) for one in x])
    assert together.shape == (3, 2) and together.dtype == torch.float32
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0


@pytest.mark.parametrize("family", sorted(registry.FAMILIES))
def test_any_point_of_a_family_can_be_built_and_trained_a_step(family):
    rng = np.random.default_rng(7)
    for _ in range(20):
        architecture = random_architecture(family, rng)
        registry.check(architecture)
        model = registry.build(architecture)
        outputs = model(torch.from_numpy(clips(2, registry.input_frames(architecture))))
        outputs.square().mean().backward()
        unused = [key for key, p in model.named_parameters() if p.grad is None]
        assert outputs.shape == (2, 2) and torch.isfinite(outputs).all(), architecture
        assert not unused, (architecture, unused)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"widths": [8]}, "has no family: add one of conv2d"),
        ({"family": "resnet"}, "family 'resnet' is unknown: expected one of conv2d, conv2d_temporal, conv3d, moments"),
        ({"family": "conv2d"}, "family conv2d needs the gene 'widths'"),
        ({"family": "conv2d", "widths": [8], "width": 3}, "family conv2d has no gene 'width': its genes are widths"),
        ({"family": "conv2d", "widths": 8}, "family conv2d: widths is 8: expected a list of whole numbers"),
        ({"family": "conv2d", "widths": [8, "a"]}, r"widths\[1\] is 'a': expected a whole number"),
        ({"family": "conv2d", "widths": [8, 0]}, r"widths\[1\] is 0: expected at least 1"),
        ({"family": "conv2d", "widths": []}, "widths is empty"),
        ({"family": "conv2d", "widths": [8], "frames": True}, "frames is True: expected a whole number"),
        ({"family": "conv2d", "widths": [8], "frames": 17}, "frames is 17: expected at most 16"),
        ({"family": "conv2d", "widths": [8], "kernel": 4}, "kernel 4 is even: expected an odd size, as 3 or 5"),
        (
            {"family": "conv2d", "widths": [8], "convolution": "temporal_shift"},
            "convolution is 'temporal_shift': expected one of 'dense', 'separable'",
        ),
        (
            {"family": "conv2d_temporal", "widths": [1, 8], "convolution": "temporal_shift"},
            r"widths \[1, 8\] has a stage of one channel: expected at least 2",
        ),
        ({"family": "conv2d", "widths": [8], "activation": "tanh"}, "activation is 'tanh': expected one of 'relu'"),
        (
            {"family": "conv2d", "widths": [8, 8], "depths": [1, 1, 1]},
            r"depths \[1, 1, 1\] has 3 values: expected one, or 2",
        ),
        ({"family": "conv3d", "widths": [8], "temporal_strides": [1, 2]}, r"temporal_strides \[1, 2\] has 2 values"),
        (
            {"family": "conv2d_temporal", "widths": [6], "temporal": "transformer"},
            "heads 4 does not divide the last width 6",
        ),
        ({**BASELINE, "embed": 16, "depths": [1], "heads": [3]}, "heads 3 does not divide the width 16 of stage 1"),
        ({**BASELINE, "depths": [1, 1]}, r"depths \[1, 1\] and heads \[3, 6, 12, 24\] differ in length"),
        ({**BASELINE, "patch": [2, 4]}, r"patch has 2 values, \[2, 4\]: expected 3"),
        ({**BASELINE, "frames": 1}, "patch .* is longer than the clip of 1 frames"),
        ({**BASELINE, "pixels": 12}, "leaves nothing to merge for stage 4"),
        ({**BASELINE, "dropout": 1.0}, "dropout is 1.0: expected at most 0.9"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_in_plain_words(architecture, message):
    with pytest.raises(ValueError, match=message):
        registry.check(architecture)


def test_the_space_learns_from_the_registry_what_a_family_needs():
    genes = registry.genes("swin3d")
    assert [key for key, gene in genes.items() if gene.required] == ["embed", "depths", "heads"]
    assert genes["window"].default == (8, 7, 7) and genes["pixels"].limits["maximum"] == 256
    with pytest.raises(ValueError, match="family 'vit' is unknown"):
        registry.genes("vit")


def test_lists_of_a_config_and_tuples_are_the_same_architecture():
    cls = registry.family("conv2d")
    assert cls(widths=[8, 16]) == cls(widths=(8, 16))
    assert hash(cls(widths=[8, 16])) == hash(cls(widths=(8, 16)))


def test_a_network_refuses_clips_of_another_length_or_type():
    model = registry.build({"family": "conv2d", "widths": [8], "frames": 8})
    with pytest.raises(ValueError, match=r"this network expects uint8 \[N, 8, 41, 41\]"):
        model(torch.from_numpy(clips(1, 16)))
    with pytest.raises(ValueError, match=r"the clip is torch.float32"):
        model(torch.zeros(1, 8, 41, 41))


def intensities(counts: torch.Tensor) -> torch.Tensor:
    """The normalisation as it is written in a paper."""
    return ((counts.float() / 255).sqrt() - MEAN) / STD


def test_normalisation_within_the_first_convolution_is_normalisation_before_it():
    torch.manual_seed(0)
    x = torch.from_numpy(clips(2, 4))
    seen, normalised = Preprocess(4, 41)(x), intensities(x)
    flat, deep = FirstConv2d(4, 8, 3), FirstConv3d(1, 8, 3, bias=False)
    expected = functional.conv2d(normalised, flat.weight, flat.bias)
    torch.testing.assert_close(flat(seen), expected, atol=1e-5, rtol=1e-5)
    expected = functional.conv3d(normalised[:, None], deep.weight)
    torch.testing.assert_close(deep(seen[:, None]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [Conv2d, FirstConv2d])
@pytest.mark.parametrize(("channels", "pixels", "stride"), [(12, 52, 2), (4, 64, 2), (8, 64, 4), (16, 41, 3)])
def test_a_strided_convolution_of_one_pixel_learns_what_its_twin_in_double_precision_does(
    layer, channels, pixels, stride
):
    single, double = (layer(channels, 8, 1, stride, bias=False) for _ in range(2))
    double.load_state_dict(single.state_dict())
    x = torch.rand(16, channels, pixels, pixels).contiguous(memory_format=torch.channels_last)
    for network in (single.to(memory_format=torch.channels_last), double.double()):
        network(x.to(network.weight.dtype)).square().mean().backward()

    torch.testing.assert_close(single.weight.grad.double(), double.weight.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(single(x), single.eval()(x))


def test_fewer_pixels_crop_the_centre_and_more_enlarge_it():
    x = torch.zeros(1, 1, 41, 41, dtype=torch.uint8)
    x[0, 0, 20, 20] = 255
    assert Preprocess(1, 21)(x).argmax() == 10 * 21 + 10
    enlarged = Preprocess(1, 123)(x)
    assert enlarged.shape == (1, 1, 123, 123) and enlarged.argmax() == 61 * 123 + 61


@pytest.mark.parametrize("pixels", [41, 25, 40])
@pytest.mark.parametrize("frames", [4, MANY_FRAMES])
def test_of_a_halved_picture_every_second_pixel_is_left_and_blurred_before(frames, pixels):
    halving, x = Preprocess(frames, pixels, stride=2), torch.from_numpy(clips(2, frames))
    first, weights = (41 - pixels) // 2, (0.25, 0.5, 0.25)
    expected = torch.zeros(2, frames, halving.side, halving.side)
    for row in range(halving.side):
        for column in range(halving.side):
            for i in range(3):
                for j in range(3):
                    counts = x[:, :, first + 2 * row + i, first + 2 * column + j]
                    expected[:, :, row, column] += weights[i] * weights[j] * counts
    assert 0 <= pixels - (2 * (halving.side - 1) + 3) < 2  # no more than the last row and column are left out
    for module in (halving.train(), halving.eval()):
        torch.testing.assert_close(module(x), expected.sqrt())


def test_temporal_shift_exchanges_channels_between_neighbouring_frames_of_one_clip():
    x = torch.arange(1.0, 1 + 2 * 3 * 16).reshape(2 * 3, 16, 1, 1)
    shifted = TemporalShift(frames=3, channels=16)(x).reshape(2, 3, 16)
    x = x.reshape(2, 3, 16)
    for clip in range(2):
        for frame in range(3):
            before = x[clip, frame - 1, :2] if frame > 0 else torch.zeros(2)
            after = x[clip, frame + 1, 2:4] if frame < 2 else torch.zeros(2)
            expected = torch.cat([before, after, x[clip, frame, 4:]])
            torch.testing.assert_close(shifted[clip, frame], expected, atol=0, rtol=0)


def blob(length: float, width: float, degrees: float, side: int = 41) -> torch.Tensor:
    """A mask [side * side], Gaussian along and across a direction, with these standard deviations in pixels."""
    y, x = torch.meshgrid(*2 * [torch.arange(float(side)) - (side - 1) / 2], indexing="ij")
    angle = torch.deg2rad(torch.tensor(degrees))
    along = (x - 2) * angle.cos() + (y + 1) * angle.sin()
    across = (y + 1) * angle.cos() - (x - 2) * angle.sin()
    return torch.exp(-((along / length) ** 2 + (across / width) ** 2) / 2).flatten()


def area_and_variances(mask: torch.Tensor, pitch: float = 1.0) -> torch.Tensor:
    """Of a mask [side * side], by way of what the network computes: in the camera's pixels, the longer direction
    first."""
    (squares,) = forms(mask @ monomials(round(len(mask) ** 0.5), pitch))
    return torch.cat([squares[:1].sqrt() * UNIT_AREA_PX, squares[1:] / squares[0] * UNIT_PX**2])


@pytest.mark.parametrize("degrees", [0.0, 20.0, 45.0, 90.0, 130.0])
def test_area_length_and_width_of_a_mask_do_not_depend_on_its_direction_and_place(degrees):
    area, along, across = area_and_variances(blob(4, 2, degrees)).tolist()
    assert area == pytest.approx(2 * torch.pi * 4 * 2, rel=1e-3)
    assert along == pytest.approx(4**2, rel=2e-3)
    assert across == pytest.approx(2**2, rel=3e-2)  # where rounding ends is added to it, see ROUND


def test_lengths_are_those_of_the_camera_however_the_picture_was_cut_or_enlarged():
    native, cut, enlarged = (
        area_and_variances(blob(size, size / 2, 30.0, side), Preprocess(1, side).pitch)
        for size, side in ((2, 41), (2, 25), (4, 82))
    )
    torch.testing.assert_close(native, cut, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(native, enlarged, rtol=3e-3, atol=1e-2)


def test_lengths_are_those_of_the_camera_where_every_second_pixel_is_left():
    halving = Preprocess(1, 41, stride=2)
    native, halved = area_and_variances(blob(4, 2, 30.0)), blob(2, 1, 30.0, halving.side)
    torch.testing.assert_close(native, area_and_variances(halved, halving.pitch), rtol=3e-3, atol=1e-2)


def plain_masks(masks: Masks, picture: torch.Tensor) -> torch.Tensor:
    """[thresholds, pixels * pixels] of a picture [pixels * pixels], as they are defined."""
    levels = masks.slope[:, None] * (picture - masks.threshold[:, None])
    return (levels / 6 + 0.5).clamp(0, 1)


def plain_logs(masks: Masks, picture: torch.Tensor) -> torch.Tensor:
    """[thresholds, 3] of a picture [pixels * pixels], as they are defined."""
    return (forms(plain_masks(masks, picture) @ monomials(round(len(picture) ** 0.5))) + FLOOR).log()


def plain_offsets(masks: Masks, picture: torch.Tensor) -> torch.Tensor:
    """[thresholds - 1] of a picture of few pixels [pixels * pixels], as they are defined."""
    side = round(len(picture) ** 0.5)
    place = torch.arange(len(picture))
    weights = plain_masks(masks, picture) / UNIT_AREA_PX
    middles = [
        (weights * (where - (side - 1) / 2) / UNIT_PX).sum(1) / (weights.sum(1) + FLOOR)
        for where in (place % side, place // side)
    ]
    return (torch.hypot(*(middle.diff() for middle in middles)) + NEAR).log()


def plain_features(shape: Shape, frames: torch.Tensor) -> torch.Tensor:
    """What `shape` has of the frames [frames, pixels * pixels] of one clip, as it is defined."""
    change = (frames - frames.mean(0)).square().mean(0).sqrt()
    found = [plain_logs(shape.of_mean, frames.mean(0))]
    if shape.of_change is not None:
        found.append(plain_logs(shape.of_change, change))
    if shape.of_frames is not None:
        each = torch.stack([plain_logs(shape.of_frames, frame) for frame in frames])
        found += [each.mean(0), ((each.diff(dim=0).square().mean(0) / 2).sqrt() + STEADY).log()]
    if shape.neighbours is not None:
        found.append(plain_offsets(shape.of_mean, frames.mean(0)))
    return torch.cat([part.flatten() for part in found])


def test_what_is_steady_but_for_rounding_is_the_same_in_single_and_double_precision():
    torch.manual_seed(0)
    # Frames that are all but alike: their masks differ by rounding, and by little more.
    x = 8 * torch.rand(64, 1, 400) + 1e-3 * torch.rand(64, 4, 400)
    single = Shape(4, 20, 2, False, 4).eval()
    double = copy.deepcopy(single).double()
    apart = Spread(4)(x)
    with torch.no_grad():
        found, expected = single(x, apart).features, double(x.double(), apart.double()).features
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=4e-5)


@pytest.mark.parametrize("frames", [4, FEW_FRAMES + 1])
@pytest.mark.parametrize("frame_thresholds", [0, 1, 3])
@pytest.mark.parametrize(("change", "offsets"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_shape_is_that_of_the_pictures_in_training_and_after(change, offsets, frame_thresholds, frames):
    torch.manual_seed(0)
    shape, x = Shape(frames, 20, 3, change, frame_thresholds, offsets), 15 * torch.rand(2, frames, 400)
    with torch.no_grad():
        for parameter in shape.parameters():  # each mask with levels of its own
            parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
        expected = torch.stack([plain_features(shape, clip) for clip in x])
        assert expected.shape == (2, shape.features)
        of_mean = (shape.of_mean(x.mean(1, keepdim=True)) / 6 + 0.5).clamp(0, 1)
        for part in shape, shape.eval():
            outline = part(x, Spread(frames).train(part.training)(x))
            torch.testing.assert_close(outline.features, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(outline.masks[:, :3], of_mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(outline.sums, of_mean @ monomials(20), rtol=1e-4, atol=1e-4)


def test_a_pool_that_trails_has_offsets_and_one_that_is_turned_has_the_same():
    shape = Shape(1, 41, 2, False, 0, offsets=True)
    place = torch.arange(41.0) - 20
    along, across = place, place[:, None]
    # Bright at its head, and dark far behind.
    trailing = 14 * torch.exp(-(across**2) / 20 - torch.where(along > 0, along / 2, -along / 8).abs())
    still = 14 * torch.exp(-(across**2) / 20 - along.abs() / 5)
    of_trailing, of_turned, of_still = (
        shape(picture.flatten()[None, None], torch.zeros(1, 1, 41 * 41)).features[0, -1]
        for picture in (trailing, trailing.T.contiguous(), still)
    )
    torch.testing.assert_close(of_trailing, of_turned)
    assert of_trailing > of_still + 1
    assert of_still.item() == pytest.approx(math.log(NEAR), abs=0.01)


def test_the_middle_of_a_mask_is_where_its_pixels_are():
    shape = Shape(2, 20, 1, False, 0)
    picture = torch.zeros(20, 20)
    picture[3, 12:15] = 15
    x = picture.flatten().expand(1, 2, -1)
    right, down = (shape(x, x).centroids()[0, 0] * UNIT_PX).tolist()
    assert right == pytest.approx(13 - 9.5, rel=2e-2) and down == pytest.approx(3 - 9.5, rel=2e-2)


def gliding(px: float, degrees: float) -> torch.Tensor:
    """[1, 8, 41, 41] of sqrt(counts): waves of all directions, which glide; a blob, which stays; noise."""
    rng = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
    angle = torch.deg2rad(torch.tensor(degrees))
    waves = torch.randint(-8, 9, (200, 2), generator=rng) * 2 * torch.pi / 41
    phases = 2 * torch.pi * torch.rand(200, generator=rng)
    frames = []
    for frame in range(8):
        row, column = y + px * frame * angle.sin(), x + px * frame * angle.cos()
        texture = torch.cos(row[..., None] * waves[:, 0] + column[..., None] * waves[:, 1] + phases).sum(-1) / 10
        frames.append(5 + texture + 10 * blob(4, 2, degrees).view(41, 41) + 0.2 * torch.randn(41, 41, generator=rng))
    return torch.stack(frames)[None]


def glided(
    glide: Glide, clip: torch.Tensor, expected: torch.Tensor | None = None, seen: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """How likely distances are, and their mean, in a clip of which nothing is expected, or what the logits
    [1, grid or 2 * grid * axes] say; all pixels count alike, or as `seen` [41, 41] says."""
    apart = Spread(clip.shape[1]).train(glide.training)(clip.flatten(2))
    with torch.no_grad():
        likely = glide(
            apart,
            torch.ones(1, 1, 1) if seen is None else seen.view(1, 1, -1),
            torch.zeros(1, glide.grid) if expected is None else expected,
        )
    return likely, likely @ glide.distances


@pytest.mark.parametrize("degrees", [0.0, 37.0, 90.0, 200.0, 310.0])
@pytest.mark.parametrize(("lag", "lags", "px"), [(1, 1, 2.4), (2, 1, 4.5), (1, 3, 3.1)])
def test_a_texture_that_glides_is_found_at_its_distance_in_any_direction(lag, lags, px, degrees):
    clip, glide = gliding(px, degrees), Glide(8, 41, lag, lags, 8)
    likely, distance = glided(glide, clip)
    spacing = (glide.distances[1] - glide.distances[0]).item()
    assert glide.distances[likely.argmax()].item() == pytest.approx(px, abs=spacing)
    assert distance.item() == pytest.approx(px, abs=0.35)
    for trained, before in zip(glided(glide.eval(), clip), (likely, distance), strict=True):
        torch.testing.assert_close(trained, before)


@pytest.mark.parametrize("degrees", [0.0, 37.0, 200.0])
@pytest.mark.parametrize(("lag", "lags", "px"), [(1, 1, 2.4), (2, 1, 4.5), (1, 3, 3.1)])
def test_a_texture_of_which_every_second_pixel_is_left_is_found_at_the_cameras_distance(lag, lags, px, degrees):
    halving = Preprocess(8, 41, stride=2)
    glide = Glide(8, halving.side, lag, lags, 8, pitch=halving.pitch)
    counts = gliding(px, degrees).square()
    likely, distance = glided(glide, halving.halved(counts).sqrt())
    spacing = (glide.distances[1] - glide.distances[0]).item()
    assert glide.distances[likely.argmax()].item() == pytest.approx(px, abs=spacing)
    assert distance.item() == pytest.approx(px, abs=0.35)


@pytest.mark.parametrize("pitch", [1.0, 2.0])
@pytest.mark.parametrize(("lag", "lags"), [(1, 1), (1, 2), (2, 1)])
def test_how_likely_a_distance_is_comes_from_the_correlation_by_its_definition(lag, lags, pitch):
    frames, pixels, frequencies = 3, 20, 4
    glide = Glide(frames, pixels, lag, lags, frequencies, grid=8, pitch=pitch)
    apart = 0.1 * torch.randn(1, frames, pixels * pixels, generator=torch.Generator().manual_seed(0))
    x = apart.clamp(-LIMIT / frames**0.5, LIMIT / frames**0.5).view(frames, pixels, pixels)
    wave = torch.arange(-frequencies, frequencies + 1)
    spectrum = torch.fft.fft2(x)[:, wave][:, :, wave] / pixels
    angles = math.pi * torch.arange(2 * glide.axes) / glide.axes
    correlation = torch.zeros(glide.grid, len(angles))
    for times in range(1, lags + 1):
        product = (spectrum[: -times * lag] * spectrum[times * lag :].conj()).sum(0)
        distances = times * lag * glide.distances[:, :1, None, None] / pitch
        down, right = (distances * of(angles)[None, :, None, None] for of in (torch.sin, torch.cos))
        phase = 2 * math.pi / pixels * (wave[:, None] * down + wave * right)
        correlation += (product * torch.exp(-1j * phase)).real.sum((2, 3))
    expected = (SHARPNESS * pitch**2 * frames / LIMIT**2 * correlation.amax(1)).softmax(0)
    with torch.no_grad():
        likely = glide(apart, torch.ones(1, 1, 1), torch.zeros(1, glide.grid))
    torch.testing.assert_close(likely[0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("frames", "lags"), [(4, [1]), (4, [1, 2, 3]), (16, [3, 6]), (7, [6])])
def test_products_of_frames_with_later_ones_come_from_their_power_spectrum(frames, lags):
    waves, bins = torch.randn(frames, 5, dtype=torch.complex64), frames + lags[-1]
    products = torch.stack([(waves[:-lag].conj() * waves[lag:]).sum(0) for lag in lags])
    expected = torch.stack([products.real, products.imag, products.real, -products.imag])
    parts = torch.view_as_real(waves).transpose(1, 2).flatten(0, 1)
    found = by_lag(lags, bins) @ (in_time(frames, bins) @ parts).square()
    torch.testing.assert_close(found.view_as(expected), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "pitch", "reach"), [(33, 1.0, 3), (20, 2.0, 1)])
def test_what_is_kept_of_the_mean_is_how_far_it_is_from_its_surroundings_but_at_the_border(side, pitch, reach):
    kept, x = Kept(4, side, pitch), 0.4 * torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0))
    mean, expected = x.mean(1), torch.zeros(2, side, side)
    for row in range(reach, side - reach):
        for column in range(reach, side - reach):
            around = mean[:, row - reach : row + reach + 1, column - reach : column + reach + 1].mean((1, 2))
            expected[:, row, column] = (mean[:, row, column] - around).clamp(-UNEVEN, UNEVEN)
    assert (expected.abs() == UNEVEN).any()
    for module in (kept.train(), kept.eval()):  # as Spread has it, over the square root of the number of frames
        torch.testing.assert_close(module(x.flatten(2)).view_as(expected), expected / 2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [4, FEW_FRAMES + 1])
def test_a_motion_network_gives_the_same_in_training_and_after(frames, stride):
    torch.manual_seed(0)
    genes = {"frames": frames, "shapes": "mean_and_change", "frame_thresholds": 2, "background": "local"}
    genes |= {"stem_stride": stride, "frequencies": 8}
    network, taken = registry.build({"family": "motion", **genes}), torch.from_numpy(clips(3, frames))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for norm in network.modules():
            if isinstance(norm, RunningNorm):
                norm.momentum = 0.0  # leaves the statistics as they are
        torch.testing.assert_close(network.eval()(taken), network.train()(taken), rtol=1e-4, atol=1e-4)
        # How much a pixel counts is for the masks of the mean to say, whatever others come with them.
        masks = torch.rand(3, 12, 41 * 41)
        torch.testing.assert_close(network.eval().counted(masks), network.train().counted(masks[:, :8]))


def test_droplets_that_fly_past_do_not_hide_how_far_the_texture_has_come():
    clip, glide = gliding(2.4, 30.0), Glide(8, 41, 1, 1, 8)
    for frame in range(8):
        for row in range(1, 38, 8):
            clip[0, frame, row : row + 3, 5 + 4 * frame : 8 + 4 * frame] += 30
    _, distance = glided(glide, clip)
    assert distance.item() == pytest.approx(2.4, abs=0.35)


def test_of_peaks_as_high_as_each_other_that_one_counts_which_is_expected():
    glide, near, far = Glide(8, 41, 1, 1, 8), 1.5, 4.5
    both = gliding(near, 30.0) + gliding(far, 30.0)
    distances = glide.distances[:, 0]
    for px in (near, far):
        _, distance = glided(glide, both, -100 * (distances - px).square()[None])
        assert distance.item() == pytest.approx(px, abs=0.35)


def test_of_two_directions_that_one_counts_which_is_expected():
    glide = Glide(8, 41, 1, 1, 8)
    # Waves that are read ever further to the right go to the left.
    both = gliding(1.5, 45.0) + gliding(4.5, 135.0)
    for px, degrees in ((1.5, 225), (4.5, 315)):
        expected = torch.full((1, 2, glide.grid, glide.axes), -100.0)
        expected[:, degrees // 180, :, glide.axes * (degrees % 180) // 180] = 0
        assert glided(glide, both, expected.flatten(1))[1].item() == pytest.approx(px, abs=0.35)


def test_what_is_not_to_be_seen_does_not_count():
    glide, left = Glide(8, 41, 1, 1, 8), torch.zeros(41, 41)
    left[:, :20] = 1
    clip = gliding(1.5, 90.0)
    clip[..., 20:] = gliding(4.5, 90.0)[..., 20:]
    for px, seen in ((1.5, left), (4.5, 1 - left)):
        assert glided(glide, clip, seen=seen)[1].item() == pytest.approx(px, abs=0.35)


def test_what_stands_still_has_no_motion():
    clip = (10 * blob(4, 2, 30.0).view(1, 1, 41, 41) + 5).repeat(1, 8, 1, 1)
    likely, _ = glided(Glide(8, 41, 2, 1, 8), clip)
    torch.testing.assert_close(likely, torch.full_like(likely, 1 / likely.shape[1]))


@pytest.mark.parametrize(
    ("genes", "words"),
    [
        ({"frames": 4, "lag": 4}, "lag is 4 and lags 1: expected a product below the 4 frames"),
        ({"frames": 6, "lag": 2, "lags": 3}, "lag is 2 and lags 3: expected a product below the 6 frames"),
        ({"pixels": 64}, "pixels is 64: expected at most 41"),
        ({"pixels": 20, "frequencies": 10}, "frequencies is 10: expected less than half of the 20 pixels a side"),
        ({"pixels": 41, "frequencies": 10, "stem_stride": 2}, "frequencies is 10: expected less than half of the 20 "),
        ({"pixels": 64, "stem_stride": 2}, "stem_stride is 2 and pixels 64: expected at most 41 pixels"),
        ({"offsets": True, "thresholds": 1}, "offsets is true and thresholds 1: expected at least two masks"),
        ({"pixels": 20, "frequencies": 8, "lag": 7}, "pixels 20 have no room for a motion of 7 frames"),
    ],
)
def test_genes_of_motion_that_do_not_go_together_are_refused(genes, words):
    with pytest.raises(ValueError, match=words):
        registry.check({"family": "motion", **genes})


def test_a_norm_of_running_statistics_computes_the_same_in_training_and_after():
    torch.manual_seed(0)
    norm, x = RunningNorm(3), torch.randn(64, 3) * 5 + 2
    for _ in range(100):
        trained = norm(x)
    torch.testing.assert_close(norm.eval()(x), trained)
    assert trained.mean(0).abs().max() < 1e-2 and (trained.std(0) - 1).abs().max() < 1e-2


@pytest.mark.parametrize(("hidden", "dropout"), [((5, 4), 0.0), ((5,), 0.3), ((), 0.0), ((), 0.3)])
def test_a_norm_that_is_part_of_the_first_dense_layer_computes_the_same(hidden, dropout):
    torch.manual_seed(0)
    x = torch.randn(64, 3) * 5 + 2
    both = NormedHead(3, hidden, "relu", dropout)
    both(x)  # so that there are statistics
    both.eval()
    torch.testing.assert_close(both(x), both.head(both.norm(x)))


def test_a_norm_that_is_part_of_a_dense_layer_computes_the_same():
    torch.manual_seed(0)
    layer, x = NormedLinear(3, 4), torch.randn(64, 3) * 5 + 2
    for _ in range(100):
        trained = layer(x)
    torch.testing.assert_close(layer.eval()(x), trained)


def test_an_untouched_head_predicts_around_the_targets_of_the_training_split():
    model = registry.build({"family": "conv2d", "widths": [8]}).eval()
    x = torch.from_numpy(clips(2))
    with torch.no_grad():
        standardise_targets(model, torch.zeros(2), torch.ones(2))
        standard = model(x)
        standardise_targets(model, torch.tensor([1.1, 0.9]), torch.tensor([0.4, 0.2]))
        torch.testing.assert_close(model(x), standard * torch.tensor([0.4, 0.2]) + torch.tensor([1.1, 0.9]))
