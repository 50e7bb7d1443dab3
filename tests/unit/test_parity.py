"""Whether the device computes what was trained."""

import numpy as np
import pytest

from edgeloop import parity

TARGETS = np.array([[1.0, 1.0], [0.5, 1.5], [1.2, 0.8]])


def test_outputs_that_are_the_same_differ_by_nothing_and_have_the_same_error():
    figures = parity.compare(TARGETS + 0.1, TARGETS + 0.1, TARGETS)
    assert figures["parity_clips"] == 3 and figures["parity_max_abs_difference"] == 0
    assert figures["rmse"] == figures["rmse_pytorch"] == pytest.approx(0.1)


def test_the_largest_difference_of_any_output_counts_and_each_side_has_its_own_error():
    device = TARGETS.copy()
    device[1, 1] -= 0.6
    figures = parity.compare(device, TARGETS, TARGETS)
    assert figures["parity_max_abs_difference"] == pytest.approx(0.6)
    assert figures["rmse"] == pytest.approx(0.6 / 6**0.5) and figures["rmse_pytorch"] == 0


def test_outputs_of_another_shape_are_an_error_that_names_both():
    with pytest.raises(ValueError, match=r"shape \(2, 2\); expected \(3, 2\)"):
        parity.compare(TARGETS[:2], TARGETS, TARGETS)


def test_a_slow_network_is_checked_on_fewer_clips_but_on_some():
    counts = [parity.clip_count(macs) for macs in (10**5, 10**9, 10**10, 10**13)]
    assert counts[0] == parity.CLIPS and counts[-1] == parity.FEWEST_CLIPS >= 1
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 4


def test_a_device_gets_the_first_clips_and_the_file_itself_when_all_are_wanted(tmp_path):
    file, clips = tmp_path / "parity.npy", np.arange(5 * 4, dtype=np.uint8).reshape(5, 1, 2, 2)
    np.save(file, clips)
    with parity.first_clips(file, 3) as part:
        assert np.array_equal(np.load(part), clips[:3])
    assert not part.exists()
    with parity.first_clips(file, 5) as part:
        assert part == file
    assert file.exists()
