"""`--dry-run`: what the tables and the picture say, against schedules whose effect is known by hand."""

import re
import sys
from pathlib import Path

import pytest

import compress_classifier
from potstill.command.modes.policy_table import idle, when
from potstill.compression import PrunerArgs, RegularizerArgs, Window
from potstill.models import create_model

NET = "simplenet_mnist"


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """Dry-run a schedule; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(schedule, *more, arch=NET):
        (tmp_path / "s.yaml").write_text(schedule)
        assert compress_classifier.main(["-a", arch, "--compress", "s.yaml", "--dry-run", "--table", "csv", *more]) == 0
        return capsys.readouterr().out

    return run


def timeline(text):
    """Epochs -> (learning rate, percent of parameters that are zero, or else gone, parameters, MACs)."""
    rows = re.findall(r"^(\d+(?:-\d+)?),([\d.e-]+),([\d.]+),([\d.]+),(\d+),(\d+)$", text, re.MULTILINE)
    return {
        epochs: (float(rate), max(float(zeros), float(gone)), int(size), int(macs))
        for epochs, rate, zeros, gone, size, macs in rows
    }


LEVELS = """
pruners:
  p: {class: SparsityLevelParameterPruner, levels: {fc1.weight: 0.5}}
policies:
  - {pruner: {instance_name: p, args: {ARGS}}, starting_epoch: 1, ending_epoch: 3, frequency: 1}
  - {pruner: {instance_name: p, args: {levels: {fc2.weight: 0.25, fc1.weight: 0.9}}}, epochs: [4]}
"""


def test_sparsity_counts_what_masks_hold(told):
    """Zeros of an untrained network, its biases, come to life in training; so do weights that a soft mask leaves."""
    text = told(LEVELS.replace("ARGS", "mask_on_forward_only: true"), "--epochs", "6")
    sizes = {name: p.numel() for name, p in create_model(NET).named_parameters()}
    total = sum(sizes.values())
    one, both = (int(0.5 * sizes["fc1.weight"]), int(0.9 * sizes["fc1.weight"]) + int(0.25 * sizes["fc2.weight"]))
    rows = timeline(text)
    assert list(rows) == ["0", "1-2", "3", "4-5"]
    assert [row[2] for row in rows.values()] == pytest.approx([total] * 4, rel=0.03)
    assert [row[1] for row in rows.values()] == pytest.approx([0, 100 * one / total, 0, 100 * both / total], abs=0.5)
    assert "p (epochs 1-2) names 1 parameter:\n  fc1.weight\n" in text
    assert "p (epoch 4) names 2 parameters:\n  fc2.weight, fc1.weight\n" in text
    assert "pruner,p,SparsityLevelParameterPruner,epochs 1-2,0.5,mask_on_forward_only: true,1\n" in text
    assert "pruner,p,SparsityLevelParameterPruner,epoch 4,0.25 to 0.9,,2\n" in text


WARMED = """
lr_schedulers: {drop: {class: StepLR, step_size: 3, gamma: 0.5}}
extensions: {warm: {class: WarmUp, start: 0.2}}
policies:
  - {lr_scheduler: {instance_name: drop}, starting_epoch: 0, ending_epoch: 6}
  - {extension: {instance_name: warm}, starting_epoch: 0, ending_epoch: 2}
"""


@pytest.mark.parametrize(
    ("schedule", "options", "rates"),
    [
        (WARMED, [], [0.4 * 0.6, 0.4, 0.4, 0.2, 0.2, 0.2]),  # 0.2 + 0.8 / 2 of it after one epoch of two
        (LEVELS.replace("ARGS", ""), ["--warmup-epochs", "4"], [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]),
    ],
)
def test_a_warm_up_shows_in_the_learning_rate(told, schedule, options, rates):
    text = told(schedule, "--epochs", "6", "--lr", "0.4", *options)
    found = []
    for epochs, row in timeline(text).items():
        first, _, last = epochs.partition("-")
        found += [row[0]] * (int(last or first) - int(first) + 1)
    assert found == pytest.approx(rates)


REMARKS = """
pruners:
  agp: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.5, weights: [fc1.weight]}
  rigl: {class: RigLPruner, sparsity: 0.5, weights: [conv2.weight]}
regularizers:
  lasso: {class: L1Regularizer, reg_regims: {fc1.weight: 1e-4}}
policies:
  - {pruner: {instance_name: agp}, starting_epoch: 0, ending_epoch: 5, frequency: 2}
  - {regularizer: {instance_name: lasso}, epochs: [3]}
  - {pruner: {instance_name: rigl}, starting_minibatch: 0, ending_minibatch: 300, minibatch_frequency: 100}
"""


def test_remarks(told):
    text = told(REMARKS)
    assert "warning: agp (epochs 0-4, every 2) and lasso (epoch 3) overlap: both act on fc1.weight\n" in text
    assert "warning: lasso goes by the values of weights: in training it acts otherwise than here" in text
    assert "warning: rigl counts minibatches, so that without data it is not in the timeline by epochs" in text
    assert "agp goes by" not in text
    assert 'pruner,rigl,RigLPruner,"minibatches 0-299, every 100",0.5,1\n' in text
    assert {row[2] for row in timeline(text).values()} == {431_080}


def test_overlap_counts_parameters_and_names_windows(told):
    levels = LEVELS.replace("ARGS", "levels: {fc1.weight: 0.9, fc2.weight: 0.1}")
    text = told(levels.replace("epochs: [4]", "epochs: [2, 4]"))
    assert "warning: p (epochs 1-2) and p (epochs 2, 4) overlap: both act on fc1.weight and 1 more parameter\n" in text


LATE = """
lr_schedulers:
  late: {class: ExponentialLR, gamma: 0.5}
policies:
  - {lr_scheduler: {instance_name: late}, starting_epoch: 3, ending_epoch: 5, frequency: 1}
"""


def test_21_the_rate_after_a_late_start_is_shown(told):
    """The curve began at epoch 0, as Distiller's did: the rate falls by four halvings at once."""
    rates = {epochs: row[0] for epochs, row in timeline(told(LATE, "--epochs", "7", "--lr", "0.8")).items()}
    assert rates == {"0-3": 0.8, "4": 0.05, "5-6": 0.025}


TEACHER = """
extensions:
  t: {class: KnowledgeDistillationPolicy, arch: mlp_bn, checkpoint: none_yet.pt}
policies:
  - {extension: {instance_name: t}, starting_epoch: 0, ending_epoch: 2}
"""


def test_classes_are_called_as_in_the_schedule_and_nothing_is_an_empty_line(told):
    text = told(TEACHER, "--table", "text")
    assert "| extension | t          | KnowledgeDistillationPolicy | epochs 0-1 |" in text
    assert "\n\n" not in text.strip()


def test_missing_samples_are_told_where_training_has_none_either(told):
    schedule = """
pruners:
  p: {class: FMReconstructionChannelPruner, desired_sparsity: 0.5, weights: [conv2.weight]}
policies:
  - {pruner: {instance_name: p}, epochs: [EPOCH]}
"""
    assert "conv2.weight: no samples yet" in told(schedule.replace("EPOCH", "0"))
    text = told(schedule.replace("EPOCH", "1"))
    assert "no samples" not in text
    assert timeline(text)["1"][1] > timeline(text)["0"][1]


@pytest.mark.parametrize("kind", ["ActivationAPoZRankedFilterPruner", "GradientRankedFilterPruner"])
def test_pruners_that_watch_training_have_something_to_watch(told, kind):
    """They take as many filters as in training; other ones, which changes no number but the zeros that images make."""
    text = told(f"""
pruners:
  p: {{class: {kind}, desired_sparsity: 0.5, weights: [conv2.weight]}}
extensions:
  t: {{class: FilterRemover, thinning_func_str: remove_filters, arch: any, dataset: any}}
policies:
  - {{pruner: {{instance_name: p}}, epochs: [0, 1, 3]}}
  - {{extension: {{instance_name: t}}, epochs: [2]}}
""")
    assert text.count("nothing to rank its structures by yet") == 1, "at epoch 0, as in training"
    filters = 50
    sizes = {epochs: row[2] for epochs, row in timeline(text).items()}
    each = 20 * 5 * 5 + 1 + 500 * 4 * 4  # its weights and bias, and what reads it
    half = 431_080 - filters // 2 * each  # zeros in epoch 1, removed in epoch 2
    assert sizes == {"0": 431_080, "1": half, "2": half, "3": 431_080 - (filters - 13) * each}


def test_minibatches_alone_have_no_timeline(told):
    schedule = REMARKS.replace("starting_epoch: 0, ending_epoch: 5, frequency: 2", "minibatches: [7]")
    text = told(schedule.replace("epochs: [3]", "starting_minibatch: 3, ending_minibatch: 4"))
    assert timeline(text) == {}
    assert "warning: agp counts minibatches" in text
    assert "lasso (minibatch 3) names 1 parameter:\n  fc1.weight" in text


def test_what_was_pruned_before_stays_pruned(told, tmp_path):
    small = ["-a", NET, "--limit-train", "64", "--limit-test", "32", "--limit-validation", "32", "-o", "runs"]
    hard = LEVELS.replace("ARGS", "").replace("starting_epoch: 1, ending_epoch: 3, frequency: 1", "epochs: [0]")
    told(hard)
    assert compress_classifier.main([*small, "--compress", "s.yaml", "--epochs", "1"]) == 0
    later = "pruners: {q: {class: NMPruner, weights: conv2.weight}}\n"
    later += "policies: [{pruner: {instance_name: q}, epochs: [1]}]"
    rows = timeline(told(later, "--resume-from", "runs/latest/checkpoint.pt"))
    assert rows["0"][1] == pytest.approx(100 * 200_000 / 431_080, abs=0.2)
    assert rows["1"][1] > rows["0"][1]


def test_picture(told, tmp_path):
    text = told(LEVELS.replace("ARGS", ""), "--plot", "-o", "out", "-n", "dry")
    (folder,) = (tmp_path / "out").iterdir()  # and no link `latest`: there is nothing to go on with
    assert folder.name.startswith("dry_")
    assert {path.name for path in folder.iterdir()} == {"timeline.png", "timeline.svg", "run.log"}
    assert f"wrote out/{folder.name}/timeline.png, out/{folder.name}/timeline.svg" in text
    svg = (folder / "timeline.svg").read_text()
    assert "<!-- p (0.5, 1 parameter) -->" in svg and "<!-- p (0.25 to 0.9, 2 parameters) -->" in svg


def test_the_page_shows_what_is_printed(told, capsys):
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
    schedule = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]
    printed = told(schedule, "--table", "text", arch="resnet20_cifar").splitlines()
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    lines = [line for line in shown.splitlines() if line.strip() != "..."]
    assert len(lines) > 10
    assert [line for line in lines if line not in printed] == []


@pytest.mark.parametrize("more", [["--compress", "s.yaml", "--dry-run"], ["--epochs", "1", "--limit-train", "64"]])
def test_missing_matplotlib_is_told_before_anything_runs(more, told, tmp_path, monkeypatch, capsys):
    told(LEVELS.replace("ARGS", ""))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as caught:
        compress_classifier.main(["-a", NET, *more, "--plot"])
    assert caught.value.code == 2
    assert '--plot needs the extra "plot": pip install "potstill[plot]"' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window.between(0, 30, 2), "epochs 0-29, every 2"),
        (Window.between(5, 6), "epoch 5"),
        (Window.between(0, 10, 10), "epochs 0-9, every 10"),
        (Window.at([3, 7]), "epochs 3, 7"),
        (Window.between(0, 9, 1, "minibatch"), "minibatches 0-8"),
    ],
)
def test_times_in_words(window, text):
    assert when(window) == text


def test_no_more_epochs_are_walked_than_anybody_reads(told, monkeypatch):
    """A schedule may say that it ends in the year 3000."""
    monkeypatch.setattr(sys.modules["potstill.command.modes.dry_run"], "LONGEST", 3)
    text = told(LEVELS.replace("{ARGS}", "{}").replace("ending_epoch: 3", "ending_epoch: 1000000000"))
    assert list(timeline(text)) == ["0", "1-2"]
    assert "warning: of 1,000,000,000 epochs the timeline shows the first 3\n" in text


@pytest.mark.parametrize(
    ("args", "window", "minibatches", "message"),
    [
        (RegularizerArgs(threshold_at="epoch"), Window.between(3, 8, 1, "minibatch"), 9, "r never zeroes: it"),
        (RegularizerArgs(threshold_at="epoch"), Window.between(3, 9, 1, "minibatch"), 9, ""),
        (RegularizerArgs(threshold_at="epoch"), Window.at([3]), 9, ""),
        (PrunerArgs(skip_first_minibatch=True), Window.at([3]), 1, "r never acts: it skips the first minibatch"),
        (PrunerArgs(skip_first_minibatch=True), Window.at([3]), 2, ""),
        (None, Window.at([3]), 1, ""),
    ],
)
def test_arguments_that_minibatches_make_idle(args, window, minibatches, message):
    assert idle("r", args, window, minibatches).startswith(message)
    assert bool(idle("r", args, window, minibatches)) == bool(message)


def test_warnings_are_told_beside_mistakes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(LEVELS.replace("ARGS", "keep: 1") + "lr_schedulers:\n")
    with pytest.raises(SystemExit):
        compress_classifier.main(["-a", NET, "--compress", "s.yaml", "--dry-run"])
    told = capsys.readouterr()
    assert "s.yaml:7: lr_schedulers: is empty" in told.out + told.err
    assert "args.keep: there is no such argument" in told.err
