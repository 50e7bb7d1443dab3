"""Successive halving: who goes on, and what a search knows of those that do not."""

import pytest

from edgeloop.search.halving import promote


def test_one_in_so_many_goes_on_rounded_up_in_the_order_of_the_population():
    objectives = {"a": (0.4,), "b": (0.1,), "c": (0.3,), "d": (0.2,), "e": (0.5,)}
    assert promote(objectives, 2) == ["b", "c", "d"]
    assert promote(objectives, 5) == ["b"]


def test_with_costs_the_first_front_goes_on_before_the_second():
    objectives = {"slow and bad": (0.5, 2.0), "best": (0.1, 1.9), "fast": (0.4, 0.1), "behind fast": (0.41, 0.11)}
    assert promote(objectives, 2) == ["best", "fast"]


def test_of_a_front_that_is_too_long_its_ends_and_its_sparse_part_go_on():
    objectives = {
        "best": (0.1, 9.0), "like the best": (0.11, 8.9), "between": (0.2, 4.0), "like the fastest": (0.4, 1.1),
        "fastest": (0.41, 1.0),
    }  # fmt: skip
    assert promote(objectives, 2) == ["best", "between", "fastest"]


def test_what_failed_does_not_go_on_and_leaves_its_place_to_others():
    assert promote({"a": None, "b": (0.9,), "c": None, "d": (0.8,)}, 2) == ["b", "d"]
    assert promote({"a": None, "b": None}, 2) == []


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_of_equal_candidates_no_more_go_on_than_of_others(factor):
    assert len(promote(dict.fromkeys("abcd", (0.5, 1.0)), factor)) == -(-4 // factor)
