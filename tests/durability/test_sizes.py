"""Numbers and attributes in recipes and stored networks: compared with the network before anything is made of them."""

import copy
import json
import resource

import pytest
import torch
from torch import nn

import compress_classifier
from potstill.compression import CheckpointError, load_checkpoint, save_checkpoint
from potstill.compression.files.checked import check_plain
from potstill.models import create_model
from potstill.thinning import Recipe, ThinningError, load, resize_by, save, thin
from potstill.thinning.attributes import is_size, size_problem
from potstill.thinning.dense_size import dense_problem
from potstill.thinning.kept_ranges import KeptRanges, kept_count, kept_ranges


def recipe_of(**fields):
    lists = ("tensors", "attributes", "folds", "frozen", "refused", "notes")
    empty = {"format": "potstill-recipe", "version": 1, "model": "x", "inputs": None, **{n: [] for n in lists}}
    measured = {"max_relative_difference": 0.0, "parameters": [1, 1], "macs": [1, 1]}
    return json.dumps({**empty, **measured, **fields})


def net():
    torch.manual_seed(0)
    return create_model("simplenet_cifar").eval()


def state_of(model):
    attributes = [
        {k: v for k, v in vars(m).items() if isinstance(v, (bool, int, float, str, tuple))} for m in model.modules()
    ]
    return copy.deepcopy(model.state_dict()), attributes


def assert_unchanged(model, before):
    after = state_of(model)
    assert after[1] == before[1]
    assert all(torch.equal(after[0][name], before[0][name]) for name in before[0])


def check_refused(text, match):
    model = net()
    before = state_of(model)
    with pytest.raises(ThinningError, match=match) as caught:
        Recipe.from_json(text).apply(model)
    assert "\n" not in str(caught.value)
    assert_unchanged(model, before)


def test_ranges_are_not_made_before_they_are_compared(monkeypatch):
    size = 2 * 10**12
    tensor = {"name": "conv1.weight", "shape": [size], "keep": {"0": [[0, 5], [7, size]]}}
    recipe = Recipe.from_json(recipe_of(tensors=[tensor]))
    monkeypatch.setattr(torch, "arange", lambda *a, **k: pytest.fail("made"))
    assert recipe.tensors[0].new_shape == (size - 2,)
    assert f"{size - 2}" in str(recipe)
    assert json.loads(recipe.to_json())["tensors"] == [tensor]
    for act in (recipe.apply, lambda model: resize_by(model, model.state_dict(), [recipe])):
        with pytest.raises(ThinningError, match="of shape"):
            act(net())


def test_ranges_are_what_indices_are():
    kept = torch.tensor([0, 1, 2, 5, 8, 9])
    ranges = kept_ranges({0: kept}, 0)
    assert ranges == ((0, 3), (5, 6), (8, 10))
    again = KeptRanges({0: ranges})
    assert torch.equal(again[0], kept) and kept_count(again, 0) == kept_count({0: kept}, 0) == 6
    assert 0 in again and 1 not in again


def change(name, new, index=None, old=1, module="conv1"):
    return {"module": module, "name": name, "index": index, "old": old, "new": new}


SLICED = {"name": "conv1.bias", "shape": [6], "keep": {"0": [[0, 5]]}}


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (change("padding", [3000, 3000], old=[0, 0]), "is no number of channels"),
        (change("stride", [0, 0], old=[1, 1]), "is no number of channels"),
        (change("stride", 0, 0), "is no number of channels"),
        (change("training", 7, module=""), "is no integer"),
        (change("transposed", 1, old=0), "is no integer"),
        (change("kernel_size", 5, old=[5, 5]), "is no number of channels"),
        (change("in_channels", 4, old=3), "is 3 and cannot become 4"),
        (change("in_channels", 0, old=3), "is 3 and cannot become 0"),
        (change("in_channels", [3, 3], old=3), "another kind of value"),
        (change("in_channels", 2, 0, 3), "has no number 0"),
        (change("in_channels", 2, None, 5), "expects 'conv1.in_channels' of 5, found 3"),
        (change("in_channels", 10**400, None, 3), "a whole number"),
        (change("_parameters", 1), "the name of an attribute"),
        (change("no_such", 1), "is no integer"),
        (change("in_channels", 2, module="nowhere", old=3), "for another model"),
    ],
)
def test_attributes_are_sizes_that_become_less(wrong, match):
    check_refused(recipe_of(tensors=[SLICED], attributes=[wrong]), match)


def test_sizes_alone_are_not_explained():
    check_refused(recipe_of(attributes=[change("in_channels", 2, old=3)]), "no tensor: nothing explains them")


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.sizes, self.stride, self._hidden = 8, (4, 4), 2, 8


def test_sizes_of_own_modules():
    own = Own()
    assert is_size(own, "heads") and is_size(own, "sizes")
    assert is_size(own, "_hidden") and not is_size(own, "__hidden") and not is_size(own, "_modules.part.heads")
    assert not is_size(own, "stride") and not is_size(nn.MaxPool2d(2), "kernel_size")
    assert is_size(nn.Conv2d(2, 2, 1), "groups") and is_size(nn.Unflatten(1, (2, 2)), "unflattened_size")
    assert size_problem(own, "heads", 4) == "" and size_problem(own, "sizes", 3, 1) == ""
    assert size_problem(own, "sizes", (4, 3)) == "" and size_problem(own, "sizes", (4, 3, 2)) != ""
    assert size_problem(own, "sizes", 3, 2) == "has no number 2"


TEXTS = {
    "digits": '{"format": ' + "9" * 5000 + "}",
    "brackets": "[" * 200_000,
    "braces": '{"a":' * 200_000,
    "superscript": recipe_of(tensors=[{**SLICED, "keep": {"²": [[0, 1]]}}]),
    "arabic": recipe_of(tensors=[{**SLICED, "keep": {"٠": [[0, 1]]}}]),
    "zeros": recipe_of(tensors=[{**SLICED, "keep": {"0": [[0, 1]], "00": [[1, 2]]}}]),
    "twice": recipe_of(tensors=[SLICED]).replace('"0": [[0, 5]]', '"0": [[0, 5]], "0": [[1, 2]]'),
    "large": recipe_of(max_relative_difference=10**400),
    "amounts": recipe_of(folds=[{"name": "conv1.bias", "amounts": [10**400] * 6}]),
    "drawn": recipe_of(inputs={"args": [{"shape": [2], "dtype": "system"}], "kwargs": {}}),
    "bytes": b"\xff\xfe",
    "nothing": None,
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_reader_raises_its_own_error(name):
    with pytest.raises(ThinningError) as caught:
        Recipe.from_json(TEXTS[name])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_dense_network_is_bounded_before_it_is_built():
    def build(width):
        return nn.Sequential(nn.Linear(16, width), nn.BatchNorm1d(width), nn.Linear(width, 16))

    state, made = torch.get_rng_state(), without_memory(lambda: dense_problem(lambda: build(2 * 10**9), 10**6))
    assert "the dense network would take" in made and "it holds 1,000,000" in made
    assert torch.equal(torch.get_rng_state(), state)
    assert dense_problem(lambda: build(64), 1) == ""
    assert dense_problem(lambda: build(2 * 10**7), 10**8) == ""  # 20 times the file


def without_memory(act):
    """What an act returns, if it took no memory to speak of."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = act()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    return found


def test_a_checkpoint_cannot_ask_for_a_huge_network(tmp_path, capsys):
    """17 million classes of a small file: an expanded tensor explains none."""
    model = create_model("mlp")
    contents = {"epoch": 0, "minibatch": 0, "arch": "mlp", "state_dict": model.state_dict(), "input_shape": [1, 28, 28]}
    for wide in (torch.zeros(1, dtype=torch.uint8).expand(2**24), torch.zeros(2**24, dtype=torch.uint8)):
        state = {**contents["state_dict"], "wide": wide}
        torch.save({"format": 1, **contents, "state_dict": state, "num_classes": 2**24}, tmp_path / "c.pt")
        with pytest.raises(SystemExit):
            compress_classifier.main(["-a", "mlp", "--exp-load-weights-from", str(tmp_path / "c.pt"), "--dry-run",
                                      "--compress", "x", "-o", str(tmp_path)])  # fmt: skip
        said = capsys.readouterr().err
        assert "num_classes" in said or "the dense network would take" in said, said


def test_small_tensors_cannot_stand_for_many_large_ones():
    wide = torch.zeros(1).expand(2**22)
    check_plain({str(number): wide for number in range(10)})
    with pytest.raises(CheckpointError, match=r"its tensors have 1,342,177,280 bytes, and the file 4"):
        check_plain({str(number): wide for number in range(80)})


def test_inputs_of_any_size_are_not_drawn():
    huge = {"args": [{"shape": [10**6, 10**6], "dtype": "float32"}], "kwargs": {}}
    assert Recipe.from_json(recipe_of(inputs=huge)).inputs is None


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    model = net()
    with torch.no_grad():
        for name in ("conv1", "fc1"):
            layer = model.get_submodule(name)
            layer.weight[1:3], layer.bias[1:3] = 0, 0
    return save(model, thin(model, torch.randn(2, 3, 32, 32)), tmp_path_factory.mktemp("stored") / "net")


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda facts: facts["attributes"].append(["conv1", "padding", [3000, 3000]]), "no number of channels"),
        (lambda facts: facts["attributes"].append(["conv1", "in_channels", 2]), "weights say 3"),
        (lambda facts: facts["attributes"].append(["", "training", 7]), "is no integer"),
        (lambda facts: facts["recipe"]["tensors"][0].update(shape=[10**9], keep={"0": [[0, 10**9]]}), "a recipe "),
        (lambda facts: facts.update(sha256=3), "must be a text"),
        (lambda facts: facts.update(inputs={"args": [{"tensor": "output.0"}], "kwargs": {}}), "does not run with it"),
        (lambda facts: facts.update(inputs={"args": {}, "kwargs": []}), "damaged|does not run"),
    ],
)
def test_a_stored_network_is_loaded_whole_or_not_at_all(stored, tmp_path, spoil, match):
    for path in stored.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    facts = json.loads((tmp_path / "net.json").read_text())
    spoil(facts)
    (tmp_path / "net.json").write_text(json.dumps(facts))
    model = net().train()
    before = state_of(model)
    with pytest.raises(ThinningError, match=match) as caught:
        load(model, tmp_path / "net")
    assert "\n" not in str(caught.value)
    assert_unchanged(model, before)
    assert load(net(), stored).conv1.out_channels == 4


@pytest.mark.parametrize(("field", "value"), [("input_shape", [1, 4096, 4096]), ("num_classes", 10**6)])
def test_a_checkpoint_does_not_say_what_its_network_takes(tmp_path, capsys, field, value):
    """Images of 4096 x 4096 and a million classes would take any memory."""
    net_of = ["-a", "symmetry", "--dataset", "symmetry", "--epochs", "1", "-o", str(tmp_path)]
    assert compress_classifier.main(net_of) == 0
    path = tmp_path / "latest" / "checkpoint.pt"
    save_checkpoint(path, {**load_checkpoint(path), field: value})
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main(["--resume-from", str(path.parent), "--summary", "sparsity"])
    assert stop.value.code == 2
    assert f"{field}: expected" in capsys.readouterr().err


def test_a_refused_resize_leaves_every_size():
    model = net()
    before = state_of(model)
    wrong = [change("in_channels", 2, old=3), change("stride", [0, 0], old=[1, 1])]
    with pytest.raises(ThinningError, match="is no number of channels"):
        resize_by(model, model.state_dict(), [Recipe.from_json(recipe_of(attributes=wrong))])
    assert_unchanged(model, before)
