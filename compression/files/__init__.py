"""Files: checked readers, checkpoints, atomic writes; one implementation for the whole project."""
