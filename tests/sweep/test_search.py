"""`--within`: what the search comes to is what trying every value would, and it takes few runs."""

import math

import pytest

from potstill.command.sweep.search import Search


def run_search(good, ends=(0.0, 1.0), most=8, at_once=1, size=lambda value: 1000 * (1 - value), fails=()):
    """The value chosen, and what was tried in which order. A result is its value; `good` says what is good enough."""
    search = Search(ends, size, good, most, at_once)
    tried, order = {}, []
    while values := search.next(tried):
        order += values
        tried.update({value: None if value in fails else value for value in values})
        assert len(tried) <= most
    return search.best(tried), order


@pytest.mark.parametrize("limit", [0.03, 0.31, 0.5, 0.77, 0.99])
def test_the_smallest_within_is_found(limit):
    best, order = run_search(lambda value: value <= limit, most=8)
    grid = [number / 64 for number in range(65)]
    assert limit - 1 / 64 <= best <= limit
    assert best >= max(value for value in grid if value <= limit) - 1e-3
    assert len(order) == 8


def test_sizes_may_fall_the_other_way():
    best, _ = run_search(lambda value: value >= 0.3, ends=(0.1, 1.0), size=lambda value: value, most=10)
    assert best == pytest.approx(0.3, abs=0.01) and best >= 0.3


def test_the_small_end_is_enough_or_the_large_end_is_not():
    assert run_search(lambda value: True) == (1.0, [0.0, 1.0])
    assert run_search(lambda value: False) == (None, [0.0, 1.0])


def test_the_smallest_is_chosen_wherever_it_lies():
    """Accuracy that rises again: both sides of the gap were tried."""
    best, order = run_search(lambda value: value in (0.0, 0.5, 0.75), most=6)
    assert best == 0.75 and order[:4] == [0.0, 1.0, 0.5, 0.75]


def test_whole_numbers_stay_whole_and_end():
    best, order = run_search(lambda value: value <= 5, ends=(1, 9), most=20, size=lambda value: -value)
    assert best == 5
    assert all(isinstance(value, int) for value in order) and len(order) == len(set(order)) <= 6


def test_several_at_once_narrow_faster():
    best, order = run_search(lambda value: value <= 0.6, most=8, at_once=3)
    assert order[:5] == [0.0, 1.0, 0.25, 0.5, 0.75]
    assert best == pytest.approx(0.6, abs=1 / 16) and best <= 0.6


def test_a_failed_run_is_no_good_one():
    best, order = run_search(lambda value: value <= 0.6, fails=(0.5,))
    assert best is not None and best < 0.5 and len(order) == 8
    assert run_search(lambda value: True, fails=(1.0,)) == (0.0, [0.0, 1.0])


def test_the_search_ends_by_itself():
    best, order = run_search(lambda value: value <= 1 / math.pi, most=1000)
    assert best == pytest.approx(1 / math.pi, abs=0.003)
    assert len(order) < 15
