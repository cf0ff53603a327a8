"""Callbacks for training frameworks, a file each; each imports its framework only when it is itself imported."""
