"""What other libraries left, made ours: checkpoints of Distiller's, state dicts, recipes of SparseML."""
