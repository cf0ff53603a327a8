"""What a network's layers cost in time on this machine, as a function of their widths."""
