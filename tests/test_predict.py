"""Forecasts and their scores: own predictions only, in the literature's figures, in whole files."""

import dataclasses
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from skimage.metrics import structural_similarity

import animate
import data
import model as models
import predict
import train
from extras import official, runs, sprites
from helpers import QUICK, files_in


def test_script_scores_forecasts_on_own_predictions(script, trained_run, tmp_path):
    status, output, _ = script(
        predict, trained_run, "--count", 3, "--horizon", 4, "--out", tmp_path
    )
    assert status == 0
    arrays = np.load(tmp_path / "predictions.npz")
    videos = data.EvaluationVideos("test", size=40)[np.arange(3)]  # as in training
    np.testing.assert_array_equal(arrays["context"], videos[:, :10])
    np.testing.assert_array_equal(arrays["truth"], videos[:, 10:14])
    assert arrays["context"].dtype == np.uint8
    np.testing.assert_array_equal(arrays["indices"], [0, 1, 2])
    prediction = arrays["prediction"]
    assert prediction.dtype == np.float32 and 0 <= prediction.min() <= prediction.max() <= 1
    model = runs.load_model(trained_run)
    expected = models.rollout(model, data.to_float(videos[:, :10]), 4)
    np.testing.assert_allclose(prediction, expected, atol=1e-6)

    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["model"] == str(trained_run) and scores["data"] == "test"
    assert [scores[key] for key in ("count", "context", "horizon")] == [3, 10, 4]
    difference = prediction - data.to_float(arrays["truth"])
    mse = np.square(difference).sum(axis=(2, 3, 4)).mean(axis=0)
    np.testing.assert_allclose(scores["mse"], mse, rtol=1e-5)
    copy = data.to_float(videos[:, 9:10]) - data.to_float(videos[:, 10:14])
    mae = np.abs(copy).sum(axis=(2, 3, 4)).mean(axis=0)
    np.testing.assert_allclose(scores["copy_last"]["mae"], mae, rtol=1e-5)
    for part in (scores, scores["copy_last"]):
        for name in ("mse", "mae", "psnr", "ssim", "ssim_range2"):
            assert len(part[name]) == 4
            assert part["mean"][name] == pytest.approx(np.mean(part[name]))

    table = [line.split() for line in output.splitlines()]
    last = next(row for row in table if row[:1] == ["mean"])
    assert float(last[1]) == pytest.approx(scores["mean"]["mse"], abs=0.01)
    assert float(last[6]) == pytest.approx(scores["copy_last"]["mean"]["mse"], abs=0.01)


def test_scores_are_those_of_the_literature():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (2, 3, 16, 16, 1), dtype=np.uint8)
    prediction = rng.uniform(-0.5, 1.5, (2, 3, 16, 16, 1)).astype(np.float32)
    scores = predict.score(truth, prediction)
    for frame in range(3):
        per_video = {name: [] for name in predict.SCORES}
        for video in range(2):
            real = truth[video, frame, :, :, 0] / 255
            predicted = prediction[video, frame, :, :, 0].astype(float)
            per_video["mse"].append(((predicted - real) ** 2).sum())
            per_video["mae"].append(abs(predicted - real).sum())
            clipped = predicted.clip(0, 1)
            per_video["psnr"].append(10 * np.log10(1 / ((clipped - real) ** 2).mean()))
            per_video["ssim"].append(structural_similarity(real, clipped, data_range=1))
            per_video["ssim_range2"].append(structural_similarity(real, clipped, data_range=2))
        for name, values in per_video.items():
            assert scores[name][frame] == pytest.approx(np.mean(values), rel=1e-4), name


def test_a_perfect_forecast():
    truth = data.EvaluationVideos("test", frames=2)[[0]]
    scores = predict.score(truth, data.to_float(truth))
    assert scores["mean"] == {"mse": 0, "mae": 0, "psnr": 100, "ssim": 1, "ssim_range2": 1}


def test_the_shipped_weights_forecast_far_better_than_copying(script, tmp_path):
    status, _, _ = script(predict, "--count", 50, "--out", tmp_path)
    assert status == 0
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mean"]["mse"] < scores["copy_last"]["mean"]["mse"] / 4
    assert scores["copy_last"]["mean"]["mse"] > 250
    assert scores["mean"]["ssim"] > scores["copy_last"]["mean"]["ssim"]
    assert max(scores["mse"]) < min(scores["copy_last"]["mse"])


def test_the_future_is_not_looked_at(script, trained_run, tmp_path):
    videos = data.EvaluationVideos("test")[[0, 1]]
    for name, rest in (("real", videos[:, 10:]), ("noise", 255 - videos[:, 10:])):
        np.save(tmp_path / f"{name}.npy", np.concatenate([videos[:, :10], rest], axis=1))
        script(predict, trained_run, "--data", tmp_path / f"{name}.npy", "--out", tmp_path / name)
    predictions = [np.load(tmp_path / name / "predictions.npz") for name in ("real", "noise")]
    np.testing.assert_array_equal(*(arrays["prediction"] for arrays in predictions))


def test_own_clips_without_truth_are_forecast_and_not_scored(script, trained_run, tmp_path):
    clips = data.EvaluationVideos("validation", frames=10)[[0, 1]][..., 0] / 255
    np.save(tmp_path / "clips.npy", clips)
    arguments = [trained_run, "--data", tmp_path / "clips.npy", "--horizon", 3, "--out", tmp_path]
    status, output, _ = script(predict, *arguments)
    assert status == 0 and "nothing to score" in output
    assert not (tmp_path / "scores.json").exists()
    assert np.load(tmp_path / "predictions.npz")["prediction"].shape == (2, 3, 64, 64, 1)
    # Two frames less of context leave two to score.
    status, output, _ = script(predict, *arguments, "--context", 8)
    assert status == 0 and "only these are scored" in output
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert len(scores["mse"]) == 2 and scores["horizon"] == 3


def test_scores_are_added_to_those_that_were_there(script, refused, trained_run, tmp_path):
    path = tmp_path / "scores.json"
    for horizon in (1, 2):
        script(predict, trained_run, "--count", 1, "--horizon", horizon, "--out", tmp_path)
    entries = json.loads(path.read_text())
    assert [entry["horizon"] for entry in entries] == [1, 2]
    assert "--horizon 2" in entries[1]["command"] and entries[0]["started"] and entries[0]["commit"]
    path.write_text("[cut")
    assert "scores.json" in refused(predict, trained_run, "--count", 1, "--out", tmp_path)
    assert path.read_text() == "[cut"


def test_seed_picks_other_videos(script, trained_run, tmp_path):
    picked = []
    for seed in (1, 1, 2):
        script(
            predict, trained_run, "--count", 2, "--seed", seed, "--horizon", 1, "--out", tmp_path
        )
        picked.append(np.load(tmp_path / "predictions.npz")["indices"].tolist())
    assert picked[0] == picked[1] != picked[2]


def test_help_builds_no_model(script, monkeypatch):
    monkeypatch.delattr(models, "Forecaster")
    monkeypatch.delattr(keras.models, "load_model")
    status, output, _ = script(predict, "--help")
    assert status == 0 and "--horizon" in output and "official" in output


def test_the_official_file_is_asked_for(refused, trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(predict, trained_run, "--data", "official")
    assert "python -m extras.official" in line


def test_the_official_file_is_read_frames_first(script, trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    official.PATH.parent.mkdir()
    videos = data.EvaluationVideos("test")[[3, 4, 5]]
    np.save(official.PATH, np.swapaxes(videos[..., 0], 0, 1))
    arguments = ["--data", "official", "--count", 2, "--horizon", 2, "--out", tmp_path]
    assert script(predict, trained_run, *arguments)[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "predictions.npz")["truth"], videos[:2, 10:12])


def test_the_official_file_is_scored_to_its_end(script, trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    official.PATH.parent.mkdir()
    videos = data.EvaluationVideos("test", frames=11)[np.arange(103)]
    np.save(official.PATH, np.swapaxes(videos[..., 0], 0, 1))
    arguments = [trained_run, "--data", "official", "--horizon", 1, "--out", tmp_path]
    status, output, _ = script(predict, *arguments)
    assert status == 0 and "103/103" in output
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["count"] == 103
    arrays = np.load(tmp_path / "predictions.npz")
    np.testing.assert_array_equal(arrays["truth"], videos[:, 10:])
    whole = predict.score(arrays["truth"], arrays["prediction"])
    for name in predict.SCORES:  # as if all had been scored at once
        assert scores["mean"][name] == pytest.approx(whole["mean"][name])


def test_a_full_disk_leaves_the_old_files(script, trained_run, tmp_path, monkeypatch):
    arguments = [trained_run, "--count", 1, "--horizon", 1, "--out", tmp_path]
    script(predict, *arguments)
    before = (tmp_path / "predictions.npz").read_bytes()

    def no_space(path, **_):
        path.write_bytes(b"half of a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", no_space)
    status, _, errors = script(predict, *arguments)
    assert status == 1 and "No space left" in errors and len(errors.splitlines()) == 1
    assert (tmp_path / "predictions.npz").read_bytes() == before
    assert files_in(tmp_path) == {
        "predictions.npz",
        "scores.json",
    }


def test_sprites_are_forecast_one_by_one(script, trained_run, tmp_path):
    arguments = [trained_run, "--count", 2, "--horizon", 2, "--out", tmp_path]
    assert script(predict, *arguments, "--sprites", 2)[0] == 0
    context = data.to_float(data.EvaluationVideos("test", frames=10, size=40)[[0, 1]])
    expected = sprites.rollout(runs.load_model(trained_run), context, 2, count=2)
    got = np.load(tmp_path / "predictions.npz")["prediction"]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert json.loads((tmp_path / "scores.json").read_text())[-1]["sprites"] == 2


# Own clips


@pytest.fixture(scope="module")
def run_on_clips(tmp_path_factory):
    """A run on twelve colour clips of eight frames, and these: only to be read."""
    path = tmp_path_factory.mktemp("clips") / "clips.npy"
    shape = (12, 8, 24, 32, 3)
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    config = dataclasses.replace(QUICK, frames=4, size=(24, 32), epochs=1, data=str(path))
    train.train(config, path.with_name("run"))
    return path.with_name("run"), np.load(path)


def test_a_run_on_clips_is_scored_on_its_validation_clips(script, run_on_clips, tmp_path):
    assert script(predict, run_on_clips[0], "--out", tmp_path)[0] == 0
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["data"] == "validation"


def test_the_validation_clips_of_a_run_are_forecast(script, run_on_clips, tmp_path):
    run, videos = run_on_clips
    arguments = [run, "--context", 2, "--horizon", 2, "--data", "validation", "--out", tmp_path]
    assert script(predict, *arguments)[0] == 0
    arrays = np.load(tmp_path / "predictions.npz")
    # Of twelve clips the second and the last, in windows of four frames.
    validation = videos[[1, 11]].reshape(4, 4, 24, 32, 3)
    both = np.concatenate([arrays["context"], arrays["truth"]], axis=1)
    np.testing.assert_array_equal(both, validation)
    assert script(animate, *arguments, "--count", 1)[0] == 0
    assert len(list(tmp_path.glob("validation-*.gif"))) == 1


def test_clips_are_forecast_in_the_colours_of_the_model_and_at_their_size(
    script, refused, run_on_clips, trained_run, tmp_path
):
    run, videos = run_on_clips
    np.save(tmp_path / "other.npy", videos[:2, :, :20])
    arguments = ["--data", tmp_path / "other.npy", "--horizon", 2, "--out", tmp_path]
    arguments += ["--context", 2]
    for model, size, shape in [
        (run, [], (4, 2, 20, 32, 3)),
        (trained_run, [], (4, 2, 20, 32, 1)),
        (trained_run / "best.keras", ["--size", 18, 26], (4, 2, 18, 26, 1)),
    ]:
        assert script(predict, model, *arguments, *size)[0] == 0
        assert np.load(tmp_path / "predictions.npz")["prediction"].shape == shape
    line = refused(predict, run, *arguments, "--context", 9)
    assert "9 frames are needed, and the longest clip has 8" in line
    assert "lower --context" in line and "--frames" not in line
    assert "no test set" in refused(predict, run, "--data", "test", "--out", tmp_path)


# What cannot be forecast

REFUSED = [
    (predict, "NOTHING", "no such model"),
    (predict, "MODEL --count 0", "--count 0"),
    (predict, "MODEL --count 10001", "10,000 videos"),
    (predict, "MODEL --count -3", "--count -3"),
    (predict, "MODEL --context 0", "--context"),
    (predict, "MODEL --horizon 0", "--horizon"),
    (predict, "MODEL --horizon 10000000000000000000000", "1 to 100,000"),
    (predict, "MODEL --seed -1", "--seed -1"),
    (predict, "MODEL --sprites -1", "--sprites -1"),
    (predict, "MODEL --data tset", "tset"),
    (predict, "MODEL --data NOTHING", "no such file"),
    (predict, "MODEL --out FILE", "name another folder"),
    (animate, "MODEL --count 0", "--count 0"),
    (animate, "MODEL --context -5", "--context"),
]
MISREAD = [
    (predict, "--count nan", "--count"),
    (predict, "--seed one", "--seed"),
    (predict, "--coutn 3", "--coutn"),
    (animate, "--format avi", "gif"),
    (animate, "--fromat gif", "--fromat"),
]


@pytest.mark.parametrize("module, line, reason", REFUSED)
def test_what_makes_no_sense_is_refused(
    refused, trained_run, tmp_path, monkeypatch, module, line, reason
):
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    assert reason in refused(module, *line.replace("MODEL", str(trained_run)).split())
    assert files_in(tmp_path) == {"FILE"}


@pytest.mark.parametrize("module, line, reason", MISREAD)
def test_what_cannot_be_read_is_said_in_a_box(misread, tmp_path, monkeypatch, module, line, reason):
    monkeypatch.chdir(tmp_path)
    assert reason in misread(module, *line.split())
    assert not any(tmp_path.iterdir())


class RunsCode:
    """What a pickle makes of this runs code, where it is allowed to."""

    def __reduce__(self):
        return os.mkdir, ("code-has-run",)


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header_that_claims(shape, content=b"1234"):
    """A .npy file with less in it than its header says."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


VIDEO = np.zeros((1, 20, 32, 32), np.uint8)
TERABYTES = (10**9, 20, 64, 64)
BAD_VIDEOS = {
    "empty.npy": b"",
    "empty.npz": b"",
    "cut.npy": saved(VIDEO)[:-1],
    "cut.npz": zipped(videos=saved(VIDEO))[:-9],
    "text.npy": b"not an array",
    "text.npz": b"not an archive",
    "array.npz": saved(np.zeros(3)),
    "texts.npz": zipped(videos=b"text"),
    "nothing.npz": zipped(),
    "header.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4', \n",
    "negative.npy": saved(np.zeros((2, 20, 8, 8), np.uint8)).replace(b"(2, ", b"(-2,"),
    "terabytes.npy": header_that_claims(TERABYTES),
    "terabytes.npz": zipped(videos=header_that_claims(TERABYTES)),
    "overflow.npz": zipped(videos=header_that_claims((2**62, 2**62, 64, 64))),
    "gigabytes.npz": zipped(videos=header_that_claims((10**5, 20, 64, 64))),
    "objects.npy": saved(np.array([{}, None])),
    "objects.npz": zipped(videos=saved(np.array([RunsCode()]))),
    "code.npy": pickle.dumps(RunsCode()),
    "rank-2.npy": saved(VIDEO[0, 0]),
    "rank-6.npy": saved(VIDEO[..., None, None]),
    "none.npy": saved(VIDEO[:0]),
    "no-frames.npy": saved(VIDEO[:, :0]),
    "one-frame.npy": saved(VIDEO[:, :1]),
    "short.npy": saved(VIDEO[:, :9]),
    "five-channels.npy": saved(np.stack([VIDEO] * 5, axis=-1)),
    "complex.npy": saved(VIDEO.astype(complex)),
    "texts.npy": saved(np.full(VIDEO.shape, "a")),
    "records.npy": saved(np.zeros(VIDEO.shape, [("grey", "u1")])),
    "dates.npy": saved(VIDEO.astype("datetime64[s]")),
    "range.npy": saved(np.full(VIDEO.shape, 255.0)),
    "below.npy": saved(np.full(VIDEO.shape, -0.1)),
    "movie.avi": b"RIFF",
    "folder.npy": None,
}
TOO_SHORT = ("one-frame.npy", "short.npy")


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_videos_that_cannot_be_used_are_refused(refused, trained_run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if BAD_VIDEOS[name] is None:
        Path(name).mkdir()
    else:
        Path(name).write_bytes(BAD_VIDEOS[name])
    line = refused(predict, trained_run, "--data", name, "--out", "out")
    assert ("the longest clip has" if name in TOO_SHORT else name) in line
    assert not Path("code-has-run").exists()
    assert files_in(tmp_path) <= {
        name,
        "clips-cache.npy",
        "clips-cache.json",
    }  # no result, no half of one
