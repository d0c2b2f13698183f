"""Whatever happens to a run, the next one ends as if nothing had: see tests/soak."""

import subprocess
import sys

import pytest

from tests.structure import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="takes rights from a process"),
]

ROUNDS = 60


def test_no_fault_at_a_random_moment_leaves_a_wrong_result_or_something_to_mend() -> None:
    words = [sys.executable, "-m", "tests.soak", "--rounds", str(ROUNDS)]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert sum(int(line.split()[0]) for line in done.stdout.splitlines()[1:]) == ROUNDS


def test_a_wrong_result_is_found() -> None:
    """Its failing twin: nobody looks whether an input was edited meanwhile."""
    code = (
        "import sys; from tasks.core.base import inputs, mending; from tests.soak import __main__ as soak\n"
        "inputs.check_unchanged = lambda *_: None; inputs.leave_note = lambda *_: None\n"
        "from tests.soak import faults; kept = faults.FAULTS['an input edited']\n"
        "faults.FAULTS.clear(); faults.FAULTS['an input edited'] = kept\n"
        "sys.argv = ['soak', '--rounds', '10']; sys.exit(soak.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "WRONG: " in done.stdout
