"""The project that the demo builds: a small, real Python package with a test suite, and two programs.

It is made anew each time, needs nothing but Python, and works for a second or two.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

DATA_BYTES: Final = 3_000_000
LONG_LINE_BYTES: Final = 1_000_000


def write_project(root: Path) -> int:
    """Write the project's files below `root`; returns how many."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return len(FILES)


def write_grain(path: Path) -> str:
    """Write the file that the project grinds; returns its SHA-256. The same bytes each time."""
    grain = random.Random(7117)
    words = [bytes(grain.choices(b"abcdefghijklmnopqrstuvwxyz", k=grain.randint(2, 9))) for _ in range(4000)]
    data = b" ".join(grain.choices(words, k=DATA_BYTES // 5))[:DATA_BYTES]
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def tree_digest(root: Path) -> str:
    """One SHA-256 over all files below `root`, names included. `grind.py` computes the same."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            total.update(
                path.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest()
            )
    return total.hexdigest()


_WHEEL = '''"""Water wheels: how much power there is in a stream."""
from fractions import Fraction

GRAVITY = Fraction(980665, 100000)


def power(litres_per_second, head_m, efficiency=Fraction(7, 10)):
    """Watts."""
    if litres_per_second < 0 or head_m < 0:
        raise ValueError("water runs down, not up")
    return litres_per_second * GRAVITY * head_m * efficiency


def gear(teeth):
    """The ratio of a train of gears: (driver, driven), (driver, driven) ..."""
    ratio = Fraction(1)
    for driver, driven in teeth:
        ratio *= Fraction(driver, driven)
    return ratio
'''

_SIEVE = '''"""Sieves: what goes through and what stays."""


def primes(limit):
    flags = bytearray([1]) * (limit + 1)
    flags[0:2] = b"\\0\\0"
    for n in range(2, int(limit ** 0.5) + 1):
        if flags[n]:
            flags[n * n :: n] = bytes(len(range(n * n, limit + 1, n)))
    return [n for n, flag in enumerate(flags) if flag]


def factors(n):
    found, divisor = [], 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            found.append(divisor)
            n //= divisor
        divisor += 1
    return found + [n] * (n > 1)
'''

_SACK = '''"""Sacks: a heap that gives the lightest first."""
import heapq


class Sack:
    def __init__(self, items=()):
        self._heap = list(items)
        heapq.heapify(self._heap)

    def put(self, item):
        heapq.heappush(self._heap, item)

    def take(self):
        return heapq.heappop(self._heap)

    def __len__(self):
        return len(self._heap)
'''

_GRIND = '''"""Grind the grain: compress it piece by piece; a progress bar, a tree of flour, one very long line."""
import base64, hashlib, lzma, sys, time
from pathlib import Path

source, out = Path(sys.argv[1]), Path(sys.argv[2])
data = source.read_bytes()
print("grain", hashlib.sha256(data).hexdigest(), flush=True)
piece_bytes = len(data) // 24
flour = 0
for number in range(24):
    piece = data[number * piece_bytes : (number + 1) * piece_bytes]
    ground = lzma.compress(piece, preset=4)
    path = out / f"bin-{number % 4}" / f"flour-{number:02}.xz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ground)
    flour += len(ground)
    if number == 11:
        print("half of it is through", file=sys.stderr, flush=True)
    done = number + 1
    print(f"\\rgrinding {'#' * done}{'.' * (24 - done)} {done * 100 // 24:3} %", end="", flush=True)
print(f"\\rground {len(data):,} bytes to {flour:,}".ljust(50), flush=True)
line = base64.b64encode(data)[: int(sys.argv[3])]
sys.stdout.buffer.write(line + b"\\n")
sys.stdout.flush()
print("line", hashlib.sha256(line).hexdigest(), flush=True)
total = hashlib.sha256()
for path in sorted(out.rglob("*")):
    if path.is_file():
        total.update(path.relative_to(out).as_posix().encode() + b"\\0" + hashlib.sha256(path.read_bytes()).digest())
print("flour", total.hexdigest(), flush=True)
'''

_SOAK = '''"""Runs until it is stopped, and has a child that would go on for ever."""
import subprocess, sys, time

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
print("child", child.pid, flush=True)
for round in range(1, 10_000):
    print(f"soak: round {round}, all well", flush=True)
    time.sleep(0.15)
'''

_TEST_WHEEL = """import unittest
from fractions import Fraction
from mill import wheel


class Power(unittest.TestCase):
    def test_no_water_no_power(self):
        self.assertEqual(wheel.power(0, 5), 0)

    def test_is_linear_in_the_head(self):
        for head in range(1, 4000):
            self.assertEqual(wheel.power(10, 2 * head), 2 * wheel.power(10, head))

    def test_is_linear_in_the_water(self):
        for water in range(1, 4000):
            self.assertEqual(wheel.power(3 * water, 4), 3 * wheel.power(water, 4))

    def test_water_does_not_run_up(self):
        with self.assertRaises(ValueError):
            wheel.power(1, -1)


class Gears(unittest.TestCase):
    def test_a_train_of_gears_multiplies(self):
        self.assertEqual(wheel.gear([(12, 48), (10, 30)]), Fraction(1, 12))

    def test_there_and_back_is_one(self):
        for teeth in range(8, 3000):
            self.assertEqual(wheel.gear([(teeth, 17), (17, teeth)]), 1)
"""

_TEST_SIEVE = """import unittest
from mill import sieve


class Primes(unittest.TestCase):
    def test_the_first_ones(self):
        self.assertEqual(sieve.primes(30), [2, 3, 5, 7, 11, 13, 17, 19, 23, 29])

    def test_how_many_there_are_below_a_million(self):
        self.assertEqual(len(sieve.primes(1_000_000)), 78_498)

    def test_how_many_there_are_below_three_million(self):
        self.assertEqual(len(sieve.primes(3_000_000)), 216_816)

    def test_every_prime_has_one_factor(self):
        for prime in sieve.primes(30_000):
            self.assertEqual(sieve.factors(prime), [prime])


class Factors(unittest.TestCase):
    def test_multiply_to_what_they_came_from(self):
        for n in range(2, 40_000):
            product = 1
            for factor in sieve.factors(n):
                product *= factor
            self.assertEqual(product, n)

    def test_of_a_large_semiprime(self):
        self.assertEqual(sieve.factors(1_000_003 * 999_983), [999_983, 1_000_003])
"""

_TEST_SACK = """import random
import unittest
from mill.sack import Sack


class Heap(unittest.TestCase):
    def test_gives_the_lightest_first(self):
        sack = Sack([3, 1, 2])
        self.assertEqual([sack.take() for _ in range(3)], [1, 2, 3])

    def test_sorts_a_hundred_thousand_numbers(self):
        chance = random.Random(1)
        numbers = [chance.random() for _ in range(100_000)]
        sack = Sack(numbers)
        self.assertEqual([sack.take() for _ in range(len(numbers))], sorted(numbers))

    def test_put_and_take_keep_the_order(self):
        chance, sack, kept = random.Random(2), Sack(), []
        for _ in range(60_000):
            if kept and chance.random() < 0.4:
                self.assertEqual(sack.take(), kept.pop(kept.index(min(kept))))
            elif len(kept) < 20:
                number = chance.randrange(1000)
                sack.put(number)
                kept.append(number)

    def test_an_empty_sack_has_nothing(self):
        with self.assertRaises(IndexError):
            Sack().take()
"""

_FLOOD = '''"""The step that fails: nobody has built for this much water."""
import unittest
from mill import wheel


class Flood(unittest.TestCase):
    def test_the_wheel_stands_a_spring_tide(self):
        self.assertLess(wheel.power(5_000, 3), 50_000)
'''

_MAKEFILE = """CFLAGS = -O2 -Wall
turbine: turbine.o river.o
\t$(CC) $(CFLAGS) -o $@ $^ -lm
turbine.o river.o: river.h
clean:
\trm -f turbine *.o
"""

_RIVER_H = "double depth(double hours);\n"

_RIVER_C = """#include <math.h>
#include "river.h"

/* The tide comes twice a day. */
double depth(double hours) { return 2.0 + 1.5 * sin(hours * 6.283185307 / 12.42); }
"""

_TURBINE_C = """#include <stdio.h>
#include "river.h"

/* Draws a day of the river, an hour a line. */
int main(void) {
    for (int hour = 0; hour < 24; hour += 2) {
        int water = (int)(depth(hour) * 12);
        printf("%02d:00 %5.2f m ", hour, depth(hour));
        for (int i = 0; i < water; i++) putchar('~');
        putchar('\\n');
        fflush(stdout);
    }
    return 0;
}
"""

FILES: Final = {
    "Makefile": _MAKEFILE,
    "river.h": _RIVER_H,
    "river.c": _RIVER_C,
    "turbine.c": _TURBINE_C,
    "mill/__init__.py": '"""A mill."""\n',
    "mill/wheel.py": _WHEEL,
    "mill/sieve.py": _SIEVE,
    "mill/sack.py": _SACK,
    "grind.py": _GRIND,
    "soak.py": _SOAK,
    "tests/__init__.py": "",
    "tests/test_wheel.py": _TEST_WHEEL,
    "tests/test_sieve.py": _TEST_SIEVE,
    "tests/test_sack.py": _TEST_SACK,
    "tests/flood.py": _FLOOD,
}
