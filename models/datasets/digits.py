"""scikit-learn's handwritten digits: 1,797 grey images of 8x8, shipped with the library, so nothing is downloaded.

They are the test part of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin and Kaynak 1998), values 0
to 16. A fifth of each class, always the same, is the test set.
"""

from __future__ import annotations

from pathlib import Path

import torch

from .errors import DatasetError
from .raw import RawData, RawPart, register_dataset
from .seeding import Use
from .selection import stratified_sample
from .settings import Settings

TEST_PART = 0.2
HIGHEST = 16
MEAN, STD = (0.3053,), (0.3760,)  # of all pixels, over the highest value


@register_dataset("digits", num_classes=10)
def read(folder: Path | None, settings: Settings) -> RawData:
    """Handwritten digits of scikit-learn, resized to 32x32 unless the model asks otherwise."""
    if folder is not None:
        raise DatasetError(f"digits come with scikit-learn and read no folder: leave {folder} out")
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images * (255 / HIGHEST)).round().byte().unsqueeze(1)
    everything = RawPart(images, torch.from_numpy(data.target).long())
    test = stratified_sample(everything.labels, TEST_PART, 0, Use.TEST)
    rest = sorted(set(range(len(images))) - set(test))
    return RawData(
        classes=[str(name) for name in data.target_names],
        train=everything.subset(rest),
        test=everything.subset(test),
        input_shape=(1, 32, 32),
        mean=MEAN,
        std=STD,
        augmentation="shift",
    )
