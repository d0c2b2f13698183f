"""What is `auto` fits the effort, and a value is obeyed."""

import dataclasses

import pytest

from tasks.check import Params
from tasks.core.backbones.store import Facts
from tasks.core.base import params
from tasks.core.training import effort
from tasks.core.training.config import Effort, Train
from tasks.core.training.effort import LIMITS, MANY, VERY_MANY, Work
from tasks.core.training.recipe import BATCH_SIZE, settle
from tests.structure import ROOT

SHIPPED = params.read(ROOT / "params.yaml", Params).train
FULL = Work(
    scale=1.0, validation=1 / 7, even_images=900
)  # images of the backbone's own size, splits as shipped


def changed(**changes: object) -> Train:
    return dataclasses.replace(SHIPPED, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "work", [FULL, Work(0.08, 0.3, 900), Work(0.3, 0.1, 5000), Work(1.0, 0.1, 5000), Work(5.0, 0.1, 900)]
)
@pytest.mark.parametrize("name", LIMITS)
def test_no_effort_is_more_work_than_it_says(name: Effort, work: Work) -> None:
    recipe, _ = settle(changed(effort=name), work)
    assert work.training(recipe) <= max(LIMITS[name].passes, work.head)


def test_each_effort_is_more_than_the_one_before() -> None:
    recipes = {name: settle(changed(effort=name), FULL)[0] for name in LIMITS}
    assert not recipes["quick"].goes_on
    assert recipes["standard"].fine_tune and recipes["standard"].epochs == 2
    assert recipes["thorough"].epochs == 6 and recipes["thorough"].unfreeze == 1


def test_work_is_counted_at_the_size_that_the_backbone_is_made_for() -> None:
    facts = Facts("0" * 64, None, 16, is_stochastic=False, has_endpoints=False)
    scales = [effort.work("efficientnet_lite0", facts, size, [50, 50], 10).scale for size in (112, 224)]
    assert scales == [0.25, 1.0]
    assert effort.work("a/folder", facts, 112, [50, 50], 10).scale == 1.0, "no other size is known"


def test_epochs_that_are_asked_for_count_too() -> None:
    many = Work(0.33, 1 / 7, 10 * MANY)
    assert settle(changed(epochs=3), many)[0].unfreeze == 1
    assert settle(changed(epochs=20), many)[0].unfreeze == 0.4
    assert settle(changed(effort="quick"), many)[0].unfreeze == 0


def test_an_epoch_of_a_frozen_backbone_is_little_work() -> None:
    frozen = changed(fine_tune=False, augment=dataclasses.replace(SHIPPED.augment, rotation=10.0))
    recipe, why = settle(frozen, Work(2.0, 1 / 7, 900))
    assert recipe.epochs == 2 and "an epoch takes 3.5 passes" in why["train.epochs"]


def test_images_of_a_large_class_are_none_of_a_small_one() -> None:
    facts = Facts("0" * 64, None, 16, is_stochastic=False, has_endpoints=False)
    assert effort.work("a/folder", facts, 112, [700, 35], 10).even_images == 70


def test_what_is_too_much_work_leaves_the_head() -> None:
    recipe, why = settle(SHIPPED, Work(scale=5.0, validation=0.1, even_images=900))
    assert not recipe.fine_tune and not recipe.goes_on
    assert why["train.epochs"].startswith("0: an epoch takes 21 passes, the first head 5.5, and")
    asked, _ = settle(changed(fine_tune=True), Work(scale=5.0, validation=0.1, even_images=900))
    assert asked.fine_tune and asked.epochs == 1, "what was asked for is done"


@pytest.mark.parametrize(
    ("scale", "images", "share"),
    [(0.08, MANY, 1.0), (0.08, MANY - 1, 0.4), (1.0, 10 * MANY, 0.4), (0.33, MANY, 1.0)],
)
def test_many_images_train_all_of_the_backbone_where_there_is_work_left(
    scale: float, images: int, share: float
) -> None:
    recipe, why = settle(SHIPPED, Work(scale, 1 / 7, images))
    assert recipe.unfreeze == share
    assert (
        why["train.unfreeze"]
        == f"{share:g}: train.effort standard, for {images:,} images, were classes as small as the smallest"
    )
    assert settle(changed(unfreeze=0.3), Work(scale, 1 / 7, images))[0].unfreeze == 0.3


def test_a_value_is_obeyed() -> None:
    asked: dict[str, object] = {
        "fine_tune": True,
        "epochs": 50,
        "unfreeze": 0.9,
        "batch_size": 7,
        "learning_rate": 0.1,
    }
    asked |= {"optimizer": "sgd", "batch_norm": "batch"}
    recipe, why = settle(changed(**asked), FULL, replicas=4)
    assert {name: getattr(recipe, name) for name in asked} == asked
    assert why == {}
    recipe, _ = settle(changed(effort="quick", epochs=5), FULL)
    assert not recipe.goes_on, "quick is the head alone"


def test_how_long_it_takes_is_told() -> None:
    recipe, _ = settle(SHIPPED, FULL)
    assert effort.announce(recipe, FULL, seconds=60.0).endswith("passes, about 8 min here")
    assert effort.announce(recipe, FULL, None).endswith("passes")


@pytest.mark.parametrize("replicas", [1, 2, 3, 7, 48])
def test_devices_share_a_batch_evenly(replicas: int) -> None:
    recipe, why = settle(SHIPPED, FULL, replicas)
    assert recipe.batch_size % replicas == 0
    assert BATCH_SIZE <= recipe.batch_size < BATCH_SIZE + replicas
    assert why["train.batch_size"].startswith(f"{recipe.batch_size}: ")


@pytest.mark.parametrize(("optimizer", "factor"), [("sgd", 4), ("adam", 2), ("adamw", 2)])
def test_the_learning_rate_grows_with_the_batch(optimizer: str, factor: int) -> None:
    few, many = (
        settle(changed(optimizer=optimizer, batch_size=size), FULL)[0].learning_rate for size in (32, 128)
    )
    assert many == pytest.approx(few * factor)


def test_what_is_not_used_is_not_told() -> None:
    _, why = settle(changed(effort="quick"), FULL)
    assert set(why) == {"train.epochs", "train.fine_tune"}


@pytest.mark.parametrize(
    ("images", "effort", "epochs"),
    [
        (VERY_MANY - 1, "standard", 3),
        (VERY_MANY, "standard", 5),
        (VERY_MANY, "thorough", 8),
        (VERY_MANY, "quick", 0),
    ],
)
def test_very_many_images_are_seen_more_often(images: int, effort: str, epochs: int) -> None:
    recipe, _ = settle(changed(effort=effort), Work(0.08, 1 / 7, images))
    assert recipe.epochs == epochs
    for scale in (0.2, 0.3, 0.4, 0.5, 0.6, 1.0):
        few, many = (
            settle(changed(effort=effort), Work(scale, 1 / 7, n))[0] for n in (VERY_MANY - 1, images)
        )
        assert many.unfreeze == few.unfreeze and many.epochs >= few.epochs, "as the passes allow"


def test_epochs_of_nothing_are_not_told() -> None:
    recipe, why = settle(changed(fine_tune=False), FULL)
    assert not recipe.goes_on and recipe.epochs == 0 and why == {}
