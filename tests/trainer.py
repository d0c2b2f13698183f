"""Trains in a process of its own: to be killed, or to be one of several. `python -m tests.trainer JSON`

The JSON holds the folder of a `Tiny` data set, the target, the strategy, the number of logical CPU devices,
and changes to the section `train`.
"""

import json
import sys
from pathlib import Path

import numpy as np

from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.training.devices import choose_devices
from tests.tiny import Tiny


def main() -> None:
    facts = json.loads(sys.argv[1])
    (cpu,) = tf.config.list_physical_devices("CPU")
    devices = [tf.config.LogicalDeviceConfiguration() for _ in range(facts["devices"])]
    tf.config.set_logical_device_configuration(cpu, devices)
    hardware = choose_devices(facts["strategy"], "float32", False, deterministic=True)
    print(hardware.line(), flush=True)
    task = hardware.strategy.cluster_resolver.task_id if hardware.strategy.cluster_resolver else 0
    (mean,) = hardware.mean([np.array([task], np.float32)])
    print(f"mean of the tasks' numbers: {mean}", flush=True)
    Tiny(Path(facts["folder"])).train(Path(facts["target"]), facts["backbone"], hardware, **facts["train"])


if __name__ == "__main__":
    main()
