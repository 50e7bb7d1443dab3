"""Whom a search trains: who is packed with whom, and who goes on after a rung."""

import json
import os
from collections import Counter

import pytest

from edgeloop import populations
from edgeloop.populations import Populations


def decide(folder, generation, candidates, **fields):
    write(folder / f"{generation:03d}" / "population.json", {"candidates": candidates, **fields})


def promote(folder, generation, rung, candidates):
    write(folder / f"{generation:03d}" / f"promoted.{rung}.json", {"candidates": candidates})


def write(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def test_a_candidate_is_in_a_pack_of_the_first_generation_that_holds_it(tmp_path):
    decide(tmp_path, 0, ["a", "b", "c"], pack=2)
    known = Populations(tmp_path)
    assert known.pack("a") == known.pack("b") != known.pack("c")
    assert known.members(known.pack("a")) == ["a", "b"] and known.members(known.pack("c")) == ["c"]
    before = known.pack("a")
    decide(tmp_path, 1, ["d", "a", "e"], pack=4)  # decided while the object is in use
    assert known.members(known.pack("e")) == ["d", "e"]
    assert known.pack("a") == before


def test_what_was_decided_without_packs_and_what_no_generation_holds_is_in_none(tmp_path):
    decide(tmp_path, 0, ["a", "b"])
    decide(tmp_path, 1, ["c", "d"], pack=1)
    known = Populations(tmp_path)
    assert not known.any_packs()
    decide(tmp_path, 2, ["b", "e", "f"], pack=2)
    assert [known.pack(name) for name in ("a", "b", "c", "d", "baseline")] == [None] * 5
    assert known.any_packs() and known.members(known.pack("e")) == ["e", "f"]


def test_a_generation_that_is_decided_anew_has_new_packs(tmp_path):
    decide(tmp_path, 0, ["a", "b"], pack=2)
    known = Populations(tmp_path)
    old = known.pack("a")
    decide(tmp_path, 0, ["a", "c"], pack=2)
    os.utime(tmp_path / "000/population.json", (1, 1))
    assert known.members(known.pack("a")) == ["a", "c"]
    with pytest.raises(KeyError, match=old):
        known.members(old)


def test_asking_for_each_of_many_candidates_reads_each_population_once(tmp_path, monkeypatch):
    names = [f"{number:012x}" for number in range(1000)]
    for generation in range(50):
        decide(tmp_path, generation, names[20 * generation : 20 * generation + 20], pack=8)
    read = Counter()
    monkeypatch.setattr(populations, "read_json", lambda file: read.update([file]) or json.loads(file.read_text()))
    known = Populations(tmp_path)
    assert len({known.pack(name) for name in names}) == 150
    assert [known.pack("baseline") for _ in range(3)] == [None] * 3
    assert len(read) == 50 and set(read.values()) == {1}


def test_packs_are_cut_anew_for_those_who_go_on(tmp_path):
    decide(tmp_path, 0, ["a", "b", "c", "d"], pack=2, halving={"epochs": [2, 4], "factor": 2})
    known = Populations(tmp_path)
    assert known.members(known.pack("c", 2)) == ["c", "d"]
    assert [known.pack("c", 4), known.pack("c")] == [None, None]  # nobody knows yet who goes on
    promote(tmp_path, 0, 2, ["b", "c"])
    assert known.members(known.pack("c", 4)) == ["b", "c"]
    assert known.members(known.pack("c", 2)) == ["c", "d"]
    assert known.pack("a", 4) is None
    promote(tmp_path, 0, 4, ["c"])
    assert known.members(known.pack("c")) == ["c"]


def test_rungs_are_those_of_the_day_on_which_a_generation_was_decided(tmp_path):
    decide(tmp_path, 0, ["a"], halving={"epochs": [2, 4], "factor": 2})
    decide(tmp_path, 1, ["b"], halving={"epochs": [], "factor": 2})
    known = Populations(tmp_path)
    assert [known.rungs(name) for name in ("a", "b", "baseline")] == [[2, 4], [], []]
