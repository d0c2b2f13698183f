"""Any exported artifact as one thing: images in, probabilities out, by its own runtime."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from tasks.core.artifacts import runtimes
from tasks.core.artifacts.runtimes import Images, Probabilities
from tasks.core.base.console import quiet
from tasks.core.base.contract import Contract
from tasks.core.base.errors import ModelError, brief, remedy
from tasks.core.base.presence import tell_pointer


class Predictor:
    """A loaded artifact."""

    def __init__(self, path: Path, runner: runtimes.Runner) -> None:
        self._path, self._runner = path, runner
        self.contract = Contract.of(runner.contract)

    def predict(self, images: Images) -> Probabilities:
        """Gives (n, classes) for images of (n, size, size, 3) in [0, 1].

        Raises:
            ModelError: its runtime can't, as with a model that takes other images than its contract says.
        """
        try:
            return self._runner.predict(images)
        except Exception as error:  # each runtime has exceptions of its own
            if isinstance(error, OSError) or remedy(error):
                raise  # it is the machine that can't
            raise _broken(self._path, "can't predict", error) from None


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
        unknown = f"{path} is of no format that is known; give one of the artifacts of export/"
        raise ModelError(tell_pointer(path) or unknown) from None
    if runtime in runtimes.NEED_TENSORFLOW:
        from tasks.core.backbones import tensorflow_setup  # noqa: F401, TensorFlow as this project sets it up
    try:
        with quiet(), redirect_stdout(StringIO()):  # where onnxruntime says what it raises, too
            return Predictor(path, runtime(path))
    except (Exception, SystemExit) as error:
        raise _broken(path, f"can't be loaded as {runtime.__name__}", error) from None


def _broken(path: Path, what: str, error: BaseException) -> ModelError:
    if told := tell_pointer(path):
        return ModelError(told)
    text = brief(f"{type(error).__name__}: {error}")
    return ModelError(f"{path} {what} ({text}); {remedy(error) or 'give one of the artifacts of export/'}")
