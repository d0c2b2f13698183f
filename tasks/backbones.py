"""Lists the backbones that go by a name, fetches them ahead of time, and ranks them by your images.

  python -m tasks.backbones                   name, image size, features, whether it is in the cache, source
  python -m tasks.backbones fetch NAME...     names, URLs of TF Hub or Kaggle; says what model.sha256 would be
  python -m tasks.backbones rank [NAME...]    how well each tells your classes apart, and how long it takes

Features are the numbers that a backbone gives for an image, known once it has been fetched or used.

Ranked are those that are here, or those that are named, by a regression on the features of up to 1,000 images
of data.images, cross-validated: each image is predicted by others. Fine-tuning mostly keeps the order. Passes
are the work of a training by params.yaml.
"""

import argparse
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

from tasks.core.backbones import catalogue, store
from tasks.core.backbones.config import MAX_SIDE, MIN_SIDE
from tasks.core.backbones.store import Listed
from tasks.core.base import cli, console, params
from tasks.core.base.files import size
from tasks.core.data.config import Build
from tasks.core.training.config import Train


@dataclass(frozen=True)
class Params(params.Section):
    build: Build
    train: Train


def table(rows: Iterable[Listed]) -> Iterator[str]:
    """The list in aligned columns."""
    yield f"{'name':<26}  {'pixels':>6}  {'features':>8}  {'cached':<6}  source"
    for row in rows:
        cached = "yes" if row.cached else ""
        yield f"{row.name:<26}  {row.image_size:>6}  {row.features or '':>8}  {cached:<6}  {row.source}"


def fetch(name: str) -> Iterator[str]:
    """Sees that a backbone is in the cache, and says where, how large, and with what digest."""
    facts, folder = store.facts(name), store.folder(name)
    yield f"{name}: {size(folder) / 1e6:.1f} MB in {folder}"
    yield f"  model.sha256: {facts.sha256}"


def count_passes(p: Params, name: str, image_size: int, counts: Collection[int]) -> float:
    """The work of a training on some of these images: one is the backbone on those at its own size.

    Args:
        counts: images of each class.
    """
    from tasks.core.training import effort, recipe

    share = 1 - p.build.validation_split - p.build.test_split
    train = [max(round(count * share), 1) for count in counts]
    validation = round(sum(counts) * p.build.validation_split)
    work = effort.work(name, store.facts(name), image_size, train, validation)
    return work.training(recipe.settle(p.train, work)[0])


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--json", action="store_true", help="the list as JSON instead of a table")
    commands = parser.add_subparsers(dest="command", metavar="[fetch | rank]")
    fetching = commands.add_parser("fetch", help="bring backbones into the cache")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="a name of the list, a URL, or a folder")
    ranker = commands.add_parser("rank", help="try backbones on your images")
    ranker.add_argument("names", nargs="*", metavar="NAME", help="those that are here, if none is named")
    ranker.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as JSON")
    side = cli.whole(MIN_SIDE, MAX_SIDE)
    ranker.add_argument("--sizes", nargs="+", type=side, default=[], help="sides in pixels")
    arguments = parser.parse_args()
    for name in getattr(arguments, "names", ()):
        catalogue.check(name, "the backbone")
    if arguments.command == "rank":
        from tasks.core.inference import ranking  # seconds, which the list doesn't need

        rows = list(
            ranking.rank(arguments.names, arguments.sizes, partial(count_passes, params.load(Params)))
        )
        if arguments.json:
            print(json.dumps([asdict(row) for row in rows], indent=2))
        else:
            print("\n".join(ranking.table(rows)))
        return 0 if rows else 1
    if arguments.command:
        for name in arguments.names:
            for line in fetch(name):
                console.say(line)
    elif arguments.json:
        print(json.dumps([asdict(row) for row in store.list_backbones()], indent=2))
    else:
        for line in table(store.list_backbones()):
            print(line)
    return 0


if __name__ == "__main__":
    cli.command(main)
