"""`--write-schema`: the JSON Schema of schedules, for editors."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from potstill.compression.files.checkpoints import write_atomically
from potstill.compression.schedule import json_schema

logger = logging.getLogger("potstill")


def write_schema(path: Path) -> None:
    """Write the schema with all classes that schedules can name, those of plugins too.

    Raises:
        CheckpointError: the file cannot be written.
    """
    text = json.dumps(json_schema(), indent=1) + "\n"
    write_atomically(path, text.encode())
    logger.info("wrote %s; for editors, a schedule beside it begins with", path)
    logger.info("# yaml-language-server: $schema=%s", path.name)
