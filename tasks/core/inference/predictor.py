"""Any exported artifact as one thing: images in, probabilities out, by its own runtime."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from tasks.core.artifacts import runtimes
from tasks.core.artifacts.runtimes import Images, Probabilities
from tasks.core.base.console import quiet
from tasks.core.base.contract import Contract
from tasks.core.base.errors import ModelError, brief


class Predictor:
    """A loaded artifact."""

    def __init__(self, runner: runtimes.Runner) -> None:
        self._runner = runner
        self.contract = Contract.of(runner.contract)

    def predict(self, images: Images) -> Probabilities:
        """Gives (n, classes) for images of (n, size, size, 3) in [0, 1]."""
        return self._runner.predict(images)


def load_predictor(path: Path) -> Predictor:
    """Opens an artifact of any format, recognized by its content and not by its name.

    Raises:
        ModelError: not there, of no known format, or broken.
    """
    try:
        runtime = runtimes.detect(path)
    except FileNotFoundError:
        if path.is_dir():
            raise ModelError(
                f"{path} is a folder and no SavedModel; give one of the artifacts in it"
            ) from None
        raise ModelError(f"{path} is not there; `make run` makes export/, unless a gate says no") from None
    except ValueError:
        raise ModelError(
            f"{path} is of no format that is known; give one of the artifacts of export/"
        ) from None
    if runtime in runtimes.NEED_TENSORFLOW:
        from tasks.core.backbones import tensorflow_setup  # noqa: F401, TensorFlow as this project sets it up
    try:
        with quiet(), redirect_stdout(StringIO()):  # where onnxruntime says what it raises, too
            return Predictor(runtime(path))
    except (Exception, SystemExit) as error:  # each runtime has exceptions of its own
        text = brief(f"{type(error).__name__}: {error}")
        raise ModelError(
            f"{path} can't be loaded as {runtime.__name__} ({text}); give one of the artifacts of export/"
        ) from None
