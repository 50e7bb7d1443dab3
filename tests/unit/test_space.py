"""What a search space draws, varies and refuses."""

import numpy as np
import pytest

from edgeloop import config, records
from edgeloop.models import registry

ROOT = __import__("pathlib").Path(__file__).parents[2]
SPACES = sorted((ROOT / "config/spaces").glob("*.yaml"))

GOOD = """\
name: small
precision: [fp32]
training:
  lr: {log_uniform: [1.0e-3, 1.0e-2]}
families:
  conv2d:
    frames: [4, 8]
    widths: [[8], [8, 16]]
  conv2d_temporal:
    widths: [[8], [12]]
    temporal: [conv, transformer]
    heads: {choice: [2, 4], when: {temporal: [transformer]}}
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        file = tmp_path / "space.yaml"
        file.write_text(text)
        return config.load_space(file)

    return load


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_all_that_a_delivered_space_draws_and_varies_can_be_built(path):
    space = config.load_space(path)
    rng = np.random.default_rng(0)
    parent = space.sample(rng)
    for _ in range(100):
        drawn = space.sample(rng)
        for genotype in (drawn, space.mutate(drawn, rng), space.crossover(parent, drawn, rng)):
            registry.check(genotype["architecture"])
            assert space.genotype(space.flatten(genotype)) == genotype


def test_the_same_seed_draws_the_same_genotypes_and_another_seed_others(load):
    space = load(GOOD)
    first, again, other = ([space.sample(rng) for _ in range(5)] for rng in map(np.random.default_rng, (1, 1, 2)))
    assert first == again
    assert first != other


def test_the_default_recipe_is_of_the_genes_that_have_a_default(load):
    space = load(
        GOOD.replace("1.0e-2]}", "1.0e-2], default: 4.0e-3}\n  augment: {choice: [true, false], default: false}")
    )
    assert space.default_recipe == {"training:lr": 0.004, "training:augment": False}
    assert load(GOOD).default_recipe == {}
    rng = np.random.default_rng(0)
    drawn = space.sample(rng)
    usual = space.with_recipe(drawn, rng, space.default_recipe)
    assert usual == {**drawn, "training": {"lr": 0.004, "augment": False}} != drawn
    assert space.recipe(usual) == space.default_recipe


def test_usual_networks_have_the_defaults_and_others_draw(load):
    space = load(
        GOOD.replace("1.0e-2]}", "1.0e-2], default: 4.0e-3}")
        .replace("precision: [fp32]", "precision: {choice: [fp32, int8], default: fp32}")
        .replace("temporal: [conv, transformer]", "temporal: {choice: [conv, transformer], default: transformer}")
        .replace("temporal: [transformer]}}", "temporal: [transformer]}, default: 4.0}")
    )
    rng = np.random.default_rng(0)
    usual = [space.sample(rng, family="conv2d_temporal", usual=True) for _ in range(50)]
    assert {genotype["training"]["lr"] for genotype in usual} == {0.004}
    assert {genotype["precision"] for genotype in usual} == {"fp32"}
    assert {genotype["architecture"]["temporal"] for genotype in usual} == {"transformer"}
    # As the space writes it among the values: 4 and 4.0 would be two networks.
    assert {str(genotype["architecture"]["heads"]) for genotype in usual} == {"4"}
    assert len({str(genotype["architecture"]["widths"]) for genotype in usual}) == 2
    others = [space.sample(rng, family="conv2d_temporal") for _ in range(50)]
    assert {genotype["architecture"]["temporal"] for genotype in others} == {"conv", "transformer"}
    assert {genotype["precision"] for genotype in others} == {"fp32", "int8"}
    assert all(space.holds(genotype) for genotype in usual + others)


def test_a_mutant_differs_in_one_gene_or_in_what_that_gene_activates(load):
    space = load(GOOD)
    rng = np.random.default_rng(0)
    for _ in range(100):
        parent = space.sample(rng)
        mutant = space.mutate(parent, rng)
        assert records.candidate_id(mutant) != records.candidate_id(parent)
        before, after = space.flatten(parent), space.flatten(mutant)
        changed = [name for name in before if name in after and before[name] != after[name]]
        assert len(changed) == 1


def test_a_mutant_of_another_family_has_its_defaults_and_keeps_its_recipe(load):
    space = load(
        GOOD.replace("1.0e-2]}", "1.0e-2], default: 4.0e-3}").replace(
            "temporal: [conv, transformer]", "temporal: {choice: [conv, transformer], default: conv}"
        )
    )
    rng = np.random.default_rng(0)
    parent = space.sample(rng, family="conv2d")
    mutants = [space.mutate(parent, rng) for _ in range(200)]
    others = [mutant for mutant in mutants if mutant["architecture"]["family"] == "conv2d_temporal"]
    assert {mutant["architecture"]["temporal"] for mutant in others} == {"conv"}
    assert {mutant["training"]["lr"] for mutant in others} == {parent["training"]["lr"]} != {0.004}


def test_a_genotype_can_be_drawn_of_one_family(load):
    space = load(GOOD)
    rng = np.random.default_rng(0)
    assert space.families == ("conv2d", "conv2d_temporal")
    for family in space.families:
        drawn = [space.sample(rng, family=family)["architecture"] for _ in range(50)]
        assert {architecture["family"] for architecture in drawn} == {family}
        assert len({str(architecture) for architecture in drawn}) > 2


def test_a_conditional_gene_is_there_just_when_its_condition_holds(load):
    space = load(GOOD)
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng)["architecture"] for _ in range(300)]
    assert {architecture["family"] for architecture in drawn} == {"conv2d", "conv2d_temporal"}
    for architecture in drawn:
        assert ("heads" in architecture) == (architecture.get("temporal") == "transformer")


def test_a_forbidden_combination_is_never_drawn(load):
    space = load(
        GOOD.replace(
            "    widths: [[8], [8, 16]]", "    widths: [[8], [8, 16]]\n    forbidden: [{frames: 4, widths: [8]}]"
        )
    )
    rng = np.random.default_rng(0)
    parent = space.sample(rng)
    for _ in range(200):
        drawn = space.sample(rng)
        for genotype in (drawn, space.mutate(drawn, rng), space.crossover(parent, drawn, rng)):
            architecture = genotype["architecture"]
            assert (architecture.get("frames"), architecture["widths"]) != (4, [8])


def test_numbered_genes_make_a_list_as_long_as_its_conditions_allow():
    space = config.load_space(ROOT / "config/spaces/swin3d.yaml")
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(100):
        architecture = space.sample(rng)["architecture"]
        assert len(architecture["depths"]) == len(architecture["heads"])
        lengths.add(len(architecture["depths"]))
    assert lengths == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [
        ("  conv2d:", "  conv9d:", "line 6: family 'conv9d' is unknown"),
        ("    frames: [4, 8]", "    framse: [4, 8]", "line 7: unknown gene 'framse' of 'conv2d'"),
        ("    frames: [4, 8]", "    frames: []", "line 7: gene 'conv2d:frames' has an empty range"),
        ("    frames: [4, 8]", "    frames: [4, 4]", "line 7: gene 'conv2d:frames' has a value twice"),
        (
            "    frames: [4, 8]",
            "    frames: {integer: [8, 4]}",
            "line 7: gene 'conv2d:frames' has an empty range: 8 is not below 4",
        ),
        ("    frames: [4, 8]", "    frames: {range: [4, 8]}", "line 7: gene 'conv2d:frames': unknown 'range'"),
        (
            "    frames: [4, 8]",
            "    frames: [4, 99]",
            "line 6: the family 'conv2d' can draw a network that cannot be built",
        ),
        ("    frames: [4, 8]", "    frames: [4]\n    frames: [8]", "line 8: the key 'frames' stands twice"),
        ("    widths: [[8], [8, 16]]", "    kernel: 3", "line 6: 'conv2d' lacks the gene widths"),
        (
            "temporal: [transformer]}",
            "temporal: [lstm]}",
            "line 12: gene 'conv2d_temporal:heads' depends on temporal = lstm",
        ),
        ("when: {temporal:", "when: {temporary:", "depends on 'temporary', which is not a gene above it"),
        ("choice: [2, 4]", "choice: [3, 5]", "heads 3 does not divide the last width 8"),
        (
            "  lr: {log_uniform: [1.0e-3, 1.0e-2]}",
            "  lr: {log_uniform: [0, 1.0e-2]}",
            "line 4: gene 'training:lr': log_uniform needs bounds above 0",
        ),
        (
            "  lr: {log_uniform: [1.0e-3, 1.0e-2]}",
            "  lr: {uniform: [0.01]}",
            "line 4: gene 'training:lr': uniform needs two numbers",
        ),
        (
            "  lr: {log_uniform: [1.0e-3, 1.0e-2]}",
            "  lr: {log_uniform: [1.0e-3, 1.0e-2], default: 0.1}",
            "line 4: gene 'training:lr': its default 0.1 is none of its values",
        ),
        (
            "    frames: [4, 8]",
            "    frames: {choice: [4, 8], default: 16}",
            "line 7: gene 'conv2d:frames': its default 16 is none of its values",
        ),
        (
            "    frames: [4, 8]",
            "    frames: {integer: [4, 8], default: 4.5}",
            "line 7: gene 'conv2d:frames': its default 4.5 is none of its values",
        ),
        (
            "    frames: [4, 8]",
            "    forbidden: [{frames: 8}]\n    frames: {choice: [4, 8], default: 8}",
            "line 6: the defaults of the family 'conv2d' are forbidden together",
        ),
        ("  lr: {log_uniform: [1.0e-3, 1.0e-2]}", "  rate: 0.1", "line 4: unknown gene 'rate' of 'training'"),
        ("precision: [fp32]", "precision: [int8, fp64]", "line 2: unknown precision 'fp64'"),
        ("name: small", "title: small", "line 1: unknown key 'title'"),
        ("name: small", "name: [", "is not valid YAML"),
    ],
)
def test_a_wrong_space_is_refused_and_the_line_named(load, line, wrong, message):
    assert line in GOOD
    with pytest.raises(ValueError) as refusal:
        load(GOOD.replace(line, wrong, 1))
    assert message in str(refusal.value)
    assert "space.yaml" in str(refusal.value)
