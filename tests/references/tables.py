"""Markdown tables as a reader compares them: cells, whatever pads them."""

import re


def unpadded(page: str) -> str:
    """``page`` with one space on either side of every cell."""
    return re.sub(r" +", " ", page)
