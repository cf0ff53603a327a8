"""Mutants of schedules: each loads, or is refused with a line for each mistake; long form: `--mutations 10000`."""

import random

from potstill.compression.schedule import load_schedule

from ..compression.test_schedule_check import SCHEDULE
from ..compression.test_schedule_properties import MODEL, WORDS, fair
from .mutate import mutate_bytes, no_hang


def mutate_text(text, chance):
    """Insert words of the language, move and repeat lines, change what follows a colon, shift indentation."""
    lines = text.splitlines(keepends=True)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines))
        kind = chance.choice(["word", "line", "copy", "drop", "value", "indent", "nest", "alias"])
        if kind == "word":
            spot = chance.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:spot] + chance.choice(WORDS) + lines[at][spot:]
        elif kind == "line":
            lines.insert(at, lines.pop(chance.randrange(len(lines))))
        elif kind == "copy":
            lines.insert(at, lines[chance.randrange(len(lines))])
        elif kind == "drop":
            del lines[at]
            lines = lines or ["\n"]
        elif kind == "value" and ":" in lines[at]:
            lines[at] = lines[at].partition(":")[0] + ": " + chance.choice(WORDS).strip("\n") + "\n"
        elif kind == "indent":
            lines[at] = " " * chance.randint(0, 6) + lines[at].lstrip()
        elif kind == "nest":
            lines[at] = "[" * chance.choice([1, 49, 51, 5000]) + lines[at]
        elif kind == "alias":
            lines[at] = lines[at].rstrip("\n") + " &x [*x, *x]\n"
    return "".join(lines)


def test_mutants_of_a_schedule(tmp_path, mutations, fuzz_seed):
    file = tmp_path / "s.yaml"
    file.write_text(SCHEDULE)
    assert load_schedule(file, MODEL, name="s.yaml").policies
    for number in range(mutations):
        chance = random.Random(f"{fuzz_seed} {number}")
        text = mutate_text(SCHEDULE, chance)
        raw = text.encode("utf-8", "replace")
        file.write_bytes(mutate_bytes(raw, chance) if number % 4 == 0 else raw)
        with no_hang():
            try:
                assert fair(file), "neither taken nor refused in lines"
            except Exception as error:
                raise AssertionError(f"mutant {number} of seed {fuzz_seed}:\n{text[:3000]}") from error
