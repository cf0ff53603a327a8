"""What the command line needs beside its training loop: options, the run folder, evaluation, reports."""
