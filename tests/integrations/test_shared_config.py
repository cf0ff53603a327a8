"""Sizes that the layers of a transformers model read from the config that they share."""

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from transformers import PretrainedConfig, PreTrainedModel

from potstill.integrations.config_sizes import fitted_config
from potstill.thinning import thin


class OwnConfig(PretrainedConfig):
    def __init__(self, heads=4, width=4, **others):
        self.heads, self.width = heads, width
        super().__init__(**others)


class OwnAttention(nn.Module):
    """Reads its sizes from the config that it shares with the model."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.qkv, self.out = (nn.Linear(8, 3 * config.heads * config.width), nn.Linear(config.heads * config.width, 8))

    def forward(self, x):
        shape = (*x.shape[:2], 3, self.config.heads, self.config.width)
        q, k, v = self.qkv(x).view(shape).permute(2, 0, 3, 1, 4)
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


class Own(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.first, self.second = OwnAttention(config), OwnAttention(config)
        self.post_init()

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("both", [True, False])
def test_sizes_that_modules_read_from_a_shared_config(both):
    """Three heads of 4 have the shapes of four of 3; each layer has its own number, the model's config its own."""
    model, x = Own(OwnConfig()).eval(), torch.randn(2, 5, 8)
    with torch.no_grad():
        for layer in [model.first, model.second][: 1 + both]:
            layer.qkv.weight[36:40], layer.qkv.bias[36:40] = 0, 0
        before = model(x)
    thin(model, x)
    torch.testing.assert_close(model(x), before)
    assert (model.config.heads, model.first.config.heads, model.second.config.heads) == (4, 3, 3 if both else 4)
    config = fitted_config(model)
    if not both:
        assert config is None
        return
    assert (config.heads, config.width) == (3, 4)
    again = Own(config).eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(x), before)


class NestedAttention(OwnAttention):
    """Reads its number of heads from a part of the config."""

    def forward(self, x):
        shape = (*x.shape[:2], 3, self.config.parts["heads"], self.config.width)
        q, k, v = self.qkv(x).view(shape).permute(2, 0, 3, 1, 4)
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


class NestedConfig(OwnConfig):
    def __init__(self, parts=None, **others):
        self.parts = parts or {"heads": 4}
        super().__init__(**others)


class Nested(PreTrainedModel):
    config_class = NestedConfig

    def __init__(self, config):
        super().__init__(config)
        self.attention = NestedAttention(config)
        self.post_init()

    def forward(self, x):
        return self.attention(x)


def test_shapes_alone_do_not_make_a_config_fit():
    """Four heads of 3 have the shapes of three heads of 4, whose number lies deeper than fields are changed."""
    model = Nested(NestedConfig()).eval()
    with torch.no_grad():
        model.attention.qkv.weight[36:40], model.attention.qkv.bias[36:40] = 0, 0
    thin(model, torch.randn(2, 5, 8))
    assert model.attention.config.parts == {"heads": 3}
    assert fitted_config(model) is None
