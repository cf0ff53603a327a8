"""What watches a run: early stopping, trajectory, TensorBoard."""
