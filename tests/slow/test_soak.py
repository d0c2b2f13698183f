"""Whatever happens to a run, the next one ends as if nothing had: see tests/soak."""

import subprocess
import sys

import pytest

from tests.structure import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="takes rights from a process"),
]


@pytest.mark.parametrize(("rounds", "way"), [(200, []), (6, ["--flow"])])
def test_no_fault_at_a_random_moment_leaves_a_wrong_result_or_something_to_mend(
    rounds: int, way: list[str]
) -> None:
    words = [sys.executable, "-m", "tests.soak", "--rounds", str(rounds), *way]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert sum(int(line.split()[0]) for line in done.stdout.splitlines()[1:]) == rounds


PLANTED = """
import sys
from tests.soak import __main__ as soak, faults, rounds

def swap(target):
    red = target.folder / "pictures/red"
    return "planted", lambda: (red / "000.png").write_bytes((red / "001.png").read_bytes())

all_variants = rounds.variants
rounds.variants = lambda folder: dict(list(all_variants(folder).items())[:2])  # each takes a run to learn
faults.FAULTS.clear()
faults.FAULTS["planted"] = faults.Fault(swap)
sys.argv = ["soak", "--rounds", "2"]
sys.exit(soak.main())
"""


def test_a_wrong_result_is_found() -> None:
    """Its failing twin: a picture is another after the fault, so that the bytes can't be those expected."""
    done = subprocess.run(
        [sys.executable, "-c", PLANTED], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1 and "WRONG: " in done.stdout
