"""How often each pair occurs in two columns, counted when somebody asks.

The texts lie there once each, and by their numbers in the column, as in Arrow's dictionary encoding: an occurrence takes 16 bytes, and two
batches become one, or minutes hours, without a look at each.
"""

from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Meant = Callable[[int], Any]


class Occurrences(Mapping[tuple[str, Any], int]):
    """`texts[which[i]]` with `numbers[i]`, for each i; pairs hold what each number is `meant` as, different ones differently."""

    def __init__(self, texts: Sequence[str], which: Numbers, numbers: Numbers, meant: Meant = int) -> None:
        self.numbers = numbers
        self._texts = texts
        self._which = which
        self._meant = meant

    @classmethod
    def of(cls, texts: Sequence[str], numbers: Numbers, meant: Meant = int) -> "Occurrences":
        """Of two columns of one length."""
        distinct = list(dict.fromkeys(texts))
        return cls(distinct, _looked_up(texts, distinct), numbers, meant)

    @classmethod
    def together(cls, parts: Sequence["Occurrences"]) -> "Occurrences":
        """What occurs in any of `parts`, of which there is at least one; their numbers are meant alike."""
        distinct = list(dict.fromkeys(chain.from_iterable(part._texts for part in parts)))
        which = np.concatenate([_looked_up(part._texts, distinct)[part._which] for part in parts])
        return cls(distinct, which, np.concatenate([part.numbers for part in parts]), parts[0]._meant)

    def at(self, numbers: Numbers, meant: Meant = int) -> "Occurrences":
        """The same texts with other numbers."""
        return Occurrences(self._texts, self._which, numbers, meant)

    @cached_property
    def _counts(self) -> dict[tuple[str, Any], int]:
        if not len(self.numbers):
            return {}
        least = int(self.numbers.min())
        span = int(self.numbers.max()) - least + 1
        pairs, counts = np.unique(self._which * span + (self.numbers - least), return_counts=True)
        texts = map(self._texts.__getitem__, (pairs // span).tolist())
        numbers = (pairs % span + least).tolist()
        meant = {number: self._meant(number) for number in set(numbers)}
        return dict(zip(zip(texts, map(meant.__getitem__, numbers), strict=True), counts.tolist(), strict=True))

    def __getitem__(self, pair: tuple[str, Any]) -> int:
        return self._counts[pair]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def items(self) -> ItemsView[tuple[str, Any], int]:
        return self._counts.items()


def _looked_up(texts: Sequence[str], among: Sequence[str]) -> Numbers:
    places = {text: place for place, text in enumerate(among)}
    return np.fromiter(map(places.__getitem__, texts), np.int64, len(texts))
