"""The schemas in workflow/schemas say what the code says."""

from dataclasses import MISSING, fields
from pathlib import Path

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

from edge import Device
from edgeloop import config

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "workflow/schemas").glob("*.yaml"))
SCHEMAS = {file.name: yaml.safe_load(file.read_text()) for file in FILES}
SPACES = [*sorted((ROOT / "config/spaces").glob("*.yaml")), ROOT / "tests/configs/tiny-space.yaml"]
DEVICE = SCHEMAS["device.schema.yaml"]


def accepts(schema, value):
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def references(part):
    if isinstance(part, dict):
        yield from [part["$ref"]] if "$ref" in part else []
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_and_all_that_it_refers_to_is_there(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    registry = Registry().with_resources((key, Resource.from_contents(schema)) for key, schema in SCHEMAS.items())
    resolver = registry.resolver(base_uri=name)
    for reference in references(SCHEMAS[name]):
        resolver.lookup(reference)


def test_the_device_schema_has_the_keys_and_defaults_of_a_device():
    declared = {field.name: field.default for field in fields(Device) if field.default is not MISSING}
    described = {key: part["default"] for key, part in DEVICE["properties"].items()}
    assert described == {key: list(value) if isinstance(value, tuple) else value for key, value in declared.items()}


SSH = {"transport": "ssh", "host": "jetson"}
ENTRIES = [
    ({}, True),
    ({"transport": "local", "budget_ms": 0.5}, True),
    (SSH | {"gateways": ["me@gate:2222", "inner"], "cpus": [2, 3], "port": 2222}, True),
    ({"transport": "ssh"}, False),
    ({"transport": "local", "host": "jetson"}, False),
    ({"transport": "telnet"}, False),
    ({"budget_ms": -1}, False),
    ({"budget_ms": True}, False),
    (SSH | {"port": 70000}, False),
    (SSH | {"gateways": ["a:b:c"]}, False),
    (SSH | {"password": "secret"}, False),
    ({"providers": ["CPU"]}, False),
    ({"providers": []}, False),
    ({"cpus": []}, False),
    ({"threads": 0}, False),
    ({"lock_file": "edgeloop.lock"}, False),
    ({"deadline_s": 0}, False),
]


@pytest.mark.parametrize(("entry", "good"), ENTRIES, ids=[str(entry) for entry, _ in ENTRIES])
def test_the_device_schema_and_the_device_agree(entry, good):
    assert accepts(DEVICE, entry) is good
    if good:
        Device.from_config("bench", entry)
    else:
        with pytest.raises(ValueError, match="device 'bench'"):
            Device.from_config("bench", entry)


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_a_delivered_space_keeps_to_the_schema(file):
    jsonschema.Draft202012Validator(SCHEMAS["space.schema.yaml"]).validate(yaml.safe_load(file.read_text()))


WIDTHS = {"widths": [[4], [4, 8]]}
SPACE = {"name": "s", "training": {"lr": {"log_uniform": [1.0e-3, 1.0e-2]}}, "families": {"conv2d": WIDTHS}}
MALFORMED = [
    {"surprise": 1},
    {"name": 3},
    {"training": {}},
    {"training": None},
    {"training": {"lr": []}},
    {"training": {"lr": [0.01, 0.01]}},
    {"training": {"lr": {"log_uniform": [0, 1.0]}}},
    {"training": {"lr": {"uniform": [0.1]}}},
    {"training": {"lr": {"integer": [0.5, 2]}}},
    {"training": {"lr": {"normal": [0, 1]}}},
    {"training": {"lr": {"choice": [0.1], "default": None}}},
    {"training": {"lr": {"choice": [0.1], "uniform": [0.1, 0.2]}}},
    {"families": {}},
    {"families": {"conv2d": None}},
    {"families": {"conv2d": WIDTHS | {"forbidden": [{}]}}},
    {"families": {"conv2d": WIDTHS | {"kernel": {"choice": [3, 5], "when": {"widths": []}}}}},
]


@pytest.mark.parametrize("change", MALFORMED, ids=str)
def test_a_malformed_space_is_refused_by_the_schema_as_by_the_reader(tmp_path, change):
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(SPACE))
    config.load_space(file)
    assert accepts(SCHEMAS["space.schema.yaml"], SPACE)
    file.write_text(yaml.safe_dump(SPACE | change))
    with pytest.raises(ValueError, match=r"space\.yaml"):
        config.load_space(file)
    assert not accepts(SCHEMAS["space.schema.yaml"], SPACE | change)
