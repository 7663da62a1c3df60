"""Making bad files out of good ones: bytes are changed, cut and repeated, values replaced by odd ones."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Sequence
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, -0.0, 0.5, 1e-320, 1e39, 1e308, -1e308, math.nan, math.inf, -math.inf,
    2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 10**400, "", " ", "x", "nan", "1e999", "-1",
    "a\0b", "\ud800", "$\\frac{$", "\u202e\x1b[2J", "x" * 2000, "../../etc/passwd", "1_0", "None", "nc", [],
    [[]], {}, [None], [1, 2], [1.5, "x"], [[1, 2, 3, 4]], {"0": 1}, {"a": {}}, [0] * 50,
)  # fmt: skip
TOKENS = (
    b"nan", b"inf", b"-inf", b"1e400", b"1e-400", b"-0", b"0x1p3", b"1_0", b"9" * 30, b"9" * 5000, b"\0",
    b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc2\x85", b"\xe2\x80\xa8", b"\xd9\xa3", b"\r", b"\n", b"\t",
    b" ", b",", b'"', b"'", b"#", b"[", b"]", b"{", b"}", b"[" * 2000, b"&a ", b"*a", b"<<: ",
    b"!!python/object:os.system ", b"!!int ", b"!!binary ", b"2001-13-45", b"? ", b"- ", b": ", b"null",
    b"true", b"~", b"$", b"\\", b"%s", b"..", b"/", b"*", b"**", b"://", b"file:", b"-1", b"0", b"1",
    b"255", b"65536", b"2147483648", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x02", b"\x1f\x8b",
    b"PK\x03\x04", b"\xff\xd8\xff", b"data", b"<!DOCTYPE x>",
)  # fmt: skip


def mutated(
    content: bytes, rng: random.Random, others: Sequence[bytes] = (), structured: bool = False
) -> bytes:
    """Return a changed copy of a file's bytes.

    Args:
        content: a good file, or one that was changed before.
        rng: draws what happens; the same one gives the same file.
        others: further files, of which parts are pasted.
        structured: the file is JSON, whose values are changed in half of the cases.
    """
    if structured and rng.random() < 0.6:
        try:
            tree = json.loads(content)
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                tree = changed_value(tree, rng)
            return json.dumps(tree).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):
            pass
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        _change_bytes(data, rng, others)
    return bytes(data)


def _change_bytes(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((1, 1, 2, 4, 9, 40, 300)))
    kind = rng.randrange(9)
    if kind == 0 and start < len(data):
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1 and start < len(data):
        data[start] = rng.choice((0, 1, 0x20, 0x30, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        del data[start:end]
    elif kind == 3:
        data[start:start] = rng.choice(TOKENS)
    elif kind == 4:
        data[start:end] = rng.choice(TOKENS)
    elif kind == 5:
        data[start:start] = bytes(data[start:end]) * rng.choice((1, 2, 50))
    elif kind == 6 and others:
        other = rng.choice(others)
        place = rng.randrange(len(other) + 1)
        data[start:end] = other[place : place + rng.choice((1, 8, 64, 1000))]
    elif kind == 7:
        del data[start:]
    else:
        data[start:end] = rng.randbytes(end - start)


def changed_value(tree: Any, rng: random.Random) -> Any:
    """Return nested lists and dicts in which one value is now odd, gone, doubled, renamed or moved."""
    places = list(_places(tree))
    if not places:
        return copy.deepcopy(rng.choice(ODD))
    parent, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind < 4:
        parent[key] = copy.deepcopy(rng.choice(ODD))
    elif kind == 4:
        del parent[key]
    elif kind == 5 and isinstance(parent, list):
        parent[key:key] = [copy.deepcopy(parent[key])] * rng.choice((1, 2, 20))
    elif kind == 5:
        parent[str(rng.choice(ODD))[:50]] = parent.pop(key)
    elif kind == 6:
        other, place = rng.choice(places)
        parent[key] = copy.deepcopy(other[place])
    else:
        value = parent[key]
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        parent[key] = value * rng.choice((-1, 0.5, 1000, 10**9)) if number else [value]
    return tree


def _places(tree: Any) -> Any:
    """Yield each value's container and key; a container is listed before what is in it."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict | list):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                yield node, key
                stack.append(node[key])
