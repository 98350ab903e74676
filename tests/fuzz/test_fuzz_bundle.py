"""The fuzzer's targets on its seeds, and on plain random changes of them: what CI can run without a fuzzer."""

from __future__ import annotations

import random

import pytest
from fuzz_bundle import load_targets, seeds, words

SEEDS = seeds()


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_targets_hold_on_changed_seeds(number: int) -> None:
    chance, target = random.Random(number), load_targets()[SEEDS[number][0]]
    whole = SEEDS[number][1:]
    target(whole)
    inserts = [word.encode("ascii").decode("unicode_escape").encode("latin-1") for word in words()]
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(raw) + 1)
            change = chance.randrange(4)
            if change == 0 and place < len(raw):
                raw[place] ^= 1 << chance.randrange(8)
            elif change == 1:
                raw[place:place] = chance.choice(inserts)
            elif change == 2:
                del raw[place : place + chance.randint(1, 20)]
            else:
                raw[place : place + 2] = bytes(chance.choices(b'\0\xff"[]{},0129', k=2))
        target(bytes(raw))
