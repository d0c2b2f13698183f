"""Where a command may put what it makes."""

from pathlib import Path

from tasks.core.base.errors import DataError
from tasks.core.base.inputs import outputs


def check_target(option: str, folder: Path, *images: Path) -> None:
    """Refuses, before any work, a folder where results would be lost, or taken for images.

    Args:
        option: what names the folder, for the message.
        images: folders of images.

    Raises:
        DataError: it is a file, lies among the images, or in what a stage writes anew.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{option} {folder} is a file; give a folder")
    place = folder.resolve()
    for each in images:
        if place.is_relative_to(each.resolve()):
            raise DataError(f"{option} {folder} lies among the images of {each}; give a folder outside of it")
    for output in sorted(outputs()):
        if place.is_relative_to(Path(output).resolve()):
            raise DataError(f"{option} {folder} lies in {output}, which a stage writes; give another folder")
