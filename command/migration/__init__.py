"""What other libraries left, made ours: recipes of SparseML as schedules."""
