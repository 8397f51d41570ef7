"""Python's garbage collector, told what folds and answers are like."""

import gc

ALLOCATIONS = 200_000  # more than a batch makes, or a hundred answers


def collect_seldom() -> None:
    """Look for cycles once in many batches, or answers. What they are made of holds none, is tens of thousands of tuples at once, and was
    walked over again and again while it was made: a third of a worker's time, a tenth of the gateway's."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 20, 100)
