"""What is suggested for a mistyped name, whatever is named."""

import pytest

from potstill.near_names import did_you_mean, near_names, spelled_like


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("ResNet", ["resnet20", "resnet110"]),  # what begins so, the shortest first
        ("RENSET20", ["resnet20", "resnet110"]),  # the most alike first
        ("vgg61", ["vgg16"]),
        ("", []),
        ("transformer", []),
        ("resnet20" * 30, []),  # longer than any name: not compared at all
    ],
)
def test_near_names(word, found):
    assert near_names(word, ["vgg16", "resnet110", "resnet20"]) == found


def test_a_beginning_is_no_spelling():
    """What may be changed or checked in another's stead must be that very word but for a letter or two."""
    assert spelled_like("resnet", ["resnet110_imagenet"]) == []


def test_question():
    assert did_you_mean("resnet2", ["resnet20", "resnet200"], 2) == " (did you mean resnet20 or resnet200?)"
    assert did_you_mean("vgg", ["resnet20"]) == ""


def test_a_word_is_compared_with_so_many_names_as_take_a_moment():
    word, others = "a" * 200, [f"{number:0200}" for number in range(60)]
    assert spelled_like(word, [*others[:40], word]) == [word]
    assert spelled_like(word, [*others, word]) == []
