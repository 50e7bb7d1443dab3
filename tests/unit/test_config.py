"""Wrong configurations: each is refused before any job starts, with a message that says what to do."""

import copy
from pathlib import Path

import pytest

from edge import Device
from edgeloop import config as configuration
from edgeloop import yamlfile

ROOT = Path(__file__).parents[2]
SCHEMA = yamlfile.load(ROOT / "workflow/schemas/config.schema.yaml").value


def check(config):
    configuration.complete(config, SCHEMA)
    configuration.check(config, [ROOT], Device.from_config)


@pytest.fixture
def good():
    return copy.deepcopy(yamlfile.load(ROOT / "tests/configs/tiny.yaml").value)


def set_key(config, key, value):
    *path, last = key.split("/")
    for part in path:
        config = config.setdefault(part, {})
    config[last] = value


@pytest.mark.parametrize("file", ["config/config.yaml", "tests/configs/tiny.yaml"])
def test_a_delivered_configuration_is_good(file):
    check(yamlfile.load(ROOT / file).value)


def test_a_configuration_of_space_and_device_alone_is_completed_with_defaults():
    config = {"space": "config/spaces/demo.yaml", "devices": {"here": {"transport": "local", "budget_ms": 1}}}
    check(config)
    assert config["search"]["strategy"] == "gp-ehvi"
    assert config["dataset"]["split"]["validation"] == {"share": 0.2, "by": "layer"}


SSH = {"transport": "ssh", "host": "jetson", "budget_ms": 1.0}
SWIN = {"family": "swin3d", "embed": 24, "heads": [3, 6], "depths": [1, 1]}

WRONG = [
    ("serach", {"seed": 1}, "unknown key 'serach' in the configuration; did you mean 'search'?"),
    ("search/generation_sise", 4, "unknown key 'generation_sise' in 'search'; did you mean 'generation_size'?"),
    ("search/seed", "one", "'search.seed' is 'one': expected integer"),
    ("search/seed", -1, "'search.seed' is -1: expected at least 0"),
    ("search/patience", 0, "'search.patience' is 0: expected at least 1"),
    ("search/max_generations", 2.5, "'search.max_generations' is 2.5: expected integer"),
    (
        "search/strategy",
        "evolutoin",
        "'search.strategy': unknown strategy 'evolutoin'; expected one of evolution, gp-ehvi, ",
    ),
    (
        "search/options",
        {"childen": 300},
        "unknown key 'childen' in 'search.options' of gp-ehvi; did you mean 'children'?",
    ),
    (
        "search/objectives",
        ["val_rmse", "latency_ms", "peak_memory_mb"],
        "'search.objectives' has peak_memory_mb, but 'devices.this-machine' has no budget_memory_mb",
    ),
    (
        "search/objectives",
        ["val_rmse", "energy_mj_per_inference"],
        "'search.objectives' has energy_mj_per_inference, but 'devices.this-machine' has no budget_energy_mj",
    ),
    ("search/feasible_on", ["jetson"], "'search.feasible_on' names jetson; the devices are this-machine"),
    (
        "search/objective_device",
        "jetson",
        "'search.objective_device' is 'jetson': expected one of this-machine, worst",
    ),
    ("devices/worst", {"transport": "local", "budget_ms": 1}, "'devices.worst': the name stands for all devices"),
    ("search/objectives", ["latency_ms", "val_rmse"], "'search.objectives.0' is 'latency_ms'"),
    ("search/warm_start", ["nowhere.zip"], "'search.warm_start': there is no nowhere.zip"),
    ("search/generation_size", 5, "'search.generation_size' is 5, more than 'screening.pool', 4"),
    ("search/halving", {"epochs": [2, 1]}, "'search.halving.epochs' is [2, 1], with 'training.epochs' at 1: expected"),
    ("search/halving", {"epochs": [1]}, "'search.halving.epochs' is [1], with 'training.epochs' at 1: expected"),
    ("search/halving", {"factor": 1}, "'search.halving.factor' is 1: expected at least 2"),
    ("training/early_stopping", {"after": [0.3]}, "'training.early_stopping': after has 1 values and above 0"),
    ("training/early_stopping", {"after": [1]}, "'training.early_stopping.after.0' is 1: expected less than 1"),
    ("screening/pool", -4, "'screening.pool' is -4: expected at least 0"),
    ("space", "config/spaces/nowhere.yaml", "'space': there is no file config/spaces/nowhere.yaml"),
    ("space", None, "'space' is None: expected string"),
    ("devices", {}, "'devices' is {}: expected at least one entry"),
    ("devices", None, "'devices' is None: expected object"),
    ("devices/my device", {"transport": "local", "budget_ms": 1}, "'my device'"),
    ("devices/this-machine/budget_ms", -0.5, "'devices.this-machine.budget_ms' is -0.5: expected more than 0"),
    (
        "devices/this-machine/transport",
        "telnet",
        "'devices.this-machine.transport' is 'telnet': expected one of local, ssh",
    ),
    (
        "devices/jetson",
        {"transport": "ssh", "budget_ms": 1},
        "device 'jetson': host is None; expected the name or address of the device",
    ),
    ("devices/jetson", {"transport": "ssh", "host": "jetson"}, "'devices.jetson' lacks the key budget_ms"),
    ("devices/jetson", SSH | {"port": 99999}, "device 'jetson': port is 99999; expected a port from 1 to 65535"),
    ("devices/jetson", SSH | {"password": "secret"}, "device 'jetson': unknown key 'password'"),
    ("dataset/source", "raise", "'dataset.source' is 'raise': expected one of simulate, raise-lpbf"),
    ("dataset/source", "raise-lpbf", "'dataset.path' is missing: source raise-lpbf needs an HDF5 file"),
    ("dataset/path", "C027.h5", "'dataset.path' is for source raise-lpbf only"),
    ("dataset/simulate/preset", "hard", "'dataset.simulate.preset' is 'hard': expected one of clear, realistic"),
    (
        "dataset/simulate/parameters",
        {"flickr": 1},
        "unknown key 'flickr' in 'dataset.simulate.parameters'; did you mean 'flicker'?",
    ),
    ("dataset/simulate/min_frames", 50, "'dataset.simulate.min_frames' is 50, above max_frames, 24"),
    ("dataset/simulate/frame_px", 32, "'dataset.simulate.frame_px' is 32: expected at least 48"),
    (
        "dataset/split/test",
        {"objects": ["S009"]},
        "'dataset.split.test.objects' names S009; the simulated objects are S001, S002, S003",
    ),
    ("dataset/split/validation", {"objects": ["S003"]}, "S003 cannot be for validation and for the test at once"),
    ("dataset/split/validation", {"share": 1.5, "by": "layer"}, "'dataset.split.validation'"),
    ("dataset/split/validation", {"share": 0.2, "by": "line"}, "'dataset.split.validation'"),
    ("dataset/lit_threshold", 300, "'dataset.lit_threshold' is 300: expected at most 254"),
    ("training/epochs", 0, "'training.epochs' is 0: expected at least 1"),
    ("training/device", "tpu", "'training.device' is 'tpu': expected one of auto, cpu, cuda"),
    ("training/pack", 0, "'training.pack' is 0: expected at least 1"),
    ("training/gpus", -1, "'training.gpus' is -1: expected at least 0"),
    ("resources", {"trian": {"mem_mb": 1}}, "'resources' is 'trian': expected one of simulate, prepare, predict,"),
    ("resources", {"train": {"memory": 1}}, "unknown key 'memory' in 'resources.train'"),
    ("resources", {"train": {"mem_mb": "4 GB"}}, "'resources.train.mem_mb' is '4 GB'"),
    ("cluster/gpus_per_node", "four", "'cluster.gpus_per_node' is 'four': expected integer"),
    ("measurement/min_s", 9.0, "'measurement.min_s' is 9.0, above max_s, 0.1"),
    ("baselines/by-hand/architecture/family", "conv4d", "'baselines.by-hand': family 'conv4d' is unknown"),
    ("baselines/by-hand/architecture/kernel", 4, "'baselines.by-hand': family conv3d: kernel"),
    ("baselines/by-hand/architecture/colour", 1, "'baselines.by-hand': family conv3d has no gene 'colour'"),
    ("baselines/by-hand/training", {}, "'baselines.by-hand': training needs the gene 'lr'"),
    ("baselines/latency-only/architecture", SWIN | {"heads": [5, 10]}, "heads 5 does not divide"),
    ("baselines/latency-only/architecture", SWIN | {"depths": [2]}, "'baselines.latency-only': family swin3d: "),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG])
def test_a_wrong_configuration_is_refused_with_a_message_that_helps(good, key, value, message):
    set_key(good, key, value)
    with pytest.raises(configuration.ConfigError) as refusal:
        check(good)
    assert message in str(refusal.value)


def test_a_path_that_does_not_exist_is_named(good):
    good["dataset"] |= {"source": "raise-lpbf", "path": ["C027.h5", "config/config.yaml"]}
    with pytest.raises(configuration.ConfigError) as refusal:
        check(good)
    assert "'dataset.path': there is no C027.h5" in str(refusal.value)
    assert "config/config.yaml" not in str(refusal.value)


def test_texts_from_the_command_line_count_as_the_numbers_that_they_are(good):
    good["search"]["max_generations"] = "7"
    good["training"]["clips"] = "100"
    good["devices"]["this-machine"]["budget_ms"] = "0.5"
    check(good)
    assert good["search"]["max_generations"] == 7 and good["training"]["clips"] == 100
    assert good["devices"]["this-machine"]["budget_ms"] == 0.5


def test_every_problem_is_told_at_once(good):
    set_key(good, "search/seed", -1)
    set_key(good, "training/epochs", 0)
    with pytest.raises(configuration.ConfigError) as refusal:
        check(good)
    assert str(refusal.value).count("\n  - ") == 2


def test_the_order_of_keys_is_the_schemas_whatever_the_files(good):
    other = dict(reversed([(key, value) for key, value in good.items()]))
    other["dataset"] = dict(reversed(good["dataset"].items()))
    other["dataset"]["simulate"] = dict(reversed(good["dataset"]["simulate"].items()))
    check(good)
    check(other)
    assert repr(good["dataset"]) == repr(other["dataset"]) and repr(good["training"]) == repr(other["training"])
