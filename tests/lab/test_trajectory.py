"""The trajectory's file holds the parameters as they were at its steps."""

import pytest
import torch
from safetensors.torch import load_file

import compress_classifier
from potstill.command.monitors.trajectory import FILE, Trajectory, TrajectoryOption
from potstill.command.monitors.trajectory_record import SAMPLE, WHOLE, records
from potstill.command.plots.trajectory import principal_path
from potstill.compression.files.checked import CheckpointError, Field

SCHEDULE = """
pruners:
  level: {class: SparsityLevelParameterPruner, levels: {layers.4.weight: 0.5}}
policies:
  - {pruner: {instance_name: level}, epochs: [1]}
"""
BASE = ["--arch", "mlp_bn", "--dataset", "digits", "--limit-train", "120", "--limit-test", "40", "-b", "30"]


def run(out, *more):
    (out.parent / "s.yaml").write_text(SCHEDULE)
    return compress_classifier.main([*BASE, "--compress", str(out.parent / "s.yaml"), "-o", str(out), *more])


def test_records_equal_the_parameters_at_their_steps(tmp_path, monkeypatch):
    seen = {}
    stepped = compress_classifier.Session.stepped

    def spy(session):
        seen[session.steps + 1] = {name: p.detach().cpu().clone() for name, p in session.model.named_parameters()}
        stepped(session)

    monkeypatch.setattr(compress_classifier.Session, "stepped", spy)
    assert run(tmp_path / "out", "--epochs", "3", "--trajectory", "layers.*:2") == 0
    tensors = load_file(tmp_path / "out" / "latest" / FILE)
    assert tensors["steps"].tolist() == list(range(0, 13, 2))
    for place, step in enumerate(tensors["steps"].tolist()[1:], 1):
        for name, expected in seen[step].items():
            if expected.numel() <= WHOLE:
                assert torch.equal(tensors[name][place], expected), (name, step)
            else:
                coordinates = tensors[f"{name}/coordinates"]
                assert len(coordinates) == SAMPLE == len(set(coordinates.tolist()))
                assert torch.equal(tensors[f"{name}/sample"][place], expected.flatten()[coordinates])
                assert tensors[f"{name}/norm"][place] == pytest.approx(float(expected.norm()), rel=1e-5)
                assert tensors[f"{name}/mean"][place] == pytest.approx(float(expected.mean()), abs=1e-6)
    assert (tensors["layers.4.weight/sample"][-1] == 0).any(), "records are of masked weights"


def test_a_resumed_run_writes_the_file_of_the_whole_one(tmp_path, monkeypatch):
    extra = ["--epochs", "3", "--trajectory", "*:2", "--checkpoint-every", "2"]
    assert run(tmp_path / "whole", *extra) == 0
    stepped = compress_classifier.Session.stepped

    def kill(session):
        stepped(session)
        if session.steps == 7:
            raise KeyboardInterrupt  # at once, without a checkpoint: what was recorded after the last is lost

    with monkeypatch.context() as patch:
        patch.setattr(compress_classifier.Session, "stepped", kill)
        with pytest.raises(SystemExit):
            run(tmp_path / "parts", *extra)
    assert compress_classifier.main(["--resume-from", str(tmp_path / "parts" / "latest")]) == 0
    whole, parts = ((tmp_path / name / "latest" / FILE).read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_a_state_brings_the_records_back():
    model = torch.nn.Linear(2, 1)
    first = Trajectory(model, ["*"], 1)
    first.record(0)
    first.record(1)
    second = Trajectory(model, ["*"], 1)
    second.restore(Field(first.state(), "trajectory"))
    assert second.steps == [0, 1]
    assert all(torch.equal(second.tensors()[name], tensor) for name, tensor in first.tensors().items())


def test_other_parameters_begin_anew_with_a_warning(caplog):
    model = torch.nn.Linear(2, 1)
    old, other = Trajectory(model, ["*"], 1), Trajectory(model, ["bias"], 1)
    old.record(0)
    other.restore(Field(old.state(), "trajectory"))
    assert other.steps == []
    assert "the trajectory begins anew: the one so far is of other parameters or shapes" in caplog.text


def test_a_damaged_state_is_told():
    trajectory = Trajectory(torch.nn.Linear(2, 1), ["*"], 1)
    trajectory.record(0)
    state = trajectory.state() | {"records": torch.zeros(1, 2)}
    with pytest.raises(CheckpointError) as caught:
        trajectory.restore(Field(state, "trajectory"))
    told = "trajectory.records: expected a tensor of shape [1, 3], found a tensor of float32 [1, 2]"
    assert told in str(caught.value)


def test_a_shape_that_changes_is_told_and_leaves_gaps(caplog):
    model = torch.nn.Linear(2, 3)
    trajectory = Trajectory(model, ["weight", "bias"], 1)
    trajectory.record(0)
    model.weight.data = model.weight.data[:2]
    trajectory.record(1)
    found = records(trajectory.tensors())
    assert found["weight"].values[1].isnan().all() and not found["bias"].values.isnan().any()
    assert "thinning changed the shape of weight" in caplog.text
    path, _ = principal_path(found["weight"].values)
    assert len(path) == 1


def test_the_sample_follows_from_the_name_and_leaves_random_state_alone():
    before = torch.get_rng_state()
    places = [Trajectory(torch.nn.Linear(50, 50), ["weight"], 1).tensors()["weight/coordinates"] for _ in range(2)]
    assert torch.equal(*places)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    trajectory = Trajectory(torch.nn.Linear(50, 50), ["weight"], 1)
    torch.set_rng_state(state)
    trajectory.record(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)


def test_scalars_have_trajectories_too():
    model = torch.nn.Module()
    model.scale = torch.nn.Parameter(torch.tensor(2.0))
    trajectory = Trajectory(model, ["scale"], 1)
    trajectory.record(0)
    record = records(trajectory.tensors())["scale"]
    assert record.values.tolist() == [[2.0]] and record.place(0) == ()


def test_principal_path_of_points_on_a_line_has_one_component():
    direction = torch.tensor([3.0, 4.0, 0.0])
    path, shares = principal_path(torch.arange(5.0)[:, None] * direction)
    assert path[:, 0].diff().abs().tolist() == pytest.approx([5] * 4)
    assert path[:, 1].abs().max() < 1e-6
    assert shares.tolist() == pytest.approx([1, 0])


def test_options_are_read_and_refused():
    assert TrajectoryOption.parse("a.*,b:7") == TrajectoryOption(("a.*", "b"), 7)
    assert TrajectoryOption.parse("*").interval(500) == 10
    assert TrajectoryOption.parse("*").interval(50_001) == 51
    assert TrajectoryOption.parse("*:3").interval(50_001) == 3
    for text in ("", "a,,b", "a:0", "a:", "a:x"):
        with pytest.raises(ValueError, match="is not PATTERN"):
            TrajectoryOption.parse(text)


def test_a_pattern_that_fits_nothing_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "out", "--epochs", "1", "--trajectory", "layers.1.wieght")
    assert caught.value.code == 2
    assert "--trajectory: the name 'layers.1.wieght' fits no parameter (did you mean layers.1.weight" in (
        capsys.readouterr().err
    )


def test_plots_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    assert run(tmp_path / "out", "--epochs", "2", "--trajectory", "--plot") == 0
    drawn = {path.name for path in (tmp_path / "out" / "latest").glob("*.png")}
    assert {"norms.png", "weights.png", "path.png"} <= drawn
