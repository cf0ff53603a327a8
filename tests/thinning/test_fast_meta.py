"""What is found without torch is what torch finds: shapes, types, layouts in memory."""

import random

import pytest
import torch

from potstill.thinning.running.fast_meta import ONE, RESIZE, TWO, execute

aten = torch.ops.aten
CASES = [
    ((2, 4, 9), (6, 4, 3), [1], [0], [1], False, [0], 1),
    ((2, 4, 9, 8), (6, 4, 3, 2), [2, 1], [1, 0], [1, 2], False, [0, 0], 1),
    ((2, 4, 9, 8), (8, 1, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 4),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 3), [1, 2, 3], [1, 1, 1], [1, 1, 1], False, [0, 0, 0], 1),
    ((2, 4, 5, 5), (4, 3, 3, 3), [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
]
LAYOUTS = {
    "contiguous": lambda t: t,
    "channels last": lambda t: t.to(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(1, 2),
    "turned": lambda t: t.permute(3, 0, 2, 1),
    "every other": lambda t: t[:, ::2],
    "with gaps": lambda t: t.to(memory_format=torch.channels_last).flatten(2)[..., 6:].unflatten(2, (4, 6)),
    "a part": lambda t: t[..., :3],
    "repeated": lambda t: t[:, :1].expand(-1, 5, -1, -1),
    "one": lambda t: t[:1, :1].transpose(0, 3),
}
SCALARS = {"leaky_relu": (0.1,), "clamp": (-0.5, 0.5), "clamp_min": (0.1,), "clamp_max": (0.1,)}


def assert_same(func, *args, strides=True, **options):
    """Carry an operation out without memory and compare with torch's own results."""

    def bare(value):
        if isinstance(value, list):
            return [bare(item) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")

    found, expected = execute(func, tuple(bare(arg) for arg in args), options), func(*args, **options)
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    for a, b in pairs:
        assert a.is_meta
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert not strides or laid(a) == laid(b)


def laid(tensor):
    """The strides that matter."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution(case, layout):
    (size, kernel, *rest) = case
    x, weight = torch.randn(size), torch.randn(kernel)
    x = x.to(memory_format=layout) if x.ndim == 4 else x
    assert_same(aten.convolution.default, x, weight, None, *rest, strides=False)  # torch's differ by device


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ONE.split())
def test_operations_on_one_tensor(name, layout):
    x = LAYOUTS[layout](torch.rand(2, 4, 5, 6))
    assert_same(getattr(aten, name).default, x, *SCALARS.get(name, ()))
    if hasattr(aten, name + "_") and layout != "repeated":
        assert_same(getattr(aten, name + "_").default, x.clone(), *SCALARS.get(name, ()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TWO.split())
def test_operations_on_two_tensors(name, layout):
    x = LAYOUTS[layout](torch.rand(2, 4, 5, 6))
    func = getattr(aten, name)
    for other in (x, x.contiguous(), torch.rand(x.shape[1], 1, 1), torch.rand(()), x.double(), x[:1]):
        assert_same(func.Tensor, x, other)
        assert_same(func.Tensor, other, x)
    assert_same(func.Scalar, x, 2)
    assert_same(func.Scalar, x, 2j)
    assert_same(func.Scalar, x.to(torch.int32), 0.5)


def random_layout(shape):
    """A tensor that can be broadcast to a shape: with other sizes 1, turned, with gaps, repeated."""
    sizes = [1 if random.random() < 0.25 else size for size in shape]
    sizes = sizes[random.randrange(len(sizes)) :] if random.random() < 0.2 else sizes
    order = random.sample(range(len(sizes)), len(sizes))
    x = torch.rand([sizes[dim] + (random.random() < 0.15) for dim in order]).permute(
        [*map(order.index, range(len(sizes)))]
    )
    for dim, size in enumerate(sizes):
        x = x.narrow(dim, 0, size)
    if random.random() < 0.2:
        x = x[tuple(slice(0, 1 + (random.random() < 0.5) * size) for size in sizes)].expand(sizes)
    return x


def test_layouts_of_tensors_that_differ():
    random.seed(0)
    for _ in range(500):
        shape = random.choices(range(1, 5), k=random.randint(1, 5))
        assert_same(aten.add.Tensor, random_layout(shape), random_layout(shape))
        assert_same(aten.mul.Tensor, random_layout(shape), 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_joined_averaged_rolled(layout):
    x = LAYOUTS[layout](torch.rand(2, 4, 5, 6))
    for dim in range(-4, 4):
        assert_same(aten.cat.default, [x, x], dim)
        assert_same(aten.cat.default, [x, x.contiguous()[:, :, :0], x], 2)
        assert_same(aten.cat.default, [x, x.double()], dim)
        for keep in (True, False):
            assert_same(aten.mean.dim, x, [dim], keep)
            assert_same(aten.linalg_vector_norm.default, x, 2, [dim], keep)
    assert_same(aten.mean.dim, x, [1, -1], True)
    assert_same(aten.mean.default, x)
    assert_same(aten.mean.dim, x, [2], False, dtype=torch.float64)
    assert_same(aten.linalg_vector_norm.default, x, 1.0)
    for shifts, dims in (([1, -2], [1, 3]), ([3], [-1])):
        assert_same(aten.roll.default, x, shifts, dims, strides=x.is_contiguous())  # torch's differ by device
    assert_same(aten.roll.default, x, [3])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_of_an_image(layout):
    x = LAYOUTS[layout](torch.rand(2, 4, 5, 6))
    image, how = x.shape[2:], ([3, 2], [1, 2], [1, 1], [2, 1])
    blocks = aten.im2col.default(x, *how)
    assert_same(aten.im2col.default, x, *how)
    assert_same(aten.im2col.default, x[0], *how)
    assert_same(aten.col2im.default, blocks, list(image), *how)
    assert_same(aten.col2im.default, blocks[0], list(image), *how)


def test_layers():
    x, weight, bias = torch.rand(6, 4), torch.rand(4, 3), torch.rand(3)
    assert_same(aten.addmm.default, bias, x, weight)
    assert_same(aten.addmm.default, torch.rand(1), x, weight)
    x = torch.rand(2, 5, 4, 3)
    for shape in ([3], [4, 3]):
        assert_same(aten.native_layer_norm.default, x, shape, torch.rand(shape), None, 1e-5)
        assert_same(aten.native_layer_norm.default, x, shape, None, torch.rand(shape), 1e-5)
    assert_same(aten.native_layer_norm.default, x.transpose(1, 2), [3], None, None, 1e-5)
    assert_same(aten._softmax.default, x, 2, False)
    assert_same(aten._softmax.default, x.transpose(1, 2), -1, False)
    if hasattr(aten, "_safe_softmax"):  # since torch 2.5
        assert_same(aten._safe_softmax.default, x.transpose(1, 2), -1)


def test_factors_and_results_of_its_own():
    x, y, weight, bias = (torch.empty(size, device="meta") for size in ((6, 4), (6, 4), (4, 3), (3,)))
    assert execute(aten.addmm.default, (bias, x, weight), {"beta": 0.5, "alpha": 2}).shape == (6, 3)
    assert execute(aten.add.out, (x, x), {"out": y}) is y
    assert execute(aten._softmax.out, (x, 1, False), {"out": y}) is y


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RESIZE.split())
def test_resizing(name, layout):
    func, x = getattr(aten, name), LAYOUTS[layout](torch.rand(2, 4, 5, 6))
    assert_same(func.default, x, [7, 3], False, None, None)
    assert_same(func.vec, x, [7, 3], True, None)
    assert_same(func.vec, x, None, False, [2.0, 1.5])


@pytest.mark.parametrize("image", [(5, 6), (4, 5, 6)])
def test_sampling_at_points(image):
    func = aten.grid_sampler_2d.default if len(image) == 2 else aten.grid_sampler_3d.default
    x, points = torch.rand(2, 3, *image), torch.rand(2, 7, *image[1:], len(image))
    assert_same(func, x, points, 0, 0, False)
    assert_same(func, x, points.flip(1), 0, 0, False)
    assert_same(func, x[:, ::2], points, 0, 0, False, strides=False)  # torch's differ by device


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training):
    vectors = [torch.rand(5) for _ in range(4)]
    assert_same(aten.native_batch_norm.default, torch.rand(2, 5, 4, 4), *vectors, training, 0.1, 1e-5)


@pytest.mark.parametrize(
    ("func", "args", "message"),
    [
        (aten.convolution.default, ((1, 4, 5, 5), (6, 3, 3, 3), None, *CASES[1][2:]), "channel"),
        (aten.addmm.default, ((3,), (2, 5), (4, 3)), "same reduction dim"),
        (aten.add.Tensor, ((2, 3), (2, 4)), "size|broadcast"),
        (aten.add_.Tensor, ((1, 3), (2, 3)), "shape|broadcast"),
        (aten.native_layer_norm.default, ((2, 3), [4], (4,), None, 1e-5), "shape"),
        (aten.im2col.default, ((1, 2, 3, 3), [5, 5], [1, 1], [0, 0], [1, 1]), "shape|size"),
        (aten.col2im.default, ((1, 10, 4), [3, 3], [2, 2], [1, 1], [0, 0], [1, 1]), "divisible"),
        (aten.col2im.default, ((1, 8, 5), [3, 3], [2, 2], [1, 1], [0, 0], [1, 1]), "sliding blocks|expected input"),
        (aten.mean.dim, ((2, 3), [2]), "out of range"),
        (aten.roll.default, ((2, 3), [1], [2]), "out of range"),
        (aten.grid_sampler_2d.default, ((2, 3, 4, 4), (1, 5, 5, 2), 0, 0, False), "batch|invalid"),
        (
            aten.native_batch_norm.default,
            ((2, 3, 4), (4,), (4,), (3,), (3,), True, 0.1, 1e-5),
            "4 elements",
        ),
    ],
)
def test_what_does_not_fit_is_left_to_torch(func, args, message):
    made = tuple(torch.empty(arg, device="meta") if isinstance(arg, tuple) else arg for arg in args)
    with pytest.raises((RuntimeError, ValueError, IndexError), match=message):
        execute(func, made, {})
