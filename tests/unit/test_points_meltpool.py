"""Every network of config/spaces/meltpool.yaml can be built, trained, exported and run: 300 drawn ones show it.

The second half is in test_points_meltpool_more.py, so that two processes can share them.
"""

import pytest
from points import draw, train_and_export

from edgeloop.records import candidate_id

PARTS, PER_PART = 12, 25


def test_the_three_hundred_are_different_and_of_all_families():
    drawn = [genotype for part in range(PARTS) for genotype in draw("meltpool", PER_PART, part)]
    assert len({candidate_id(genotype) for genotype in drawn}) == 300
    assert len({genotype["architecture"]["family"] for genotype in drawn}) == 6


@pytest.mark.parametrize("part", range(PARTS // 2))
def test_a_drawn_network_is_built_trained_exported_and_run(part, tmp_path):
    for genotype in draw("meltpool", PER_PART, part):
        train_and_export(genotype, tmp_path)
