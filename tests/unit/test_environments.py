"""Whichever way software comes to the cluster, it is the same software."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def pins(lines):
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


REQUIREMENTS = pins((ROOT / "envs/requirements.txt").read_text().splitlines())


def test_every_package_is_pinned_to_one_version():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+", pin) for pin in REQUIREMENTS)
    names = [pin.partition("==")[0].lower() for pin in REQUIREMENTS]
    assert len(names) == len(set(names))


def test_conda_has_the_same_pins():
    dependencies = yaml.safe_load((ROOT / "envs/edgeloop.yaml").read_text())["dependencies"]
    (packages,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert set(packages) == REQUIREMENTS


def test_the_container_and_the_projects_own_environment_install_the_pinned_file():
    container = (ROOT / "envs/edgeloop.def").read_text()
    assert "envs/requirements.txt /opt/edgeloop/envs/requirements.txt" in container
    assert re.findall(r"pip install (?!.*--no-deps).*", container) == [
        "pip install --no-cache-dir -r /opt/edgeloop/envs/requirements.txt"
    ]
    makefile = (ROOT / "Makefile").read_text()
    installs = re.findall(r"pip install (?!.*--no-deps)(.*)", makefile)
    assert [line.rpartition("-r ")[2] for line in installs] == ["envs/requirements.txt", "envs/requirements-test.txt"]


def test_all_have_the_same_python():
    python = yaml.safe_load((ROOT / "envs/edgeloop.yaml").read_text())["dependencies"][0]
    assert python == "python=3.11" and "From: python:3.11-" in (ROOT / "envs/edgeloop.def").read_text()


def test_every_rule_with_a_script_can_run_in_any_of_them():
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        rules = re.split(r"^(?:rule|checkpoint) ", file.read_text(), flags=re.MULTILINE)[1:]
        for rule in rules:
            if "script:" in rule:
                assert "conda:" in rule and "envmodules:" in rule, f"{file.name}: {rule.partition(':')[0]}"
