# SPDX-License-Identifier: BSD-3-Clause
"""Packets that are broken at random, so that two readers of the format can be asked whether they agree."""
import codec


def packet(rng, packets):
    """One of them, with some of it changed; its trailer often made right again."""
    b = bytearray(rng.choice(packets))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        how, at = rng.random(), rng.randrange(len(b)) if b else 0
        if not b or how < 0.1:
            b[at:at] = rng.randbytes(rng.choice((1, 4, 8)))
        elif how < 0.25:
            del b[rng.randrange(len(b)):]
        elif how < 0.35:
            del b[at:at + rng.choice((1, 4))]
        elif how < 0.6:
            b[at] ^= 1 << rng.randrange(8)
        elif how < 0.9:
            b[min(rng.choice((0, 1, 2, 3, 3, 6, 32, 33, 33, 35, 45)), len(b) - 1)] = rng.choice((0, 1, 2, 3, 5, 8, 11, 13, 0x80, 0x81, 0xff))
        else:
            b += rng.choice(packets)[at:]
    if rng.random() < 0.7:
        return codec.seal(bytes(b[:-4] if len(b) > 4 and rng.random() < 0.8 else b))
    return bytes(b) or b"\0"
