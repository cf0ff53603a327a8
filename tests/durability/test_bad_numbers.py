"""A loss or gradient that is not finite: named, kept from the weights, and from the checkpoints."""

import pytest
import torch

import compress_classifier
from potstill.command.run import bad_numbers
from potstill.command.run.epochs import after_epoch
from potstill.compression import load_checkpoint

SMALL = ["-a", "simplenet_cifar", "--limit-train", "96", "--limit-test", "20", "-b", "32", "--epochs", "2"]
STEPS = 3


@pytest.fixture
def spoil(monkeypatch):
    """Spoils something when the forward pass of one minibatch begins."""

    def at(moment, damage):
        class Spoiling(bad_numbers.Watch):
            def __init__(self, run, images):
                super().__init__(run, images)
                if (run.epoch, run.minibatch) == moment:
                    damage(run, images)

        monkeypatch.setattr(compress_classifier, "Watch", Spoiling)

    return at


def infinite_weight(run, images):
    with torch.no_grad():
        run.model.conv2.weight[0, 0, 0, 0] = torch.inf


def image_not_a_number(run, images):
    images[3, 0, 5, 5] = torch.nan


def layer_overflows(run, images):
    def overflow(module, args, output):
        return output * torch.inf if (run.epoch, run.minibatch) == (1, 1) else output

    run.model.fc1.register_forward_hook(overflow)


def gradient_not_a_number(run, images):
    run.model.fc2.weight.register_hook(
        lambda gradient: gradient * torch.nan if (run.epoch, run.minibatch) == (1, 1) else gradient
    )


def stopped(capsys, *more):
    with pytest.raises(SystemExit) as stop:
        compress_classifier.main([*SMALL, *more])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        (infinite_weight, "the first to go bad is the parameter conv2.weight"),
        (image_not_a_number, "the first to go bad is the images of this minibatch"),
        (layer_overflows, "the first to go bad is the output of fc1 (Linear)"),
        (gradient_not_a_number, "the loss is finite, but a gradient is not at epoch 1, minibatch 1; the first to go"),
    ],
)
def test_stops_names_the_first_and_leaves_the_last_good_checkpoint(tmp_path, spoil, capsys, damage, first):
    spoil((1, 1), damage)
    said = stopped(capsys, "-o", str(tmp_path))
    assert first in said
    assert "at epoch 1, minibatch 1" in said
    path = tmp_path / "latest" / "checkpoint.pt"
    assert f"{path.resolve()} is the last good checkpoint" in said
    checkpoint = load_checkpoint(path)
    assert (checkpoint["epoch"], checkpoint["minibatch"]) == (1, 0)
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


@pytest.mark.parametrize("damage", [image_not_a_number, layer_overflows, gradient_not_a_number])
def test_a_skipped_step_changes_nothing(tmp_path, spoil, monkeypatch, damage):
    before, after = {}, {}

    def remember(run, where):
        where.update({n: t.clone() for n, t in run.model.state_dict().items()})
        where["momentum"] = [s["momentum_buffer"].clone() for s in run.optimizer.state.values()]

    def damage_after_remembering(run, images):
        remember(run, before)
        damage(run, images)

    spoil((1, 1), damage_after_remembering)
    stepped = compress_classifier.Session.stepped

    def stepped_and_remembered(run):
        if (run.epoch, run.minibatch) == (1, 1):
            remember(run, after)
        stepped(run)

    monkeypatch.setattr(compress_classifier.Session, "stepped", stepped_and_remembered)
    assert compress_classifier.main([*SMALL, "--on-nan", "skip", "-o", str(tmp_path)]) == 0
    assert before.keys() == after.keys()
    for name in before.keys() - {"momentum"}:
        assert torch.equal(before[name], after[name]), name
    assert all(torch.equal(a, b) for a, b in zip(before["momentum"], after["momentum"], strict=True))
    checkpoint = load_checkpoint(tmp_path / "latest" / "checkpoint.pt")
    assert [row.get("skipped") for row in checkpoint["rows"]] == [None, 1]
    assert checkpoint["meter"]["images"] == 64 and checkpoint["meter"]["skipped"] == 1
    assert "the optimizer's step is left out" in (tmp_path / "latest" / "run.log").read_text()


def test_running_statistics_of_a_skipped_step_are_those_of_before(tmp_path, spoil):
    spoil((0, 1), lambda run, images: images.fill_(torch.nan))
    options = ["-a", "resnet20_cifar", *SMALL[2:-1], "1", "--limit-validation", "10"]
    assert compress_classifier.main([*options, "--on-nan", "skip", "-o", str(tmp_path)]) == 0
    state = load_checkpoint(tmp_path / "latest" / "checkpoint.pt")["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert state["bn1.num_batches_tracked"] == STEPS - 1


def test_skipping_does_not_go_on_with_bad_weights(tmp_path, spoil, capsys):
    spoil((0, 2), infinite_weight)
    said = stopped(capsys, "--on-nan", "skip", "-o", str(tmp_path))
    assert "the parameter conv2.weight" in said
    assert "a lower --lr may help)" in said


def test_an_epoch_of_nothing_but_skipped_steps_ends_the_run(tmp_path, monkeypatch, capsys):
    class Always(bad_numbers.Watch):
        def __init__(self, run, images):
            super().__init__(run, images.fill_(torch.nan))

    monkeypatch.setattr(compress_classifier, "Watch", Always)
    assert "every minibatch of epoch 0 was skipped" in stopped(capsys, "--on-nan", "skip", "-o", str(tmp_path))


def test_bad_weights_are_not_written_over_good_ones(tmp_path, monkeypatch, capsys):
    def spoil_and_go_on(run, scores):
        infinite_weight(run, None)
        after_epoch(run, scores)

    monkeypatch.setattr(compress_classifier, "after_epoch", spoil_and_go_on)
    assert "conv2.weight has values that are not finite: no checkpoint" in stopped(capsys, "-o", str(tmp_path))
    assert load_checkpoint(tmp_path / "latest" / "checkpoint.pt")["epoch"] == 0


SOFT = """
pruners:
  soft: {class: SparsityLevelParameterPruner, levels: {fc1.weight: 0.5}}
policies:
  - pruner: {instance_name: soft, args: {mask_on_forward_only: true, use_double_copies: true}}
    starting_epoch: 0
    ending_epoch: 2
    frequency: 1
"""


def test_dense_copies_survive_a_skipped_step_and_masks_stay_finite(tmp_path, spoil, monkeypatch):
    (tmp_path / "soft.yaml").write_text(SOFT)
    seen = {}

    def look(run, images):
        seen["before"] = run.scheduler.masks["fc1.weight"].dense.clone()
        images.fill_(torch.nan)

    stepped = compress_classifier.Session.stepped

    def stepped_and_looked(run):
        if (run.epoch, run.minibatch) == (1, 1):
            entry = run.scheduler.masks["fc1.weight"]
            seen["after"], seen["mask"] = entry.dense.clone(), entry.mask.clone()
        stepped(run)

    spoil((1, 1), look)
    monkeypatch.setattr(compress_classifier.Session, "stepped", stepped_and_looked)
    options = [*SMALL, "--compress", str(tmp_path / "soft.yaml"), "--on-nan", "skip", "-o", str(tmp_path / "runs")]
    assert compress_classifier.main(options) == 0
    assert torch.equal(seen["before"], seen["after"])
    assert seen["before"].count_nonzero() == seen["before"].numel()
    assert set(seen["mask"].unique().tolist()) == {0.0, 1.0}
