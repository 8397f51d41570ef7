"""Figures, side by side: ours and its baseline alternate in one run, and are only compared where both were right."""
