"""A run: session, prepare, resume, folder, epochs, finish."""
