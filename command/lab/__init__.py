"""The course lab's symmetry experiment."""
