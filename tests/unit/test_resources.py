import subprocess
import sys

import pytest

from edgeloop import resources
from edgeloop.models import registry

SMALL = {"parameters": 1_000, "macs": 10**6, "activations": 10**4, "batch_size": 32}
LARGE = {"parameters": 28_000_000, "macs": 44 * 10**9, "activations": 10**8, "batch_size": 8}
ONE = {"clips": 10_000, "epochs": 10, "threads": 1, "processes": 1, "gpus": 0, "at_once": 1}


def test_a_larger_network_is_given_more_memory_and_time():
    small, large = (resources.training_demand([size], **ONE) for size in (SMALL, LARGE))
    assert large.mem_mb > 2 * small.mem_mb and large.runtime_min > 10 * small.runtime_min


def test_the_time_of_a_training_follows_from_its_arithmetic():
    usual = resources.USUAL["train"].runtime_min
    # 6 operations per multiply-accumulate and clip, forth and back, at 5 GFLOP/s, and as much again to be safe.
    expected = 2 * 6 * LARGE["macs"] * 10_000 * 10 / 5e9 / 60
    assert resources.training_demand([LARGE], **ONE).runtime_min == pytest.approx(usual + expected, abs=1)


def test_gpus_shorten_the_time_and_spare_the_memory_of_the_host():
    on_gpus = resources.training_demand([LARGE], **ONE | {"gpus": 4, "processes": 4})
    on_cpu = resources.training_demand([LARGE], **ONE)
    assert on_gpus.runtime_min < on_cpu.runtime_min / 50
    assert on_gpus.mem_mb == 4 * resources.USUAL["train"].mem_mb


def test_a_pack_needs_the_memory_of_those_side_by_side_and_the_time_of_all():
    one = resources.training_demand([LARGE], **ONE)
    four = resources.training_demand([LARGE] * 4, **ONE | {"at_once": 2})
    usual = resources.USUAL["train"]
    assert four.mem_mb - usual.mem_mb == pytest.approx(2 * (one.mem_mb - usual.mem_mb), rel=0.01)
    assert four.runtime_min - usual.runtime_min == pytest.approx(2 * (one.runtime_min - usual.runtime_min), rel=0.01)


def test_an_export_that_converts_has_the_time_to_validate_anew():
    sizes = [LARGE | {"precision": precision} for precision in ("fp32", "int8")]
    plain, both = (resources.export_demand(part, validation_clips=1000) for part in (sizes[:1] * 2, sizes))
    assert both.runtime_min - plain.runtime_min == pytest.approx(2 * 2 * LARGE["macs"] * 1000 / 5e9 / 60, abs=1)
    assert both.mem_mb == plain.mem_mb


def test_memory_and_time_double_with_each_attempt_up_to_what_there_is():
    assert [resources.memory_mb(4000, None, attempt, 4) for attempt in (1, 2, 3)] == [4000, 8000, 16000]
    assert [resources.memory_mb(4000, 10_000, attempt, 4) for attempt in (1, 2, 3)] == [4000, 8000, 10_000]
    assert [resources.runtime_min(30, 100, attempt) for attempt in (1, 2, 3)] == [30, 60, 100]


def test_the_last_attempt_has_room_to_say_why_it_gives_up():
    assert [resources.memory_mb(50, None, attempt, 4) for attempt in (3, 4)] == [200, resources.LAST_MB]
    assert resources.memory_mb(50, None, 1, 1) == 50


def test_a_training_takes_whole_nodes_or_a_part_of_one():
    assert [resources.nodes(gpus, 4) for gpus in (0, 1, 4, 8)] == [1, 1, 1, 2]
    assert resources.nodes(4, 0) == 1
    with pytest.raises(ValueError, match=r"'training\.gpus' is 6, but a node has 4"):
        resources.nodes(6, 4)


@pytest.mark.parametrize(
    "architecture",
    [
        {"family": "conv2d", "widths": [16, 32, 64]},
        {"family": "conv3d", "widths": [4, 8]},
        {"family": "swin3d", "frames": 4, "pixels": 32, "embed": 12, "depths": [1, 1], "heads": [3, 6]},
        {"family": "moments", "frames": 8, "stem_stride": 2},
        {"family": "motion", "frames": 4, "stem_stride": 2, "frequencies": 8, "background": "local"},
    ],
    ids=lambda architecture: architecture["family"],
)
def test_a_size_is_that_of_the_network_without_building_it(architecture):
    size = registry.size(architecture)
    model = registry.build(architecture)
    assert {"parameters": size["parameters"], "macs": size["macs"]} == registry.count(model, architecture)
    assert size["activations"] > 0


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_a_network_can_be_built_in_a_process_that_began_with_a_size(family):
    swin = {"pixels": 32, "embed": 12, "depths": [1], "heads": [3]}
    genes = {"swin3d": swin, "moments": {}, "motion": {}}.get(family, {"widths": [4, 8]})
    # In a process of its own: here the families may have been imported already.
    code = "registry.size(network); registry.count(registry.build(network), network)"
    code = f"from edgeloop.models import registry; network = { ({'family': family, **genes})!r}; {code}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_more_frames_put_out_more():
    few, many = (registry.size({"family": "conv3d", "widths": [4, 8], "frames": n})["activations"] for n in (4, 16))
    assert many > 2 * few
