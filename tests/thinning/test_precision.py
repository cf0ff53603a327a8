"""What is compared to 1e-5 is computed in full precision, whatever the user has switched on; it stays switched on."""

import pytest
import torch
from torch import nn

from potstill.thinning import thin, trace

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SEEN = []


class Telling(nn.Sequential):
    def forward(self, x):
        SEEN.append((switches(), torch.is_autocast_enabled("cpu"), x.dtype))
        return super().forward(x)


def switches():
    backends = torch.backends
    old = [backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()]
    if not hasattr(backends.cudnn, "conv"):
        return old
    return [*old, backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision]


def with_dead_filters():
    torch.manual_seed(1)
    model = Telling(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    with torch.no_grad():
        model[0].weight[:3], model[0].bias[:3] = 0, 0
    return model


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_no_run_is_in_less_than_single_precision(precision):
    SEEN.clear()
    torch.set_float32_matmul_precision(precision)
    before, model = switches(), with_dead_filters()
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert trace(model, X).count
            recipe = thin(model, X)
            assert torch.is_autocast_enabled("cpu")
        assert switches() == before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert recipe.max_relative_difference <= 1e-5
    assert len(model[0].weight) == 5
    assert len(SEEN) > 2
    for seen, autocast, kind in SEEN:
        assert seen[:3] == [False, False, "highest"]
        assert set(seen[3:]) <= {"ieee"}
        assert not autocast
        assert kind in (torch.float32, torch.float64)


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has the older switches only")
def test_newer_switches_are_kept():
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        thin(nn.Sequential(*with_dead_filters()), X)
        assert convolutions.fp32_precision == "ieee"
        convolutions.fp32_precision = "tf32"
        thin(nn.Sequential(*with_dead_filters()), X)
        assert convolutions.fp32_precision == "tf32"
    finally:
        convolutions.fp32_precision = before
