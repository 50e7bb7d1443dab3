"""The second half of the networks of test_points_meltpool.py."""

import pytest
from points import draw, train_and_export
from test_points_meltpool import PARTS, PER_PART


@pytest.mark.parametrize("part", range(PARTS // 2, PARTS))
def test_a_drawn_network_is_built_trained_exported_and_run(part, tmp_path):
    for genotype in draw("meltpool", PER_PART, part):
        train_and_export(genotype, tmp_path)
