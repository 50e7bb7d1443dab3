"""Records: identities that depend on the genes alone, and files that are whole or not there."""

import pytest

from edgeloop.records import architecture_id, atomic, candidate_id, canonical_json, failed, ok, read_json, write_json

GENOTYPE = {
    "architecture": {"family": "conv2d", "widths": [8, 16]},
    "precision": "fp32",
    "training": {"lr": 0.003, "batch_size": 32},
}


def test_an_identity_does_not_depend_on_the_order_of_the_genes():
    turned = {key: GENOTYPE[key] for key in ("training", "precision")}
    turned |= {"architecture": dict(reversed(GENOTYPE["architecture"].items()))}
    assert candidate_id(turned) == candidate_id(GENOTYPE) == "88aeeba878e2"


def test_every_gene_counts_for_the_candidate_and_only_what_latency_depends_on_for_the_architecture():
    retrained = GENOTYPE | {"training": {"lr": 0.004, "batch_size": 32}}
    wider = GENOTYPE | {"architecture": {"family": "conv2d", "widths": [8, 32]}}
    quantised = GENOTYPE | {"precision": "int8"}
    assert len({candidate_id(genotype) for genotype in (GENOTYPE, retrained, wider, quantised)}) == 4
    assert architecture_id(retrained) == architecture_id(GENOTYPE)
    assert len({architecture_id(genotype) for genotype in (GENOTYPE, wider, quantised)}) == 3


def test_a_record_says_whether_it_went_well_and_why_not():
    assert ok(figure=1) == {"schema_version": 1, "status": "ok", "figure": 1}
    assert failed("no memory", figure=1) == {
        "schema_version": 1, "status": "failed", "reason": "no memory", "figure": 1,
    }  # fmt: skip


def test_what_is_written_is_read_again_and_nothing_else_is_left_beside_it(tmp_path):
    write_json(tmp_path / "new/record.json", {"b": [1, None], "a": "ü"})
    assert read_json(tmp_path / "new/record.json") == {"b": [1, None], "a": "ü"}
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["record.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_not_finite_is_refused_and_the_former_file_stays(tmp_path, value):
    write_json(tmp_path / "record.json", 1)
    with pytest.raises(ValueError):
        write_json(tmp_path / "record.json", {"rmse": value})
    with pytest.raises(ValueError):
        canonical_json(value)
    assert read_json(tmp_path / "record.json") == 1


def test_a_file_that_was_not_finished_is_not_there(tmp_path):
    (tmp_path / "model.onnx").write_text("former")
    with pytest.raises(RuntimeError), atomic(tmp_path / "model.onnx") as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"model.onnx": "former"}


def test_a_damaged_record_is_named_and_the_message_says_what_to_do(tmp_path):
    (tmp_path / "train.json").write_text('{"status": "o')
    with pytest.raises(ValueError, match=r"train\.json is not valid JSON .*Remove it and run again"):
        read_json(tmp_path / "train.json")
