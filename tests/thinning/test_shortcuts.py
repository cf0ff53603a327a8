"""Shapes that are found without torch are torch's."""

import pytest
import torch

from potstill.thinning.shortcuts import carry_out

CONVOLUTION = torch.ops.aten.convolution.default
CASES = [
    ((2, 4, 9), (6, 4, 3), [1], [0], [1], False, [0], 1),
    ((2, 4, 9, 8), (6, 4, 3, 2), [2, 1], [1, 0], [1, 2], False, [0, 0], 1),
    ((2, 4, 9, 8), (8, 1, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 4),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 3), [1, 2, 3], [1, 1, 1], [1, 1, 1], False, [0, 0, 0], 1),
    ((2, 4, 5, 5), (4, 3, 3, 3), [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution(case, layout):
    (size, kernel, *rest) = case
    x, weight = torch.randn(size), torch.randn(kernel)
    x = x.to(memory_format=layout) if x.ndim == 4 else x
    expected = CONVOLUTION(x, weight, None, *rest)
    found = carry_out(CONVOLUTION, (x.to("meta"), weight.to("meta"), None, *rest), {})
    assert (found.shape, found.is_meta) == (expected.shape, True)


def test_what_does_not_fit_is_left_to_torch():
    x, weight, rest = torch.empty(1, 4, 5, 5, device="meta"), torch.empty(6, 3, 3, 3, device="meta"), CASES[1][2:]
    with pytest.raises(RuntimeError, match="channel"):
        carry_out(CONVOLUTION, (x, weight, None, *rest), {})
