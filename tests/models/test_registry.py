import pytest
import torch
from torch import nn

from potstill.models import ModelError, create_model, model_info, model_names, register_model

OWN = [name for name in model_names() if model_info(name).source == "potstill"]


@pytest.mark.parametrize("name", OWN)
def test_every_own_model_maps_its_usual_input_to_its_classes(name: str) -> None:
    info = model_info(name)
    with torch.device("meta"):
        model = create_model(name).eval()
        scores = model(torch.empty(2, *info.input_shape))
    outputs = 1 if name == "symmetry" else info.num_classes
    assert scores.shape == (2, outputs)
    assert info.description
    assert "\n" not in info.description


@pytest.mark.parametrize("name", [name for name in OWN if name != "symmetry"])
def test_every_own_model_takes_other_classes_and_channels(name: str) -> None:
    _, height, width = model_info(name).input_shape
    with torch.device("meta"):
        model = create_model(name, num_classes=7, in_channels=2).eval()
        assert model(torch.empty(2, 2, height, width)).shape == (2, 7)


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"no model is called 'resnet20_cifer' \(did you mean resnet20_cifar"):
        create_model("resnet20_cifer")
    with pytest.raises(ModelError, match=r"no model is called 'zzz'; there are \d+, see model_names\(\)"):
        model_info("zzz")


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ModelError, match="num_classes and in_channels must be at least 1, not 0 and 3"):
        create_model("googlenet_cifar", num_classes=0)
    with pytest.raises(ModelError, match="tells two classes apart, not 10"):
        create_model("symmetry", num_classes=10)


def test_own_models_have_no_pretrained_weights() -> None:
    with pytest.raises(ModelError, match="simplenet_cifar: there are no pretrained weights; only torchvision's"):
        create_model("simplenet_cifar", pretrained=True)


def test_a_registered_model_is_known_by_name_and_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.models import registry

    monkeypatch.setattr(registry, "_infos", dict(registry._infos))
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))

    @register_model("one_layer", input_shape=(1, 2, 2), num_classes=3)
    def one_layer(num_classes: int, in_channels: int) -> nn.Module:
        """A single Linear.

        More words.
        """
        return nn.Sequential(nn.Flatten(), nn.Linear(4 * in_channels, num_classes))

    assert "one_layer" in model_names()
    assert model_info("one_layer").description == "A single Linear."
    assert create_model("one_layer")(torch.zeros(5, 1, 2, 2)).shape == (5, 3)
    for name, owner in (("one_layer", "one_layer"), ("resnet18", "torchvision")):
        with pytest.raises(ModelError, match=f"'{name}' is already taken by .*{owner}"):
            register_model(name, input_shape=(1, 2, 2), num_classes=3)(lambda classes, channels: nn.Identity())
