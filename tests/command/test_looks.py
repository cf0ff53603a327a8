"""What is shown of a network: confusions, statistics of activations, a picture of its graph."""

import copy
import os
import stat

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compress_classifier
from potstill.command.errors import UsageError
from potstill.command.monitors.activation_stats import ActivationStats
from potstill.command.plots.network import dot_text, draw_network, network_graph
from potstill.command.run.confusion import confusion_matrix, confusion_text
from potstill.models import create_model
from potstill.models.datasets import load_dataset
from potstill.thinning import thin


def test_confusion_counts_each_image_once():
    data = load_dataset("digits", input_shape=(3, 32, 32), limit_test=57)
    model = create_model("simplenet_cifar")
    counts = confusion_matrix(model, data.test, 10, 20, torch.device("cpu"))
    expected = torch.zeros(10, 10, dtype=torch.int64)
    for images, labels in data.test.batches(57):
        for label, answer in zip(labels, model.eval()(images).argmax(1), strict=True):
            expected[label, answer] += 1
    assert torch.equal(counts, expected)
    text = confusion_text(torch.tensor([[3, 1], [0, 0]]), ["cat", "dog"], "csv")
    assert "cat,3,1,75.0" in text.replace(".00", ".0") and text.splitlines()[0] == "Class,cat,dog,Right (%)"


def test_a_matrix_has_not_any_size(tmp_path, monkeypatch, capsys):
    """Its memory grows with the square of the number of classes: said before the run begins."""
    monkeypatch.setattr("potstill.command.run.confusion.MOST", 9)
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main(["-a", "mlp", "--dataset", "digits", "--confusion", "-o", str(tmp_path)])
    assert stop.value.code == 2
    assert "--confusion prints 9 classes at most, and there are 10: leave it out" in capsys.readouterr().err


def test_statistics_are_those_of_the_outputs(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    inputs = [torch.randn(5, 3, 8, 8) for _ in range(3)]
    stats = ActivationStats()
    with stats.watching(model, training=True):
        for images in inputs:
            model(images)
        thin(model, inputs[0])
        model.eval()(torch.randn(1, 3, 8, 8) * 100)
        copy.deepcopy(model).train()(torch.randn(1, 3, 8, 8) * 100)
        model.train()
    model(torch.randn(1, 3, 8, 8) * 100)  # nobody watches any more
    table = stats.table()
    outputs = torch.cat([model[:2](images) for images in inputs]).detach()
    row = table[(table["module"] == "1") & (table["channel"] == "")].iloc[0]
    found = [row["zeros (%)"], row["mean"], row["mean abs"], row["std"], row["min"], row["max"]]
    wanted = [100 * (outputs == 0).double().mean(), outputs.mean(), outputs.abs().mean()]
    wanted += [outputs.double().std(correction=0), outputs.min(), outputs.max()]
    assert found == pytest.approx([float(value) for value in wanted], rel=1e-5)
    channels = table[(table["module"] == "1") & (table["channel"] != "")]
    assert channels["zeros (%)"].tolist() == pytest.approx(
        (100 * (outputs == 0).double().mean((0, 2, 3))).tolist(), rel=1e-6
    )
    assert set(table["module"]) == {"0", "1", "2", "3"}
    path = stats.write(tmp_path, "test")
    assert path.name == "activations_test.csv" and len(path.read_text().splitlines()) == len(table) + 1
    assert stats.table().empty


class Branches(nn.Module):
    """A sum of two branches, one of them by a function, and a loop that no symbolic tracer follows."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.first(x)
        side = F.relu(x)
        while float(x.abs().mean()) > 1e9:
            x = x / 2
        return (self.second(x) + side).mean((2, 3))


def test_the_graph_follows_tensors():
    graph = network_graph(Branches(), torch.randn(2, 3, 6, 6), parameters=True)
    labels = [node.label for node in graph.nodes]
    heads = [label.splitlines()[0] for label in labels]
    place = {head: number for number, head in enumerate(heads)}.__getitem__
    edges = {(source, target) for source, target, _ in graph.edges}
    wanted = [("input", "first"), ("first", "second"), ("first", "relu"), ("second", "add"), ("relu", "add")]
    assert {(place(a), place(b)) for a, b in [*wanted, ("add", "mean"), ("mean", "output")]} <= edges
    assert "weight 4x3x1x1" in labels[place("first")] and (0, place("first"), (3, 6, 6)) in graph.edges
    text = dot_text(graph)
    assert text.count("->") == len(graph.edges) and 'n0 [label="input"' in text


def test_every_layer_of_a_network_is_in_its_graph():
    model = create_model("googlenet_cifar")
    graph = network_graph(model, torch.randn(1, 3, 32, 32))
    ran = {node.label.splitlines()[0] for node in graph.nodes if node.is_module}
    assert {name for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))} <= ran
    reached = {0}
    for source, target, _ in graph.edges:
        assert source in reached  # in order, and all from the input
        reached.add(target)
    assert reached == set(range(len(graph.nodes)))


def test_a_picture_needs_graphviz(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"model.dot is written, but .* Graphviz"):
        draw_network(Branches(), torch.randn(1, 3, 6, 6), tmp_path / "model")
    assert (tmp_path / "model.dot").read_text().startswith("digraph")
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\necho picture\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), "/bin", "/usr/bin"]))
    picture = draw_network(Branches(), torch.randn(1, 3, 6, 6), tmp_path / "model")
    assert picture.read_text() == "picture\n"


def test_other_summaries_are_printed_where_graphviz_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit):
        compress_classifier.main(["-a", "simplenet_cifar", "--summary", "png", "--summary", "modules"])
    said = capsys.readouterr()
    assert "conv2" in said.out and "Graphviz" in said.err and (tmp_path / "model.dot").exists()
