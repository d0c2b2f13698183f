"""A backbone is named, fetched, checked and sized before any work, and then needs no network."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest

from tasks.core.backbones import catalogue, download, saved_model, store
from tasks.core.backbones.layer import backbone_layer
from tasks.core.backbones.tensorflow_setup import hub as tensorflow_hub
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base.errors import BackboneError, ParamError
from tasks.core.base.files import sha256
from tasks.core.base.paths import hub_folder
from tests.backbone import FEATURES, save_tiny_backbone
from tests.hub import Answer, Hub, ends_early, fails, packed, packed_member, serving, stalls, stop
from tests.structure import ROOT

NAME = "mobilenet_v2_100_224"
HANDLE = "https://tfhub.dev/google/imagenet/mobilenet_v2_100_224/feature_vector/4"
PATH = "/google/imagenet/mobilenet_v2_100_224/feature_vector/4"
OTHER_THAN_224 = {
    240: {"efficientnet_lite1", "efficientnetv2-b1", "efficientnetv2-b1-21k", "efficientnetv2-b1-21k-ft1k"}
    | {"efficientnet_b1"},
    260: {"efficientnetv2-b2", "efficientnetv2-b2-21k", "efficientnetv2-b2-21k-ft1k", "efficientnet_b2"},
    299: {"inception_v3", "inception_resnet_v2"},
    300: {"efficientnetv2-b3", "efficientnetv2-b3-21k", "efficientnetv2-b3-21k-ft1k", "efficientnet_b3"},
    331: {"nasnet_large", "pnasnet_large"},
    380: {"efficientnet_b4"},
    384: {"efficientnetv2-s", "efficientnetv2-s-21k", "efficientnetv2-s-21k-ft1k"},
    456: {"efficientnet_b5"},
    480: {f"efficientnetv2-{size}{data}" for size in "ml" for data in ("", "-21k", "-21k-ft1k")},
    512: {"efficientnetv2-xl-21k", "efficientnetv2-xl-21k-ft1k"},
    528: {"efficientnet_b6"},
    600: {"efficientnet_b7"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny_backbone(folder)
    return folder


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes images of 48 pixels and no others."""
    folder = tmp_path_factory.mktemp("model") / "fixed"
    save_tiny_backbone(folder, side=48)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of TF Hub's, and no long waits."""
    monkeypatch.setattr(download, "download", partial(download.download, timeout=1, tries=3, pause=0.001))
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(
    cache: Path,  # noqa: ARG001
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Hub]:
    """A mirror of TF Hub that has one of the catalogue's models."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Hub()) as hub:
        monkeypatch.setenv("DARKROOM_HUB", hub.address)
        hub.archives[PATH] = packed(model)
        yield hub


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*"))


# Fetching.


def test_a_name_of_the_catalogue_comes_from_the_mirror_trains_and_then_needs_no_server(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cache is keyed by TF Hub's own address: a model is the same one with and without a mirror."""
    first = backbone_layer(NAME, trainable=True)
    assert hub.asked == [f"{PATH}?tf-hub-format=compressed", f"/archive{PATH}"]
    assert hub.address in capsys.readouterr().out, "one line says what is fetched from where"
    stop(hub)
    second = backbone_layer(NAME, trainable=True)
    images = np.random.default_rng(0).random((2, 40, 40, 3), dtype="float32")
    assert first(images).shape == (2, FEATURES)
    np.testing.assert_array_equal(first(images), second(images))
    assert len(second.trainable_variables) == 2
    assert store.locate(NAME) == store.locate(HANDLE) == HANDLE
    assert tensorflow_hub.resolve(HANDLE) == str(hub_folder(HANDLE)), "TF Hub looks where we put it"
    assert capsys.readouterr().out == ""


def test_every_name_of_the_catalogue_is_asked_for_at_its_own_address(hub: Hub) -> None:
    """The failing twin: nothing is there, which is told at once and leaves nothing behind."""
    hub.archives.clear()
    rows = [row for row in catalogue.catalogue().values() if not row.package]
    assert len(rows) == 50
    for row in rows:
        with pytest.raises(BackboneError, match=f"{row.handle} can't be fetched: .*404.*check the address"):
            store.locate(row.name)
    assert [f"https://tfhub.dev{path}" for path in hub.asked] == [
        f"{row.handle}?tf-hub-format=compressed" for row in rows
    ]


@pytest.mark.parametrize(
    "mishap",
    [fails(500), fails(503), fails(429), ends_early, stalls],
    ids=["500", "503", "429", "cut", "stall"],
)
def test_what_may_pass_is_tried_again(hub: Hub, mishap: Answer, model: Path) -> None:
    hub.mishaps.append(mishap)
    assert store.facts(NAME).sha256 == sha256(model)
    assert len(hub.asked) == 4


@pytest.mark.parametrize(
    ("mishap", "words"),
    [
        (fails(500), "the server answers 500 Internal Server Error"),
        (ends_early, r"the answer ended \d+ bytes early"),
        (stalls, r"nothing came for 1 seconds"),
    ],
    ids=["500", "cut", "stall"],
)
def test_what_does_not_pass_ends_with_one_line_and_leaves_nothing(
    hub: Hub, cache: Path, mishap: Answer, words: str
) -> None:
    """Neither a wait without end nor half a model, which TF Hub would take for a whole one."""
    hub.mishaps += [mishap] * 3
    with pytest.raises(BackboneError, match=f"{words}; with no network use efficientnet_lite0") as caught:
        store.locate(NAME)
    assert "\n" not in str(caught.value)
    assert hub.mishaps == []
    assert left_in(cache) == []


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_will_not_pass_is_not_tried_again(hub: Hub, code: int) -> None:
    hub.mishaps += [fails(code)] * 3
    with pytest.raises(BackboneError, match=f"answers {code}") as caught:
        store.locate(NAME)
    assert len(hub.mishaps) == 2
    answer = caught.value.__context__
    assert isinstance(answer, HTTPError) and answer.fp.closed, "or the connection stays until it is collected"


def test_without_a_server_the_way_to_go_on_is_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        monkeypatch.setenv("DARKROOM_HUB", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(BackboneError) as caught:
        store.locate(NAME)
    text = str(caught.value)
    assert all(word in text for word in (HANDLE, "refused", "built in", str(cache), "tasks.backbones fetch"))
    assert "\n" not in text
    assert capsys.readouterr().out.count("once more in") == 2
    assert left_in(cache) == []


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (packed_member("../outside"), r"'\.\./outside' is invalid"),
        (packed_member("saved_model.pb", link="/etc/hostname"), "Unexpected object type"),
        (packed_member("/outside"), "saved_model.pb is missing"),
        (packed_member("saved_model.pb", data=b"not a graph"), "saved_model.pb is missing or broken"),
        (packed_member("saved_model.pb", data=b""), "saved_model.pb is missing or broken"),
        (b"<html>Sign in</html>", "is no archive"),
        (b"", "is no archive"),
        (packed_member("big", data=os.urandom(9999))[:5000], "is no archive"),
    ],
    ids=[
        "out of the folder",
        "link",
        "absolute",
        "no graph",
        "empty graph",
        "page",
        "nothing",
        "cut before it was served",
    ],
)
def test_what_is_no_model_is_refused_and_nothing_is_written_outside(
    hub: Hub, cache: Path, archive: bytes, words: str
) -> None:
    hub.archives[PATH] = archive
    with pytest.raises(BackboneError, match=words) as caught:
        store.locate(NAME)
    assert HANDLE in str(caught.value) and "\n" not in str(caught.value)
    assert left_in(cache) == []
    assert [path.name for path in cache.parent.iterdir()] == ["cache"]
    assert not Path("/outside").exists()


def test_an_archive_that_would_explode_is_not_unpacked(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for its first members, which are small."""
    monkeypatch.setattr(download, "SMALL", 0)
    monkeypatch.setattr(tensorflow_hub.file_utils, "extract_tarfile_to_destination", pytest.fail)
    hub.archives[PATH] = packed_member("saved_model.pb", data=bytes(10**7))
    with pytest.raises(BackboneError, match=r"no archive of a model \(it unpacks to more than 20 times"):
        store.locate(NAME)
    assert left_in(cache) == []


def test_weights_that_can_not_be_converted_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"nothing can't be made .* \(KeyError: 'nothing'\)$") as caught:
        store._convert("nothing", tmp_path / "backbone")
    assert "\n" not in str(caught.value)


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def locked(place: Path, host: str, number: int) -> Path:
    """What a process that is fetching a model has made."""
    begun = place.with_name(f"{place.name}.1f2e.tmp")
    begun.mkdir(parents=True)
    (begun / "half").write_bytes(b"half a model")
    place.with_name(f"{place.name}.lock").write_text(f"{host}.{number}.1f2e")
    return begun


@pytest.mark.usefixtures("hub")
def test_the_lock_of_a_killed_process_holds_nobody_up(cache: Path) -> None:
    """TF Hub would wait until it was ten minutes old."""
    place = hub_folder(HANDLE)
    begun = locked(place, socket.gethostname(), dead_process())
    store.locate(NAME)
    assert not begun.exists()
    kinds = {path.name.removeprefix(place.name) for path in cache.iterdir()}
    assert kinds == {"", ".descriptor.txt", ".json"}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("host", [socket.gethostname(), "another.example"])
def test_the_lock_of_a_process_that_lives_or_may_live_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = hub_folder(HANDLE)
    begun = locked(place, host, os.getppid() if host == socket.gethostname() else dead_process())
    monkeypatch.setattr(tensorflow_hub.resolver, "atomic_download", lambda *_: None)  # it would wait
    download.download(HANDLE)
    assert begun.exists()
    assert "waiting" in capsys.readouterr().out


@pytest.mark.usefixtures("hub")
def test_a_model_that_was_spoilt_in_the_cache_is_named() -> None:
    store.locate(NAME)
    (hub_folder(HANDLE) / "saved_model.pb").write_bytes(b"spoilt")
    with pytest.raises(BackboneError, match=f"{hub_folder(HANDLE)} can't be loaded"):
        store.locate(NAME)


# Pinning.


@pytest.mark.usefixtures("hub")
def test_a_pinned_model_is_loaded(model: Path) -> None:
    assert backbone_layer(NAME, trainable=False, sha256=sha256(model))


@pytest.mark.usefixtures("hub")
def test_another_model_than_the_pinned_one_is_not_loaded_and_does_not_stay(cache: Path, model: Path) -> None:
    with pytest.raises(BackboneError) as caught:
        backbone_layer(NAME, trainable=True, sha256="0" * 64)
    assert all(word in str(caught.value) for word in ("model.sha256", "0" * 64, sha256(model), "removed"))
    assert left_in(cache) == []


@pytest.mark.usefixtures("hub")
def test_one_that_was_in_the_cache_before_stays_whatever_the_pin(model: Path) -> None:
    """A slip in model.sha256 would else cost an offline machine its model."""
    store.locate(NAME)
    with pytest.raises(BackboneError, match=r"model\.sha256") as caught:
        backbone_layer(NAME, trainable=True, sha256="0" * 64)
    assert "removed" not in str(caught.value)
    assert store.facts(NAME).sha256 == sha256(model)


def test_a_folder_of_the_users_is_refused_and_stays(model: Path) -> None:
    assert store.locate(str(model), sha256(model)) == str(model)
    with pytest.raises(BackboneError, match=r"model\.sha256") as caught:
        store.locate(str(model), "0" * 64)
    assert "removed" not in str(caught.value)
    assert (model / "saved_model.pb").is_file()
    assert not model.with_name("tiny.json").exists(), "nothing of ours is put beside it"


@pytest.mark.usefixtures("hub")
def test_the_pin_holds_after_the_cache_was_changed(fixed: Path, model: Path) -> None:
    """What was noted of a model counts for its very files, and for no others in their place."""
    digest = store.facts(NAME).sha256
    shutil.rmtree(hub_folder(HANDLE))
    shutil.copytree(fixed, hub_folder(HANDLE))
    assert store.facts(NAME).sha256 == sha256(fixed) != digest == sha256(model)
    with pytest.raises(BackboneError, match=digest):
        store.locate(NAME, digest)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("note", ["", "null", "{}", '{"files": []}'])
def test_a_spoilt_note_costs_time_and_nothing_else(model: Path, note: str) -> None:
    store.locate(NAME)
    hub_folder(HANDLE).with_name(f"{hub_folder(HANDLE).name}.json").write_text(note)
    assert store.facts(NAME).sha256 == sha256(model)


# Image sizes.


def test_names_that_need_no_number_have_their_size(hub: Hub, model: Path) -> None:
    sizes = {name: size for size, names in OTHER_THAN_224.items() for name in names}
    for row in catalogue.catalogue().values():
        if not row.package:
            hub.archives[row.handle.removeprefix("https://tfhub.dev")] = packed(model)
        assert store.image_sizes(row.name, "auto", 1000) == [sizes.pop(row.name, 224)], row.name
        assert store.image_sizes(row.name, 96, 1000) == [96], row.name
    assert sizes == {}


def test_what_the_model_says_comes_first(hub: Hub, fixed: Path) -> None:
    hub.archives[PATH] = packed(fixed)
    assert store.image_sizes(NAME, "auto", 1000) == store.image_sizes(NAME, 48, 1000) == [48]
    with pytest.raises(ParamError, match=r"model\.image_size is 224, but .* takes images of 48 pixels alone"):
        store.image_sizes(NAME, 224, 1000)


def test_a_size_that_nobody_knows_has_to_be_given(model: Path) -> None:
    with pytest.raises(ParamError, match=f"model.image_size is 'auto', but {model}"):
        store.image_sizes(str(model), "auto", 1000)
    assert store.image_sizes(str(model), 40, 1000) == [40]


@pytest.mark.parametrize(("name", "largest"), [("efficientnet_lite0", 224), ("efficientnet_lite1", 240)])
def test_the_built_in_ones_take_small_images_as_they_are(name: str, largest: int) -> None:
    sizes = {side: store.image_sizes(name, "auto", side) for side in (8, 28, 64, 65, 96, 230, 1000)}
    assert sizes == {
        8: [64],
        28: [64, 128],
        64: [64, 128, largest],
        65: [96, largest],
        96: [96, largest],
        230: [largest],
        1000: [largest],
    }


def test_a_signature_says_it_where_a_model_can_not_be_called(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), name="images")])
    def default(images: Any) -> dict[str, Any]:
        return {"default": tf.reduce_mean(images, (1, 2))}

    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "signed"), signatures={"default": default})
    assert saved_model.inspect(tmp_path / "signed") == saved_model.Declared(32, 3, False, False)
    tf.saved_model.save(module, str(tmp_path / "silent"))
    assert saved_model.inspect(tmp_path / "silent") == saved_model.Declared(None, None, False, False)


# Names.


@pytest.mark.parametrize(
    ("name", "near"), [("mobilenet_v2_100", NAME), ("efficientnetv2_b0", "efficientnetv2-b0"), ("zzz", "")]
)
def test_an_unknown_name_is_told_what_is_near_it(name: str, near: str) -> None:
    with pytest.raises(
        ParamError, match=f"model.backbone is '{name}'; it must be efficientnet_lite0"
    ) as caught:
        catalogue.check(name)
    assert near in str(caught.value) and ("did you mean" in str(caught.value)) == bool(near)
    assert "\n" not in str(caught.value)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.backbones", *words],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.usefixtures("hub")
def test_the_command_lists_and_fetches(model: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run("--json").stdout)}
    assert list(rows) == list(catalogue.catalogue())
    assert rows[NAME] == {
        "name": NAME,
        "image_size": 224,
        "features": None,
        "cached": False,
        "source": HANDLE,
    }
    fetched = run("fetch", NAME)
    assert (fetched.returncode, fetched.stderr) == (0, "")
    assert f"model.sha256: {sha256(model)}" in fetched.stdout
    assert str(hub_folder(HANDLE)) in fetched.stdout
    listed = run()
    assert (listed.returncode, listed.stderr) == (0, "")
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith(f"{NAME} ")]
    assert line.split() == [NAME, "224", str(FEATURES), "yes", HANDLE]
    assert len({line.find("https://") for line in listed.stdout.splitlines() if "https://" in line}) == 1


def test_the_command_ends_with_one_line_and_2_where_it_can_not_fetch(hub: Hub) -> None:
    hub.archives.clear()
    done = run("fetch", NAME)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("backbones: model.backbone: ") and "404" in line


def test_the_list_needs_no_tensorflow() -> None:
    """It comes in a fraction of a second."""
    work = "from tasks.core.backbones.store import list_backbones; list(list_backbones())"
    code = f"import sys; {work}; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_backbone_is_loaded_without_keras_3(model: Path) -> None:
    """TensorFlow Hub would import it for nothing, which is a second of each stage; a notebook may, later."""
    load = f"from tasks.core.backbones.layer import *; backbone_layer({str(model)!r}, trainable=True)"
    code = f"import sys; {load}; print('keras' in sys.modules); import keras; print(keras.__version__[0])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "3"]
