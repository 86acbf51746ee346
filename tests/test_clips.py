"""Own clips: from files of many kinds to a trained model and its animations."""

import dataclasses
import importlib.util
import json
import os
import shutil
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import animate
from extras import clips
import data
import predict
import train
from extras.cli import InputError
from test_train import SMALLEST, log_of, options, stopping_at_step

av = pytest.importorskip("av")

sys.path.insert(0, str(data.ASSETS.parent / "examples"))
import make_clips


def noise(frames, height=32, width=32, channels=3):
    shape = (frames, height, width, channels)
    return np.random.default_rng(frames).integers(0, 256, shape, dtype=np.uint8)


def write_frames(folder, video, name="frame-{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for n, frame in enumerate(video):
        Image.fromarray(np.squeeze(frame)).save(folder / name.format(n))


def write_webm(path, video):
    with av.open(path, "w") as file:
        stream = file.add_stream("libvpx", rate=15, pix_fmt="yuv420p", options={"crf": "4"})
        stream.height, stream.width = video.shape[1:3]
        for frame in video:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def frames_of(path, folder, size=16, channels=None):
    return clips.open_clips(str(path), folder, size, channels)[0]


def drawn_clip(seed=0, frames=6):
    return make_clips.draw_clip(np.random.default_rng(seed), frames)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of twelve clips of eight frames, as the example draws them."""
    folder = tmp_path_factory.mktemp("drawn")
    for n in range(12):
        make_clips.write_mp4(folder / f"clip-{n}.mp4", drawn_clip(n, frames=8))
    return folder


# From files to frames


def test_every_kind_of_clip_is_found_in_the_order_of_its_number(tmp_path):
    source = tmp_path / "in"
    (source / "a").mkdir(parents=True)
    for n in (1, 2, 10):
        make_clips.write_mp4(source / "a" / f"{n}.mp4", drawn_clip(frames=n))
    write_webm(source / "b.WEBM", drawn_clip(frames=3))
    images = [Image.fromarray(frame) for frame in drawn_clip(frames=4)]
    images[0].save(source / "c.gif", save_all=True, append_images=images[1:])
    write_frames(source / "d", noise(12))
    write_frames(source / "e", noise(5), "{}.jpg")
    (source / ".hidden.mp4").write_bytes(b"no video")
    (source / "notes.txt").write_text("no clip")

    frames, spans = clips.open_clips(str(source), tmp_path, 16)
    lengths = json.loads((tmp_path / "clips-cache.json").read_text())["frames"]
    names = ["a/1.mp4", "a/2.mp4", "a/10.mp4", "b.WEBM", "c.gif", "d", "e"]
    assert list(lengths) == [str(source / name) for name in names]
    assert list(lengths.values()) == [1, 2, 10, 3, 4, 12, 5]
    assert frames.shape == (37, 16, 16, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(spans[:, 1] - spans[:, 0], list(lengths.values()))
    np.testing.assert_array_equal(spans[1:, 0], spans[:-1, 1])


def test_frames_are_what_was_in_the_files(tmp_path):
    video = drawn_clip()
    write_frames(tmp_path / "png", video)
    np.testing.assert_array_equal(frames_of(tmp_path / "png", tmp_path, 96), video)
    make_clips.write_mp4(tmp_path / "a.mp4", video)
    write_webm(tmp_path / "a.webm", video)
    for name in ("a.mp4", "a.webm"):
        decoded = frames_of(tmp_path / name, tmp_path, 96)
        assert np.abs(decoded.astype(int) - video).mean() < 4
    np.save(tmp_path / "a.npy", np.stack([video, video[::-1]]))
    frames, spans = clips.open_clips(str(tmp_path / "a.npy"), tmp_path, 96)
    np.testing.assert_array_equal(frames, [*video, *video[::-1]])
    np.testing.assert_array_equal(spans, [[0, 6], [6, 12]])


def test_frames_are_resized_and_their_middle_is_kept(tmp_path):
    wide = np.zeros((2, 20, 60, 3), np.uint8)
    wide[:, :, 20:40] = (255, 0, 0)  # the middle square is red
    write_frames(tmp_path / "wide", wide)
    write_frames(tmp_path / "high", wide.swapaxes(1, 2))
    for name in ("wide", "high"):
        frames = frames_of(tmp_path / name, tmp_path, 40)
        assert frames.shape == (2, 40, 40, 3)
        assert (frames[:, 2:-2, 2:-2] == (255, 0, 0)).all()


def test_the_channels_follow_the_clips_unless_they_are_given(tmp_path):
    grey = np.repeat(noise(5, channels=1), 3, axis=3)
    coloured = grey.copy()
    coloured[4, 5, 6] = (255, 0, 0)  # a single pixel of the last frame
    for name, video, channels in [("grey", grey, 1), ("coloured", coloured, 3)]:
        make_clips_folder = tmp_path / name
        write_frames(make_clips_folder, video)
        frames = frames_of(make_clips_folder, tmp_path, 32)
        np.testing.assert_array_equal(frames, video[..., :channels])
    write_webm(tmp_path / "grey.webm", grey)
    assert frames_of(tmp_path / "grey.webm", tmp_path).shape == (5, 16, 16, 1)
    assert frames_of(tmp_path / "coloured", tmp_path, channels=1).shape == (5, 16, 16, 1)
    assert frames_of(tmp_path / "grey", tmp_path, channels=3).shape == (5, 16, 16, 3)


def test_clips_are_converted_once_and_again_when_they_have_changed(tmp_path, monkeypatch):
    converted = []
    convert = clips.convert
    monkeypatch.setattr(
        clips, "convert", lambda *arguments: converted.append(1) or convert(*arguments)
    )
    folder, cache = tmp_path / "in", tmp_path / "clips-cache.npy"
    write_frames(folder, noise(3))
    first = np.array(frames_of(folder, tmp_path))
    np.testing.assert_array_equal(frames_of(folder, tmp_path), first)
    assert isinstance(frames_of(folder, tmp_path, channels=3), np.memmap)
    assert len(converted) == 1

    frames_of(folder, tmp_path, size=8)
    assert len(converted) == 2
    Image.fromarray(noise(1)[0]).save(folder / "frame-1.png")  # of the same length, but later
    os.utime(folder / "frame-1.png", (1, 1))
    assert (frames_of(folder, tmp_path) != first).any()
    (folder / "frame-2.png").unlink()
    assert len(frames_of(folder, tmp_path)) == 2
    assert len(converted) == 4
    for damage in (cache.unlink, lambda: cache.write_bytes(cache.read_bytes()[:200])):
        damage()
        assert len(frames_of(folder, tmp_path)) == 2
    (tmp_path / "clips-cache.json").write_text("[]")
    assert len(frames_of(folder, tmp_path)) == 2
    assert len(converted) == 7
    assert not list(tmp_path.glob(".unfinished*"))


# Windows


def test_clips_are_divided_and_no_frame_is_in_both_parts():
    lengths = np.array([30] * 25 + [4])  # the last one is too short
    ends = np.cumsum(lengths)
    training, validation = clips.split_clips(np.stack([ends - lengths, ends], axis=1), 20)
    assert (len(training), len(validation)) == (22, 3)
    assert not set(map(tuple, training)) & set(map(tuple, validation))
    assert validation[-1].tolist() == [24 * 30, 25 * 30]
    training, validation = clips.split_clips(np.array([[0, 30], [30, 60]]), 20)
    assert training.tolist() == [[0, 30]] and validation.tolist() == [[30, 60]]


def test_a_clip_that_is_alone_is_divided_in_time():
    training, validation = clips.split_clips(np.array([[0, 1000]]), 20)
    assert training.tolist() == [[0, 900]] and validation.tolist() == [[900, 1000]]
    training, validation = clips.split_clips(np.array([[0, 4], [4, 54]]), 20)
    assert training.tolist() == [[4, 34]] and validation.tolist() == [[34, 54]]
    with pytest.raises(InputError, match="40 are needed"):
        clips.split_clips(np.array([[0, 39]]), 20)
    with pytest.raises(InputError, match="longest clip has 19 frames"):
        clips.split_clips(np.array([[0, 19], [19, 30]]), 20)


def test_windows_are_all_that_there_are_and_none_crosses_the_end_of_a_clip():
    frames = np.arange(20).reshape(20, 1, 1, 1)
    spans = np.array([[0, 7], [7, 10], [10, 20]])
    every = clips.Windows(frames, spans, length=3, step=1)
    starts = [*range(5), 7, *range(10, 18)]
    np.testing.assert_array_equal(
        every[np.arange(len(every))][..., 0, 0, 0], [[n, n + 1, n + 2] for n in starts]
    )
    apart = clips.Windows(frames, spans, length=3, step=3)
    assert apart[[0, 1, 2, 3]][:, 0].ravel().tolist() == [0, 3, 7, 10] and len(apart) == 6


def test_a_batch_of_windows_follows_from_seed_epoch_and_index_alone():
    spans = np.array([[0, 500]])
    windows = clips.Windows(noise(500, 2, 2), spans, SMALLEST.frames, step=1)

    def batch(index, epoch=0, seed=0):
        config = dataclasses.replace(SMALLEST, seed=seed)
        return train.ClosedLoopVideos(config, epoch, windows)[index][0]["videos"]

    np.testing.assert_array_equal(batch(1), batch(1))
    for other in (batch(0), batch(1, epoch=1), batch(1, seed=1)):
        assert (batch(1) != other).any()
    assert batch(1).shape == (2, 3, 2, 2, 3) and batch(1).dtype == np.float32


# Training and forecasting

ON_CLIPS = dataclasses.replace(SMALLEST, model="forecaster", digits_per_video=2, epochs=2)


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    """A short run on the drawn clips."""
    folder = tmp_path_factory.mktemp("runs") / "clips"
    train.train(dataclasses.replace(ON_CLIPS, data=str(drawn)), folder)
    return folder


def test_a_run_on_clips_can_be_repeated_from_its_config(run, drawn, tmp_path):
    config = train.read_config(run)
    assert config.data == str(drawn) and config.channels == 3
    assert keras.models.load_model(run / "best.keras").channels == 3
    train.train(config, tmp_path / "again")
    for name in ("last.keras", "best.keras"):
        models = [keras.models.load_model(folder / name) for folder in (run, tmp_path / "again")]
        for weights in zip(*(model.get_weights() for model in models), strict=True):
            np.testing.assert_array_equal(*weights)


def test_a_run_on_clips_is_resumed_exactly(script, run, drawn, tmp_path, monkeypatch):
    parts = tmp_path / "parts"
    arguments = ["--preset", "tiny", *options(ON_CLIPS), "--data", drawn, "--run", parts]
    with monkeypatch.context() as patch:
        patch.setattr(train, "RunFolder", stopping_at_step(3))
        assert script(train, *arguments)[0] == 130
    monkeypatch.setattr(clips, "convert", None)  # it is not called again
    assert script(train, "--resume", parts)[0] == 0
    weights = [
        keras.models.load_model(folder / "last.keras").get_weights() for folder in (run, parts)
    ]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_is_validated_on_clips_that_it_does_not_train_on(script, run, drawn, tmp_path):
    """And these are what predict.py and animate.py take, if they are told no other."""
    arguments = [run, "--context", 2, "--horizon", 2, "--out", tmp_path]
    assert script(predict, *arguments, "--data", "validation")[0] == 0
    arrays = np.load(tmp_path / "predictions.npz")
    frames, _ = clips.open_clips(str(drawn), run, SMALLEST.size)
    # Of twelve clips of eight frames the second and the last, in windows of four.
    validation = np.concatenate([frames[8:16], frames[88:]]).reshape(4, 4, 32, 32, 3)
    np.testing.assert_array_equal(
        np.concatenate([arrays["context"], arrays["truth"]], axis=1), validation
    )
    difference = arrays["prediction"] - data.to_float(validation[:, 2:])
    mse = np.square(difference).sum(axis=(2, 3, 4)).mean()
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mean"]["mse"] == pytest.approx(mse, rel=1e-4)
    best = min(float(row["val_mse"]) for row in log_of(run))
    first_three = np.square(difference[[0, 1, 3]]).sum(axis=(2, 3, 4)).mean()
    assert best == pytest.approx(first_three, rel=1e-3)  # SMALLEST validates on three

    assert script(animate, *arguments, "--count", 1)[0] == 0
    (gif,) = tmp_path.glob("validation-*.gif")
    shown = np.asarray(Image.open(gif).convert("RGB")).astype(int)
    assert np.ptp(shown[40:, 10:-10], axis=-1).max() > 100  # in colour


def test_other_clips_are_forecast_in_the_colours_and_at_the_size_of_the_model(
    script, refused, run, drawn, tiny_run, tmp_path
):
    arguments = ["--data", drawn / "clip-3.mp4", "--horizon", 2, "--out", tmp_path, "--context", 2]
    assert script(animate, run, *arguments)[0] == 0
    assert {path.name for path in tmp_path.glob("*.gif")} == {"clip-3-0000.gif", "clip-3-0001.gif"}
    for model, size, shape in [
        (run, [], (2, 2, 32, 32, 3)),
        (tiny_run, [], (2, 2, 64, 64, 1)),
        (tiny_run / "best.keras", ["--size", 40], (2, 2, 40, 40, 1)),
    ]:
        assert script(predict, model, *arguments, *size)[0] == 0
        assert np.load(tmp_path / "predictions.npz")["prediction"].shape == shape
    assert "longest clip has 8 frames" in refused(predict, run, *arguments, "--context", 7)
    assert "36 x 36" in refused(predict, tiny_run, *arguments, "--size", 36)
    assert "--size" in refused(predict, tiny_run, "--size", 64, "--out", tmp_path)
    assert "no test set" in refused(predict, run, "--out", tmp_path)


def test_training_in_grey_goes_on_from_grey_weights(
    script, refused, run, drawn, tiny_run, tmp_path
):
    small = "--frames 3 --context 2 --size 32 --batch-size 1 --steps-per-epoch 1 --epochs 1"
    grey = ["--init", tiny_run, "--data", drawn, *small.split(), "--validation-videos", 1]
    assert script(train, *grey, "--run", tmp_path / "grey")[0] == 0
    assert train.read_config(tmp_path / "grey").channels == 1
    assert "--data moving-mnist" in refused(train, "--init", run, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Bad input


def damaged(tmp_path, name):
    source = tmp_path / name
    if name.endswith((".mp4", ".gif")):
        source.write_bytes(b"neither" * 100)
    elif name == "cut.webm":
        write_webm(source, noise(20))
        source.write_bytes(source.read_bytes()[:400])
    elif name == "16-bit":
        source.mkdir()
        Image.fromarray(np.zeros((32, 32), np.uint16)).save(source / "1.png")
    elif name == "cut-frame":
        write_frames(source, noise(2))
        frame = source / "frame-1.png"
        frame.write_bytes(frame.read_bytes()[:500])
    elif name == "empty":
        source.mkdir()
    elif name == "notes.txt":
        source.write_text("no clip")
    elif name == "one-frame":
        write_frames(source, noise(1))
    elif name == "bad.npy":
        np.save(source, np.zeros((2, 2)))
    return source


@pytest.mark.parametrize(
    "name, reason",
    [
        ("text.mp4", "cannot be read"), ("text.gif", "cannot be read"),
        ("cut.webm", "cannot be read"), ("16-bit", "more than 8 bits"),
        ("cut-frame", "cannot be read"), ("empty", "no clips"), ("notes.txt", "no clips"),
        ("missing", "no such file"), ("one-frame", "longest clip has 1 frames"),
        ("bad.npy", "shape"), ("", "no such file"),
    ],
)  # fmt: skip
def test_bad_clips_are_refused_in_one_line(refused, tmp_path, name, reason):
    source = damaged(tmp_path, name) if name else ""
    arguments = ["--preset", "tiny", "--data", source, "--run", tmp_path / "run"]
    line = refused(train, *arguments)
    assert reason in line and (name in line or name == "one-frame")
    assert not (tmp_path / "run" / "config.json").exists()
    assert not list(tmp_path.glob("run/.unfinished*"))


def test_a_size_that_the_model_cannot_fold_is_refused_before_clips_are_converted(
    refused, drawn, tmp_path
):
    arguments = ["--data", drawn, "--size", 36, "--run", tmp_path / "run"]
    assert "36 x 36" in refused(train, *arguments)
    assert not (tmp_path / "run").exists()


def test_only_videos_need_a_package_more(refused, drawn, tmp_path, monkeypatch):
    write_frames(tmp_path / "frames", noise(3))
    video = drawn_clip(frames=3)
    images = [Image.fromarray(frame) for frame in video]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    monkeypatch.setitem(sys.modules, "av", None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        clips.importlib.util, "find_spec", lambda name: None if name == "av" else find_spec(name)
    )
    for name in ("frames", "a.gif"):
        assert len(frames_of(tmp_path / name, tmp_path)) == 3
    line = refused(train, "--data", drawn, "--run", tmp_path / "run")
    assert "pip install av" in line


def test_a_full_disk_leaves_the_cache_that_there_was(script, run, drawn, tmp_path, monkeypatch):
    folder = shutil.copytree(run, tmp_path / "run")
    before = (folder / "clips-cache.npy").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(drawn, other)
    config = dataclasses.replace(train.read_config(run), data=str(other))
    train.write_json(folder / "config.json", dataclasses.asdict(config))

    def write_half(clips, path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clips, "convert", write_half)
    status, _, errors = script(train, "--resume", folder)
    assert status == 1 and "No space left" in errors and len(errors.splitlines()) == 1
    assert (folder / "clips-cache.npy").read_bytes() == before
    assert not list(folder.glob(".unfinished*"))


# The example


def test_the_example_draws_the_same_clips_from_the_same_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_clips.main(tmp_path / name, count=2, frames=3, seed=seed)
    a, b, c = (
        [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abc"
    )
    assert a == b and a[0] != a[1] and a != c
