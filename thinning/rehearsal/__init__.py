"""Try a removal on a copy of the model, and mend what the model's own code has fixed."""
