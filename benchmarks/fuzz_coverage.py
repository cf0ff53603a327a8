"""Coverage-guided fuzzing of the readers of texts, with atheris: it mutates towards code that was not reached yet.

    pip install atheris                                        # where it installs
    python benchmarks/fuzz_coverage.py schedules -runs=100000  # or recipes; options and corpora are libFuzzer's

A reader may refuse with its own error; any other exception ends the run with the input that led to it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

Reader = Callable[[bytes], None]


def schedules(folder: Path) -> Reader:
    """Check a schedule against a network."""
    from potstill.compression import ScheduleError
    from potstill.compression.language.check import check_file
    from potstill.models import create_model

    model = create_model("simplenet_mnist")

    def read(content: bytes) -> None:
        (folder / "schedule.yaml").write_bytes(content)
        try:
            check_file(folder / "schedule.yaml", model)
        except ScheduleError:
            return

    return read


def recipes(folder: Path) -> Reader:
    """Read a recipe and apply it to a network."""
    from potstill.models import create_model
    from potstill.thinning import Recipe, ThinningError

    def read(content: bytes) -> None:
        try:
            Recipe.from_json(content.decode(errors="surrogateescape")).apply(create_model("simplenet_mnist"))
        except ThinningError:
            return

    return read


READERS = {reader.__name__: reader for reader in (schedules, recipes)}


def main() -> None:
    """Fuzz the reader that is named first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=list(READERS))
    options, others = parser.parse_known_args()
    try:
        import atheris
    except ImportError:
        sys.exit("this needs atheris: pip install atheris")
    with tempfile.TemporaryDirectory() as folder:
        with atheris.instrument_imports(include=["potstill"]):
            reader = READERS[options.reader](Path(folder))
        atheris.Setup([sys.argv[0], *others], reader)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
