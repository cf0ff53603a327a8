"""Distillation against the formula written out, and against a training loop without a scheduler."""

import copy
import io
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from potstill.compression import (
    CheckpointError,
    CompressionScheduler,
    DistillationError,
    DistillationLossWeights,
    KnowledgeDistillationPolicy,
    RegularizationPolicy,
    distillation_loss,
)
from potstill.compression.distillation import digest, logits_of
from potstill.compression.regularizers import L1Regularizer

STEPS = 3
WEIGHTS = DistillationLossWeights(distill=0.7, student=0.2)


def network(seed, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 4))


def student_network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))


def batches():
    source = torch.Generator().manual_seed(0)
    return [(torch.randn(7, 6, generator=source), torch.randint(4, (7,), generator=source)) for _ in range(STEPS)]


def setting(temperature=3.0, weights=WEIGHTS, teacher=None):
    """A student with its scheduler and optimizer, and the policy."""
    student = student_network()
    policy = KnowledgeDistillationPolicy(student, network(2) if teacher is None else teacher, temperature, weights)
    scheduler = CompressionScheduler(student, torch.zeros(2, 6))
    scheduler.add_policy(policy, starting_epoch=0, ending_epoch=2)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    return SimpleNamespace(student=student, policy=policy, scheduler=scheduler, optimizer=optimizer)


def train(run, epochs=2):
    for epoch in range(epochs):
        run.scheduler.on_epoch_begin(epoch, run.optimizer, STEPS)
        for i, (x, y) in enumerate(batches()):
            at = (epoch, i, STEPS)
            run.scheduler.on_minibatch_begin(*at, run.optimizer)
            loss = F.cross_entropy(run.student(x), y)
            result = run.scheduler.before_backward_pass(*at, loss, run.optimizer, return_loss_components=True)
            run.parts = {name: value.item() for name, value in result.loss_components}
            run.optimizer.zero_grad()
            result.overall_loss.backward()
            run.scheduler.before_parameter_optimization(*at, run.optimizer)
            run.optimizer.step()
            run.scheduler.on_minibatch_end(*at, run.optimizer)
        run.scheduler.on_epoch_end(epoch, run.optimizer, {}, STEPS)
    return run


def by_hand(student, teacher, temperature=3.0, epochs=2, weights=WEIGHTS, strength=0.0):
    """The same training without a scheduler, with the divergence written out."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    teacher.eval()
    for _ in range(epochs):
        for x, y in batches():
            logits = student(x)
            p = (teacher(x).detach() / temperature).exp()
            q = (logits / temperature).exp()
            p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
            divergence = (p * (p / q).log()).sum() / len(x)
            loss = weights.student * F.cross_entropy(logits, y) + weights.distill * temperature**2 * divergence
            loss = loss + strength * student[0].weight.abs().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return student


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_loss_and_its_gradient_are_the_formulas(temperature):
    ours, theirs = torch.randn(5, 3, dtype=torch.double, requires_grad=True), torch.randn(5, 3, dtype=torch.double)
    p, q = (theirs / temperature).softmax(1), (ours / temperature).softmax(1)
    loss = distillation_loss(ours, theirs.requires_grad_(), temperature)
    torch.testing.assert_close(loss, temperature**2 * (p * (p / q).log()).sum(1).mean())
    loss.backward()
    torch.testing.assert_close(ours.grad, temperature * (q - p).detach() / 5)  # Hinton et al. 2015, eq. 2, times T^2
    assert theirs.grad is None


def test_loss_at_each_place_is_the_mean_over_places():
    ours, theirs = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    flat = [x.movedim(1, -1).reshape(-1, 4) for x in (ours, theirs)]
    torch.testing.assert_close(distillation_loss(ours, theirs, 2.0), distillation_loss(*flat, 2.0))


def test_equal_answers_cost_nothing_and_half_precision_is_computed_in_float32():
    logits = torch.randn(3, 4)
    assert float(distillation_loss(logits, logits.clone(), 2.0)) == pytest.approx(0, abs=1e-6)
    assert distillation_loss(logits.bfloat16(), logits.bfloat16() + 1).dtype == torch.float32


def test_training_is_that_of_a_plain_loop():
    run = train(setting())
    expected = by_hand(student_network(), network(2))
    for a, b in zip(run.student.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_teacher_stays_as_it_was_and_runs_once_a_minibatch():
    teacher, calls = network(2), []
    before = copy.deepcopy(teacher.state_dict())
    teacher.register_forward_hook(lambda module, args, output: calls.append((module.training, output.requires_grad)))
    train(setting(teacher=teacher))
    assert calls == [(False, False)] * 2 * STEPS
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_teacher_that_was_set_to_training_mode_is_set_back():
    run = setting()
    run.policy.teacher.train()
    before = copy.deepcopy(run.policy.teacher[1].running_mean)
    train(run)
    assert torch.equal(run.policy.teacher[1].running_mean, before)


@pytest.mark.parametrize("first", [True, False])
def test_regularizers_count_in_full_whatever_the_order(first):
    student, teacher = student_network(), network(2)
    scheduler = CompressionScheduler(student)
    policies = [KnowledgeDistillationPolicy(student, teacher, 3.0, WEIGHTS), None]
    policies[1] = RegularizationPolicy(L1Regularizer({"0.weight": 0.05}))
    for policy in policies if first else reversed(policies):
        scheduler.add_policy(policy, starting_epoch=0, ending_epoch=2)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    run = train(SimpleNamespace(student=student, scheduler=scheduler, optimizer=optimizer))
    assert list(run.parts) == ["distillation_loss", "L1Regularizer_loss"]
    expected = by_hand(student_network(), network(2), strength=0.05)
    for a, b in zip(student.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_part_of_the_loss_is_what_was_added():
    run = setting(weights=DistillationLossWeights(0.7, 0.0))
    run.scheduler.on_minibatch_begin(0, 0, STEPS, run.optimizer)
    x, y = batches()[0]
    loss = F.cross_entropy(run.student(x), y)
    total, [(name, value)] = run.scheduler.before_backward_pass(
        0, 0, STEPS, loss, run.optimizer, return_loss_components=True
    )
    assert name == "distillation_loss"
    assert total.item() == pytest.approx(value.item())
    expected = 0.7 * distillation_loss(run.student(x), run.policy.teacher(x), 3.0)
    assert value.item() == pytest.approx(expected.item())


def test_attached_to_the_optimizer_with_the_weighed_loss():
    run = setting()
    attachment = run.scheduler.attach(run.optimizer, STEPS)
    for x, y in batches() * 2:
        run.optimizer.zero_grad()
        attachment.loss(F.cross_entropy(run.student(x), y)).backward()
        run.optimizer.step()
    for a, b in zip(run.student.parameters(), train(setting()).student.parameters(), strict=True):
        assert torch.equal(a, b)


def test_attached_without_the_weighed_loss_it_says_what_to_do():
    run = setting()
    run.scheduler.attach(run.optimizer, STEPS)
    x, y = batches()[0]
    F.cross_entropy(run.student(x), y).backward()
    with pytest.raises(DistillationError, match=r"with attach\(\), call backward on `attachment.loss\(loss\)`"):
        run.optimizer.step()


def test_forward_of_distiller_runs_the_student():
    run = setting()
    x, y = batches()[0]
    run.scheduler.on_minibatch_begin(0, 0, STEPS, run.optimizer)
    loss = F.cross_entropy(run.policy.forward(x), y)
    assert run.scheduler.before_backward_pass(0, 0, STEPS, loss, run.optimizer) > 0


def test_validation_and_copies_within_a_minibatch_are_not_listened_to():
    run = setting()
    (x, y), (other, _), _ = batches()
    run.scheduler.on_minibatch_begin(0, 0, STEPS, run.optimizer)
    loss = F.cross_entropy(run.student(x), y)
    with torch.no_grad():
        run.student(other)
    run.student.eval()(other)
    run.student.train()
    copy.deepcopy(run.student)(other)
    total = run.scheduler.before_backward_pass(0, 0, STEPS, loss, run.optimizer)
    divergence = distillation_loss(run.student(x), run.policy.teacher(x), 3.0)
    torch.testing.assert_close(total, 0.2 * loss + 0.7 * divergence)


def test_no_hook_stays_on_the_student():
    run = train(setting())
    assert not run.student._forward_hooks
    assert list(run.student.state_dict()) == list(student_network().state_dict())


@pytest.mark.parametrize("passes", [0, 2])
def test_the_student_must_run_once(passes):
    run = setting()
    x, y = batches()[0]
    elsewhere = F.cross_entropy(run.student(x), y)
    run.scheduler.on_minibatch_begin(0, 0, STEPS, run.optimizer)
    for _ in range(passes):
        run.student(x)
    with pytest.raises(DistillationError, match=f"the student ran {passes} times between on_minibatch_begin and"):
        run.scheduler.before_backward_pass(0, 0, STEPS, elsewhere, run.optimizer)


def test_teacher_sees_the_autocast_of_the_student():
    run, kinds = setting(), []
    run.policy.teacher.register_forward_hook(lambda module, args, output: kinds.append(output.dtype))
    run.scheduler.on_minibatch_begin(0, 0, STEPS, run.optimizer)
    with torch.autocast(batches()[0][0].device.type, torch.bfloat16):
        run.student(batches()[0][0])
    assert kinds == [torch.bfloat16]


def test_state_names_the_teacher_and_holds_no_weight_of_it():
    run = setting()
    state = run.scheduler.state_dict()["policies"]["0_KnowledgeDistillationPolicy"]
    assert state == {"teacher": digest(run.policy.teacher)}
    assert len(state["teacher"]) == 64
    run.scheduler.load_state_dict(setting().scheduler.state_dict())
    other = setting(teacher=network(3))
    with pytest.raises(CheckpointError, match="the teacher is not the one that this run began with"):
        run.scheduler.load_state_dict(other.scheduler.state_dict())


def test_resumed_in_the_middle_it_ends_the_same():
    whole, first = train(setting(), 2), train(setting(), 1)
    file = io.BytesIO()
    torch.save([x.state_dict() for x in (first.student, first.optimizer, first.scheduler)], file)
    second = setting()
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    for part, state in zip((second.student, second.optimizer, second.scheduler), saved, strict=True):
        part.load_state_dict(state)
    train(second, 1)
    for a, b in zip(whole.student.parameters(), second.student.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("temperature", "weights", "what"),
    [
        (0.0, (0.5, 0.5), "the temperature must be above 0, not 0"),
        (-2.0, (0.5, 0.5), "the temperature must be above 0, not -2"),
        (math.nan, (0.5, 0.5), "the temperature must be above 0, not nan"),
        (1.0, (-0.5, 0.5), "the distill weight must be 0 or more, not -0.5"),
        (1.0, (0.5, math.inf), "the student weight must be 0 or more, not inf"),
        (1.0, (0.5, 0.5, 0.1), "the teacher is frozen: its loss must have weight 0, not 0.1"),
        (1.0, (0.0, 0.0), "the distill and the student weight are both 0: nothing would be learned"),
    ],
)
def test_settings_that_cannot_be(temperature, weights, what):
    with pytest.raises(DistillationError, match=f"^{what}$"):
        setting(temperature, DistillationLossWeights(*weights))


def test_a_shared_parameter_would_freeze_the_student():
    student = student_network()
    with pytest.raises(DistillationError, match=r"share 0\.weight: make the teacher a copy"):
        CompressionScheduler(student).add_policy(KnowledgeDistillationPolicy(student, student), epochs=[0])
    assert student[0].weight.requires_grad


def test_answers_about_other_classes_are_refused():
    run = setting(teacher=nn.Linear(6, 3))
    run.scheduler.on_minibatch_begin(0, 0, STEPS, run.optimizer)
    with pytest.raises(DistillationError, match=r"teacher's logits have shape \[7, 3\], the student's \[7, 4\]"):
        run.student(batches()[0][0])


def test_logits_are_found_in_outputs_of_several_kinds():
    logits = torch.zeros(2, 3)
    for output in (logits, SimpleNamespace(logits=logits), {"logits": logits}):
        assert logits_of(output, "student") is logits
    with pytest.raises(DistillationError, match="the teacher gives a tuple, not logits"):
        logits_of((logits, logits), "teacher")
