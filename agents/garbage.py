"""Python's garbage collector, told what a fold is like."""

import gc

ALLOCATIONS = 200_000  # more than a batch makes


def collect_seldom() -> None:
    """Look for cycles once in many batches. What a batch is made of holds none, is tens of thousands of tuples at once, and was walked over
    again and again while it was made: a third of the worker's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 20, 100)
