"""Frees room on the disk: removes from DVC's cache what stages have made in earlier runs and nothing names.

  python -m tasks.prune --dry-run
  python -m tasks.prune --runs 5

What stays: all that the working copy, HEAD, branches, those of remotes, tags, experiments and gate.champion
name, what the last runs of each stage gave, and what no stage has made, such as images and labels of any
commit. What goes is made again where it is asked for. DVC's remotes are not touched. A clone that has this
one's cache as its cache.dir is not known here.
"""

from tasks.core.base import cli, console
from tasks.core.base.errors import DarkroomError

RUNS = 3


def main() -> int:
    arguments = cli.parser(__doc__)
    arguments.add_argument(
        "--runs", type=cli.whole(1), default=RUNS, metavar="N", help=f"of each stage, that stay ({RUNS})"
    )
    arguments.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    given = arguments.parse_args()
    from tasks.core.release.dvc_api import Store  # half a second
    from tasks.core.release.pruning import find_unused, is_at_work

    with Store.open() as store:
        if is_at_work():
            raise DarkroomError("a stage is at work here; run it again when that has ended")
        unused = find_unused(store, given.runs)
        size = unused.size
        if not given.dry_run:
            unused.remove()
    done = "would free" if given.dry_run else "freed"
    console.say(
        f"prune: {done} {size / 1e6:,.1f} MB in DVC's cache, of {len(unused.notes):,} earlier runs of stages"
    )
    return 0


if __name__ == "__main__":
    cli.command(main)
