"""config/README.md says what the schema, the devices, the strategies and the networks say."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml

from edge import Device
from edgeloop import config as configuration
from edgeloop import yamlfile
from edgeloop.models import registry
from edgeloop.recipe import Recipe
from edgeloop.search.registry import STRATEGIES, strategy

ROOT = Path(__file__).parents[2]
SCHEMA = yamlfile.load(ROOT / "workflow/schemas/config.schema.yaml").value
README = (ROOT / "config/README.md").read_text()
REQUIRED = "required"

# `| `key` | ... | `default` | ... |`: the third column of every table is the default.
ROW = re.compile(r"^\| `([^`]+)` \|[^|]*\| `([^`]+)` \|", re.MULTILINE)
DOCUMENTED = {key: yaml.safe_load(default) for key, default in ROW.findall(README)}


def settings(part, key="", required=False):
    """{dotted key: default} of all that a user may set in `part` of the schema."""
    if "$ref" in part:
        part = {**SCHEMA["$defs"][part["$ref"].rpartition("/")[2]], **part}
    found = {}
    if "type" not in part and any("properties" in form for form in part.get("oneOf", ())):  # validation or test
        found[key] = part.get("default", REQUIRED)
        for form in part["oneOf"]:
            form_key = f"{key.rpartition('.')[0]}.PART"
            found |= settings(form, form_key)
        return found
    inner = part.get("additionalProperties")
    if isinstance(inner, dict):
        return settings(inner, f"{key}.NAME")
    if "properties" in part:
        for name, child in part["properties"].items():
            found |= settings(child, f"{key}.{name}".lstrip("."), name in part.get("required", ()))
        return found
    found[key] = REQUIRED if required else part.get("default")
    if part.get("type") == "object":
        found |= {f"{key}.{name}": REQUIRED for name in part.get("required", ())}
    return found


def of_devices():
    """What a device takes besides what the schema says."""
    found = {}
    for field in fields(Device):
        if field.name != "name":
            default = None if field.default is MISSING else field.default
            found[f"devices.NAME.{field.name}"] = list(default) if isinstance(default, tuple) else default
    return found


def of_genes():
    found = {}
    groups = {"training": registry.declared(Recipe), **{name: registry.genes(name) for name in registry.FAMILIES}}
    for group, genes in groups.items():
        for name, gene in genes.items():
            default = list(gene.default) if isinstance(gene.default, tuple) else gene.default
            shared = group != "training" and name in ("frames", "pixels")
            found[f"{'*' if shared else group}:{name}"] = REQUIRED if gene.required else default
    return found


EXPECTED = {
    **of_devices(),
    **settings(SCHEMA),
    **{
        f"search.options.{name}": default
        for each in STRATEGIES
        for name, default in getattr(strategy(each), "DEFAULTS", {}).items()
    },
    **of_genes(),
}


@pytest.mark.parametrize("key", EXPECTED)
def test_a_key_is_documented_with_its_default(key):
    assert key in DOCUMENTED, f"config/README.md does not name {key}"
    assert DOCUMENTED[key] == EXPECTED[key]


def test_no_key_is_documented_that_is_not_there():
    assert DOCUMENTED.keys() <= EXPECTED.keys()


def test_a_key_is_documented_once():
    keys = [key for key, _ in ROW.findall(README)]
    assert len(keys) == len(set(keys))


def test_the_examples_of_the_page_are_good(tmp_path):
    blocks = [text for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    smallest, space = blocks
    file = tmp_path / "space.yaml"
    file.write_text(space)
    assert configuration.load_space(file).name == "example"
    config = yaml.safe_load(smallest)
    configuration.complete(config, SCHEMA)
    configuration.check(config, [ROOT], Device.from_config)
