"""The criteria of Prechelt 1998 on sequences worked out by hand."""

import math

import pytest

from potstill.command.monitors.stopping_rules import (
    Best,
    GeneralizationLoss,
    ProgressQuotient,
    SuccessiveIncreases,
    generalization_loss,
    lowest_epoch,
    parse_rule,
    progress,
)

VALIDATION = [0.5, 0.4, 0.44, 0.42, 0.48]


def stops(rule, training, validation):
    """The number of epochs after which the rule stops first."""
    for count in range(1, len(validation) + 1):
        if rule.reason(training[:count], validation[:count]):
            return count
    return None


def test_generalization_loss_is_percent_above_the_lowest_so_far():
    found = [generalization_loss(VALIDATION[: t + 1]) for t in range(5)]
    assert found == pytest.approx([0, 0, 10, 5, 20])


def test_progress_is_thousandths_of_the_strips_mean_above_its_lowest():
    # the strip 3, 2, 1 has mean 2 and lowest 1
    assert progress([9.0, 3.0, 2.0, 1.0], 3) == pytest.approx(1000)
    assert progress([2.0, 2.0, 2.0], 3) == 0


def test_errors_of_zero_divide_nothing():
    assert generalization_loss([0.0, 0.0]) == 0
    assert generalization_loss([0.0, 0.1]) == math.inf
    assert progress([0.1, 0.0], 2) == math.inf
    assert generalization_loss([math.inf, math.inf]) == 0


def test_gl_stops_at_the_first_epoch_above_alpha():
    assert stops(GeneralizationLoss(4), VALIDATION, VALIDATION) == 3
    assert stops(GeneralizationLoss(10.1), VALIDATION, VALIDATION) == 5
    assert stops(GeneralizationLoss(20.1), VALIDATION, VALIDATION) is None
    assert GeneralizationLoss(4).reason([1.0] * 3, VALIDATION[:3]).startswith("GL = 10 % > 4 %")


def test_pq_weighs_the_loss_of_generalization_against_progress_at_the_ends_of_strips():
    # k = 2: after 2 epochs P = 1000 (0.9 / 0.8 - 1) = 125, GL = 0;
    # after 4 P = 1000 (0.75 / 0.7 - 1) = 71.4, GL = 100 (0.5 / 0.4 - 1) = 25: quotient 0.35
    training, validation = [1.0, 0.8, 0.8, 0.7], [0.5, 0.4, 0.6, 0.5]
    assert stops(ProgressQuotient(0.34, 2), training, validation) == 4
    assert stops(ProgressQuotient(0.36, 2), training, validation) is None
    # after 3 epochs the loss is 50 %, but no strip ends there
    assert stops(ProgressQuotient(0.001, 2), training[:3], validation[:3]) is None


def test_pq_without_progress_stops_at_any_loss_and_goes_on_without_one():
    assert stops(ProgressQuotient(5, 2), [1.0, 1.0], [0.4, 0.5]) == 2
    assert stops(ProgressQuotient(5, 2), [1.0, 1.0], [0.5, 0.4]) is None


def test_up_counts_strips_whose_end_lies_above_the_strip_before():
    # k = 2: ends of strips are 0.4, 0.5, 0.45, 0.6, 0.7
    validation = [0.9, 0.4, 0.1, 0.5, 0.9, 0.45, 0.9, 0.6, 0.9, 0.7]
    assert stops(SuccessiveIncreases(1, 2), validation, validation) == 4
    assert stops(SuccessiveIncreases(2, 2), validation, validation) == 10
    assert stops(SuccessiveIncreases(3, 2), validation, validation) is None
    assert "0.45, 0.6, 0.7" in SuccessiveIncreases(2, 2).reason(validation, validation)


def test_up_needs_a_rise_not_a_tie():
    assert stops(SuccessiveIncreases(1, 1), [1.0] * 3, [0.5, 0.5, 0.5]) is None


def test_best_never_stops_and_the_first_of_the_lowest_counts():
    assert stops(Best(), VALIDATION, VALIDATION) is None
    assert lowest_epoch([0.5, 0.3, 0.4, 0.3]) == 1


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("best", Best()),
        ("GL:2.5", GeneralizationLoss(2.5)),
        ("PQ:0.75,3", ProgressQuotient(0.75, 3)),
        ("PQ:0.75", ProgressQuotient(0.75, 5)),
        ("UP:3", SuccessiveIncreases(3, 5)),
        ("UP:3,2", SuccessiveIncreases(3, 2)),
    ],
)
def test_rules_are_read(text, rule):
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worst", "no stopping rule 'worst': best, GL:alpha, PQ:alpha,k or UP:s"),
        ("best:1", "no stopping rule 'best:1'"),
        ("GL:2,3", "no stopping rule 'GL:2,3'"),
        ("GL:", "alpha must be a number above 0, not ''"),
        ("GL:nan", "alpha must be a number above 0, not 'nan'"),
        ("PQ:-1,5", "alpha must be a number above 0, not '-1'"),
        ("PQ:1,0", "the length k of a strip must be a whole number of 1 or more, not '0'"),
        ("UP:1.5", "the number s of increases must be a whole number of 1 or more, not '1.5'"),
    ],
)
def test_other_rules_are_refused(text, message):
    with pytest.raises(ValueError) as caught:
        parse_rule(text)
    assert message in str(caught.value)
