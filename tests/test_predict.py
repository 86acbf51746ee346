"""Forecasts and their scores: own predictions only, in the literature's figures, in whole files."""

import functools
import hashlib
import json
import os
import shutil
import tracemalloc

import numpy as np
import pytest
from helpers import CLIPS, TRAINED, files_in, prepare
from skimage.metrics import structural_similarity

import animate
import data
import model as models
import predict
import train
from extras import runs
from extras.cli import InputError
from method import sprites


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
    np.testing.assert_array_equal(arrays["range"], [0, 1])
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
    prediction = rng.random((2, 3, 16, 16, 1), np.float32)
    scores = predict.score(truth, prediction)
    for frame in range(3):
        per_video = {name: [] for name in predict.SCORES}
        for video in range(2):
            real = truth[video, frame, :, :, 0] / 255
            predicted = prediction[video, frame, :, :, 0].astype(float)
            per_video["mse"].append(((predicted - real) ** 2).sum())
            per_video["mae"].append(abs(predicted - real).sum())
            per_video["psnr"].append(10 * np.log10(1 / ((predicted - real) ** 2).mean()))
            per_video["ssim"].append(structural_similarity(real, predicted, data_range=1))
            per_video["ssim_range2"].append(structural_similarity(real, predicted, data_range=2))
        for name, values in per_video.items():
            assert scores[name][frame] == pytest.approx(np.mean(values), rel=1e-4), name
    perfect = predict.score(truth, data.to_float(truth))["mean"]
    assert perfect == {"mse": 0, "mae": 0, "psnr": 100, "ssim": 1, "ssim_range2": 1}


def test_the_shipped_weights_forecast_as_they_always_have(script, tmp_path):
    status, output, _ = script(predict, "--count", 12, "--out", tmp_path)
    assert status == 0 and "worse than copying" not in output
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mean"]["mse"] == pytest.approx(52.488, rel=1e-3)
    assert scores["copy_last"]["mean"]["mse"] > 250
    assert scores["mean"]["ssim"] > scores["copy_last"]["mean"]["ssim"]
    assert max(scores["mse"]) < min(scores["copy_last"]["mse"])


def test_the_future_is_not_looked_at(script, trained_run, tmp_path):
    (video,) = data.EvaluationVideos("test", size=40)[[0]]
    still = np.concatenate([video[:10], np.repeat(video[9:10], 10, axis=0)])
    np.save(tmp_path / "videos.npy", [video, still])
    arguments = ["--data", tmp_path / "videos.npy", "--out", tmp_path]
    assert script(predict, trained_run, *arguments)[0] == 0
    one, other = np.load(tmp_path / "predictions.npz")["prediction"]
    np.testing.assert_allclose(one, other, atol=1e-6)
    np.save(tmp_path / "videos.npy", still[None])
    assert "worse than copying the last frame" in script(predict, trained_run, *arguments)[1]


def test_clips_without_truth_are_forecast_and_not_scored(script, trained_run, tmp_path):
    clips = data.EvaluationVideos("validation", frames=10, size=40)[[0, 1]][..., 0] / 255
    np.save(tmp_path / "clips.npy", clips)
    arguments = [trained_run, "--data", tmp_path / "clips.npy", "--horizon", 3, "--out", tmp_path]
    status, output, _ = script(predict, *arguments)
    assert status == 0 and "nothing to score" in output
    assert not (tmp_path / "scores.json").exists()
    assert np.load(tmp_path / "predictions.npz")["prediction"].shape == (2, 3, 40, 40, 1)
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


def test_a_smaller_count_takes_the_first_of_a_larger_one():
    assert predict.choose_indices(5, usual_count=3).tolist() == [0, 1, 2]
    assert predict.choose_indices(5, usual_count=100).tolist() == [0, 1, 2, 3, 4]
    for seed in (None, 1):
        chosen = predict.choose_indices(100, 10, seed).tolist()
        assert len(set(chosen)) == 10 and max(chosen) < 100
        assert predict.choose_indices(100, 4, seed).tolist() == chosen[:4]
    assert chosen != predict.choose_indices(100, 10, seed=2).tolist()
    for count in (0, 101):
        with pytest.raises(InputError, match="1 to 100 videos"):
            predict.choose_indices(100, count)


def test_the_official_file_is_read_frames_first_and_scored_to_its_end(
    script, trained_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data.OFFICIAL_PATH.parent.mkdir()
    videos = data.EvaluationVideos("test", frames=20, size=32)[np.arange(103)]
    np.save(data.OFFICIAL_PATH, np.swapaxes(videos[..., 0], 0, 1))
    sha256 = hashlib.sha256(data.OFFICIAL_PATH.read_bytes()).hexdigest()
    monkeypatch.setattr(data, "OFFICIAL_SHA256", sha256)
    arguments = [trained_run, "--data", "official", "--horizon", 1, "--out", tmp_path]
    assert script(predict, *arguments)[0] == 0
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["count"] == 103
    arrays = np.load(tmp_path / "predictions.npz")
    np.testing.assert_array_equal(arrays["truth"], videos[:, 10:11])
    whole = predict.score(arrays["truth"], arrays["prediction"])
    for name in predict.SCORES:  # as if all had been scored at once
        assert scores["mean"][name] == pytest.approx(whole["mean"][name])


def test_sprites_are_forecast_one_by_one(script, trained_run, tmp_path):
    arguments = [trained_run, "--count", 2, "--horizon", 2, "--out", tmp_path]
    assert script(predict, *arguments, "--sprites", 2)[0] == 0
    context = data.to_float(data.EvaluationVideos("test", frames=10, size=40)[[0, 1]])
    rollout = functools.partial(models.rollout, runs.load_model(trained_run))
    expected = sprites.rollout(rollout, context, 2, count=2)
    got = np.load(tmp_path / "predictions.npz")["prediction"]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert json.loads((tmp_path / "scores.json").read_text())[-1]["sprites"] == 2


def test_memory_does_not_grow_with_the_count(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "rollout", lambda model, *videos: data.copy_last(*videos))
    monkeypatch.setattr(predict, "score_video", lambda *videos: np.zeros((5, 1)))
    monkeypatch.setattr(data, "BATCH_PIXELS", 10 * 64 * 64)
    data.load_digits("test")

    def peak(count):
        tracemalloc.start()
        request = predict.Request(count=count, horizon=1, out=tmp_path)
        predict.forecast_and_score(request, None, train.Config())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(200) < 1.2 * peak(20)
    assert len(np.load(tmp_path / "predictions.npz")["prediction"]) == 20


# Own clips


def test_a_run_on_clips_is_forecast_on_its_validation_clips_in_their_unit(
    script, run_on_clips, tmp_path
):
    assert script(predict, run_on_clips, "--out", tmp_path)[0] == 0
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert [scores[name] for name in ("data", "context", "horizon")] == ["validation", 2, 2]
    assert scores["range"] == [-32, 60]
    with np.load(tmp_path / "predictions.npz") as arrays:
        # Of twelve clips the second and the last, in windows of four frames.
        validation = CLIPS[[1, 11]].reshape(4, 4, 24, 32, 3)
        both = np.concatenate([arrays["context"], arrays["truth"]], axis=1)
        np.testing.assert_allclose(both, -32 + 92 * (validation / 255), atol=1e-4)
        assert arrays["range"].tolist() == [-32, 60]
        prediction = arrays["prediction"]
    expected = models.rollout(runs.load_model(run_on_clips), data.to_float(validation[:, :2]), 2)
    np.testing.assert_allclose(prediction, -32 + 92 * expected, atol=1e-3)
    assert script(animate, run_on_clips, "--count", 1, "--out", tmp_path)[0] == 0
    assert len(list(tmp_path.glob("run-validation-*.gif"))) == 1


def test_clips_are_forecast_at_their_own_size(script, refused, run_on_clips, tmp_path):
    np.save(tmp_path / "other.npy", CLIPS[:2, :, :18, :26])
    arguments = [run_on_clips, "--out", tmp_path, "--data"]
    assert script(predict, *arguments, tmp_path / "other.npy")[0] == 0
    prediction = np.load(tmp_path / "predictions.npz")["prediction"]
    assert prediction.shape == (4, 2, 18, 26, 3) and 0 <= prediction.min() <= prediction.max() <= 1
    line = refused(predict, *arguments, tmp_path / "other.npy", "--context", 9)
    assert "clips of 8 frames are shorter than --context 9" in line
    assert "no test set" in refused(predict, *arguments, "test")
    np.save(tmp_path / "grey.npy", CLIPS[..., 0])
    assert "1 channels; this model is for 3" in refused(predict, *arguments, tmp_path / "grey.npy")


def test_a_models_config_is_that_of_its_run(run_on_clips, tmp_path):
    assert predict.config_of(run_on_clips).data == str(run_on_clips.with_name("clips"))
    best = run_on_clips / "best.keras"
    assert predict.config_of(best) == predict.config_of(run_on_clips)
    shutil.copy(best, tmp_path)
    assert predict.config_of(tmp_path / "best.keras") == train.Config()


def test_who_stops_reading_what_is_printed_loses_no_result(trained_run, tmp_path, monkeypatch):
    def broken(*_):
        raise BrokenPipeError

    monkeypatch.setattr(predict, "print", broken, raising=False)
    request = predict.Request(trained_run, count=1, horizon=1, out=tmp_path)
    with pytest.raises(BrokenPipeError):
        predict.forecast_and_score(request, runs.load_model(trained_run), TRAINED)
    assert files_in(tmp_path) == {"predictions.npz", "scores.json"}


def test_a_name_that_is_no_text_names_an_animation():
    assert animate.short_name(os.fsdecode(b"runs/\x1b\xff.npy")) == r"\x1b\udcff"


def test_no_file_of_an_animation_is_written_over_its_data(refused, run_on_clips, tmp_path):
    page = tmp_path / "index.html"
    prepare(page, CLIPS[:1])
    strip = tmp_path / f"{run_on_clips.name}-index.html-film-strip.png"
    strip.hardlink_to(page)
    before = page.read_bytes()
    for options in ([], ["--page"]):
        line = refused(animate, run_on_clips, "--data", page, "--out", tmp_path, *options)
        assert "is an input" in line and page.read_bytes() == before
        strip.unlink(missing_ok=True)
    assert files_in(tmp_path) == {"index.html"}


# What cannot be forecast

VIDEO = data.EvaluationVideos("test", frames=12, size=32)[[0]]
NOT_IN_0_1 = {
    "times 255": VIDEO.astype(np.float32),
    "below 0": VIDEO / 255 - 0.1,
    "not a number": np.where(VIDEO > 0, np.nan, 0.0),
    "int32": VIDEO.astype(np.int32),
    "uint16": VIDEO.astype(np.uint16) * 257,
    "bool": VIDEO > 127,
}


@pytest.mark.parametrize("name", NOT_IN_0_1)
def test_frames_outside_0_to_1_are_refused_everywhere(trained_run, name):
    videos, model = NOT_IN_0_1[name], runs.load_model(trained_run)
    right = data.to_float(VIDEO)
    for use in (
        data.to_float,
        data.shift_frames,
        lambda videos: models.rollout(model, videos, 2),
        lambda videos: predict.score(videos, right),
        lambda videos: predict.score(right, videos),
        lambda videos: sprites.decompose(videos, 2),
    ):
        with pytest.raises(InputError, match=r"floats in \[0, 1\]"):
            use(videos)
    if videos.dtype.kind != "f":
        with pytest.raises(InputError, match=r"floats in \[0, 1\]"):
            model(videos)
    with pytest.raises(InputError, match="data.to_float divides uint8 by 255"):
        models.rollout(model, VIDEO, 2)
    np.testing.assert_array_equal(right, VIDEO / np.float32(255))


def test_values_beyond_the_range_within_a_file_end_in_one_line(refused, trained_run, tmp_path):
    videos = VIDEO / 255
    videos[0, -1, 0, 0] = 7  # in the last frame to be scored
    np.save(tmp_path / "clips.npy", videos)
    arguments = [trained_run, "--data", tmp_path / "clips.npy", "--out", tmp_path / "out"]
    assert "values from 0 to 7" in refused(predict, *arguments, "--horizon", 2)
    assert files_in(tmp_path / "out") == set()


def test_predictions_that_are_no_numbers_leave_the_old_files(script, trained_run, tmp_path):
    model = runs.load_model(trained_run)
    model.set_weights([1e30 * weights for weights in model.get_weights()])
    model.save(tmp_path / "huge.keras")
    before = {"predictions.npz": b"old", "scores.json": b"[]"}
    (tmp_path / "out").mkdir()
    for name, content in before.items():
        (tmp_path / "out" / name).write_bytes(content)
    arguments = [tmp_path / "huge.keras", "--count", 1, "--horizon", 2, "--out", tmp_path / "out"]
    status, _, errors = script(predict, *arguments)
    assert status == 1 and len(errors.splitlines()) == 1 and "no numbers" in errors
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
