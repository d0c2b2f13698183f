"""A browser to look at pages with. Which one is there, the machine says; a test that finds none says so."""

import shutil

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
