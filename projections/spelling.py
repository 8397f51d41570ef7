"""Spelling as search sees it: accents, ligatures and special letters folded away, the same for what is indexed and what is asked.

Done here and not by the index, so that one mapping serves every deployment, also one without analysis plug-ins.
"""

import unicodedata

SPECIAL = str.maketrans(
    {
        "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ß": "ss", "ẞ": "SS",
        "œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ı": "i", "ħ": "h", "Ħ": "H", "ŋ": "n", "Ŋ": "N", "ŧ": "t", "Ŧ": "T",
    }
)  # fmt: skip


def folded(text: str) -> str:
    """`text` without accents and ligatures, in lower case; letters that have no plain form stay."""
    decomposed = unicodedata.normalize("NFKD", text.translate(SPECIAL))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter)).casefold()
