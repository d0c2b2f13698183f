"""What each `auto` of training becomes that can be decided without a look at the images.

The rest is asked of the head, by `head.py` and `symmetry.py`.
"""

import math

from tasks.core.training import effort
from tasks.core.training.config import Optimizer, Recipe, Train
from tasks.core.training.effort import Work

BATCH_SIZE = 32
RATES: dict[Optimizer, float] = {"adam": 0.001, "adamw": 0.001, "sgd": 0.01}  # for batches of that size


def settle(params: Train, work: Work, replicas: int = 1) -> tuple[Recipe, dict[str, str]]:
    """Decides what follows from the effort, the devices and other parameters.

    A learning rate grows with the batch: by the same factor for SGD (Goyal et al., 2017), by its square
    root for Adam (Malladi et al., 2022).

    Args:
        replicas: devices that share each batch.

    Returns:
        The parameters, and of those that were `auto` what decided them.
    """
    amount, why = effort.settle(params, work)
    batch_size, optimizer, rate = params.batch_size, params.optimizer, params.learning_rate
    batch_norm, steps = params.batch_norm, {}
    if batch_size == "auto":
        batch_size = math.ceil(BATCH_SIZE / replicas) * replicas
        steps["train.batch_size"] = f"{batch_size}: the least from {BATCH_SIZE} on that devices share evenly"
    if optimizer == "auto":
        optimizer = "adam"
        steps["train.optimizer"] = "adam: no other was better"
    if rate == "auto":
        larger = batch_size / BATCH_SIZE
        rate = RATES[optimizer] * (larger if optimizer == "sgd" else math.sqrt(larger))
        steps["train.learning_rate"] = f"{rate:.2g}: for {optimizer} and batches of {batch_size}"
    if batch_norm == "auto":
        batch_norm = "frozen"
        steps["train.batch_norm"] = "frozen: by these statistics the backbone's features are known"
    decided = {"batch_size": batch_size, "optimizer": optimizer, "learning_rate": rate}
    recipe = Recipe.of(params, **amount, **decided, batch_norm=batch_norm)
    return recipe, why | steps if recipe.goes_on else why
