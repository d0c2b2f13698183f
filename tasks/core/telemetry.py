"""Keeps every package from calling home: the one place that turns it off.

Each package is asked by a variable of the environment, which the processes that it starts inherit, and before
it is imported: some send or write something in that moment. So `tasks` imports this before all else, and so
does each Python that starts in .venv, by the darkroom.pth that .ci/install writes. docs/privacy.md says what
each of them would do.

It must import nothing of ours, and run where this project can't be imported.
"""

import os

OFF = {
    "DO_NOT_TRACK": "1",  # Prefect's client
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",  # Great Expectations 1.24 has nothing left to turn off; others have
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime; its own function comes too late for the first event
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "VIRTUALENV_NO_PERIODIC_UPDATE": "true",  # of pre-commit's environments
}

os.environ.update(OFF)
