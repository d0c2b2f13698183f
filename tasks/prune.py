"""Frees room on the disk: removes what stages have made in earlier runs, if nothing that is kept needs it.

  python -m tasks.prune --dry-run
  python -m tasks.prune --runs 5

What stays: all that the working copy, HEAD, branches, tags and experiments name, what the last runs of each
stage gave, and what no stage has made, such as images and labels of any commit. What goes is made again where
it is asked for. DVC's remotes are not touched.
"""

from tasks.core.base import cli, console, leftovers
from tasks.core.base.errors import DarkroomError
from tasks.core.base.paths import cache_folder

RUNS = 3


def main() -> int:
    arguments = cli.parser(__doc__)
    arguments.add_argument(
        "--runs", type=cli.at_least(1), default=RUNS, metavar="N", help=f"of each stage, that stay ({RUNS})"
    )
    arguments.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    given = arguments.parse_args()
    from tasks.core.release.dvc_api import Store  # half a second
    from tasks.core.release.pruning import find_unused

    if leftovers.are_others_at_work():
        raise DarkroomError("a stage is at work here; run it again when that has ended")
    with Store.open() as store:
        unused = find_unused(store, given.runs)
        in_dvc, in_ours = unused.sizes()
        if not given.dry_run:
            unused.remove()
    done = "would free" if given.dry_run else "freed"
    console.say(
        f"prune: {done} {(in_dvc + in_ours) / 1e6:,.1f} MB: {in_dvc / 1e6:,.1f} in DVC's cache, of "
        f"{len(unused.runs):,} earlier runs, and {in_ours / 1e6:,.1f} in {cache_folder()}"
    )
    return 0


if __name__ == "__main__":
    cli.command(main)
