"""Greedy pruning: in each step the channels go whose absence hurts least after fine-tuning."""
