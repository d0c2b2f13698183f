"""Changes bytes as a broken disk, a cut connection, an editor or an attacker would."""

from collections.abc import Sequence
from random import Random

NUMBERS = [
    n.to_bytes(w, order)
    for w in (1, 2, 4, 8)
    for order in ("little", "big")
    for n in (0, 2 ** (8 * w - 1), 2 ** (8 * w) - 1)
]
MOST = 6  # changes of one input
LARGEST = 200_000  # bytes of what comes out


def mutate(sound: bytes, others: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    """Changes an input in a few places.

    Args:
        others: inputs of the kind, of which parts are taken.
        words: that mean something in such an input.
    """
    data = sound
    for _ in range(random.randint(1, MOST)):
        at, length = random.randint(0, len(data)), random.choice((0, 1, 2, 4, 16, 200))
        change = random.randrange(8)
        if change == 0:  # a bit
            place = min(at, max(len(data) - 1, 0))
            flipped = bytes([data[place] ^ 1 << random.randrange(8)]) if data else b"\0"
            data = data[:place] + flipped + data[place + 1 :]
        elif change == 1:
            new = random.choice(NUMBERS)
            data = data[:at] + new + data[at + len(new) :]
        elif change == 2:
            data = data[:at] + random.randbytes(length) + data[at + length :]
        elif change == 3:
            data = data[:at] + data[at + length :]
        elif change == 4:  # cut short
            data = data[:at] if random.random() < 0.3 else data
        elif change == 5:  # once more
            data = data[:at] + data[at : at + length] * random.choice((2, 3, 50)) + data[at + length :]
        elif change == 6:
            other = random.choice(others)
            begin = random.randint(0, len(other))
            data = data[:at] + other[begin : begin + random.choice((4, 40, 4000))] + data[at + length :]
        else:
            data = data[:at] + random.choice(words or [b"\0"]) + data[at:]
    return data[:LARGEST]
