"""Keeps every package from calling home, and what is for this machine on it: the one place for both.

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

# A proxy has no way back to this machine, and would get what Prefect's client asks its server.
apart = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",")
os.environ["no_proxy"] = ",".join(filter(None, dict.fromkeys([*apart, "127.0.0.1", "localhost"])))
