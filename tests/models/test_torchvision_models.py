from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from potstill.models import ModelError, create_model, model_info, model_names
from potstill.models.torchvision_models import torchvision_names

A_FEW = ("resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "densenet121", "vit_b_16", "swin_t")


def build_on_meta(name: str, num_classes: int, in_channels: int) -> nn.Module:
    try:
        with torch.device("meta"):
            return create_model(name, num_classes, in_channels).eval()
    except (NotImplementedError, RuntimeError):  # RegNet computes its widths with tensors
        return create_model(name, num_classes, in_channels).to("meta").eval()


def check_sizes(name: str) -> None:
    model = build_on_meta(name, 7, 1)
    _, height, width = model_info(name).input_shape
    assert model(torch.empty(2, 1, height, width, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", A_FEW)
def test_classes_and_channels_follow_the_data(name: str) -> None:
    check_sizes(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision_names())
def test_classes_and_channels_follow_the_data_everywhere(name: str) -> None:
    check_sizes(name)


def test_all_classification_models_are_known() -> None:
    assert set(torchvision.models.list_models(module=torchvision.models)) <= set(model_names())
    assert model_info("inception_v3").input_shape == (3, 299, 299)
    assert model_info("resnet50").input_shape == (3, 224, 224)
    assert model_info("resnet50").num_classes == 1000


def test_auxiliary_heads_are_kept() -> None:
    model = build_on_meta("googlenet", 7, 3).train()
    outputs = model(torch.empty(2, 3, 224, 224, device="meta"))
    assert [scores.shape for scores in outputs] == [(2, 7)] * 3


@pytest.fixture
def local_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Stands in for the download: random weights of the right shape."""
    torch.manual_seed(1)
    state = torchvision.models.squeezenet1_1().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: dict(state))
    return state


def test_pretrained_weights_are_loaded(local_weights: dict[str, torch.Tensor]) -> None:
    loaded = create_model("squeezenet1_1", pretrained=True).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in local_weights.items())


def test_pretrained_weights_serve_other_classes_and_channels(local_weights: dict[str, torch.Tensor]) -> None:
    original = create_model("squeezenet1_1", pretrained=True).eval()
    grey = create_model("squeezenet1_1", in_channels=1, pretrained=True).eval()
    image = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(grey(image), original(image.expand(-1, 3, -1, -1)))
    fewer = create_model("squeezenet1_1", num_classes=4, pretrained=True).eval()
    colour = torch.rand(1, 3, 64, 64)
    assert fewer(colour).shape == (1, 4)
    torch.testing.assert_close(fewer.features(colour), original.features(colour))


def test_a_failed_download_says_where_to_put_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(ModelError, match=r"weights of resnet18 can be neither found in .*checkpoints nor downloaded"):
        create_model("resnet18", pretrained=True)
