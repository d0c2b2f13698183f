"""What every test may count on."""

from __future__ import annotations

import os

from tests.structure import ROOT

# The built-in backbone is converted once for the checkout, not once for each folder a test works in.
os.environ.setdefault("DARKROOM_CACHE", str(ROOT / ".cache"))
