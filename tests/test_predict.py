"""Forecasts and their scores: own predictions only, in the literature's figures, in whole files."""

import dataclasses
import functools
import json
import re
import shutil
import unittest.mock

import numpy as np
import pytest
from helpers import CLIPS, QUICK, files_in, prepare
from skimage.metrics import structural_similarity

import animate
import data
import model as models
import predict
import train
from extras import runs
from extras.cli import InputError
from method import sprites


def test_script_scores_forecasts_on_own_predictions(script, quick_run, tmp_path):
    status, output, _ = script(predict, quick_run, "--count", 3, "--horizon", 4, "--out", tmp_path)
    assert status == 0
    arrays = np.load(tmp_path / "predictions.npz")
    videos = data.EvaluationVideos("test", size=32)[np.arange(3)]  # as in training
    np.testing.assert_array_equal(arrays["context"], videos[:, :10])
    np.testing.assert_array_equal(arrays["truth"], videos[:, 10:14])
    np.testing.assert_array_equal(arrays["indices"], [0, 1, 2])
    np.testing.assert_array_equal(arrays["range"], [0, 1])
    prediction = arrays["prediction"]
    assert prediction.dtype == np.float32 and arrays["context"].dtype == np.uint8
    expected = models.rollout(runs.load_model(quick_run), data.to_float(videos[:, :10]), 4)
    np.testing.assert_allclose(prediction, expected, atol=1e-6)

    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["model"] == str(quick_run) and scores["data"] == "test"
    assert [scores[key] for key in ("count", "context", "horizon")] == [3, 10, 4]
    copies = data.copy_last(videos[:, :10], 4)
    for part, forecast in ((scores, prediction), (scores["copy_last"], copies)):
        for name, values in predict.score(arrays["truth"], forecast).items():
            assert part[name] == pytest.approx(values, rel=1e-5)
    ours, theirs = (part["mean"]["mse"] for part in (scores, scores["copy_last"]))
    assert re.search(rf"^ mean +{ours:.2f} .* {theirs:.2f} ", output, re.MULTILINE)


def test_scores_are_those_of_the_literature():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (2, 3, 16, 16, 1), dtype=np.uint8)
    prediction = rng.random(truth.shape, np.float32)
    scores = predict.score(truth, prediction)
    for frame in range(3):
        expected = []
        for real, predicted in zip(truth[:, frame, ..., 0] / 255, prediction[:, frame, ..., 0]):
            error = predicted.astype(float) - real
            psnr = 10 * np.log10(1 / (error**2).mean())
            ssim = [structural_similarity(real, predicted, data_range=n) for n in (1, 2)]
            expected.append([(error**2).sum(), abs(error).sum(), psnr, *ssim])
        of_frame = [scores[name][frame] for name in ("mse", "mae", "psnr", "ssim", "ssim_range2")]
        np.testing.assert_allclose(of_frame, np.mean(expected, axis=0), rtol=1e-4)
    perfect = predict.score(truth, data.to_float(truth))["mean"]
    assert perfect == {"mse": 0, "mae": 0, "psnr": 100, "ssim": 1, "ssim_range2": 1}


def test_the_shipped_weights_forecast_as_they_always_have(tmp_path, capsys):
    model = runs.load_model(runs.SHIPPED)
    assert model.count_params() == 3_270_630
    for preset in ("cpu", "gpu"):
        size = train.PRESETS[preset].architecture
        assert dataclasses.replace(model.architecture, precision=size.precision) == size
    predict.forecast_and_score(predict.Request(count=12, out=tmp_path), model, train.Config())
    assert "worse than copying" not in capsys.readouterr().out
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mean"]["mse"] == pytest.approx(52.229, rel=1e-3)
    assert max(scores["mse"]) < min(scores["copy_last"]["mse"])


def test_the_future_is_not_looked_at(script, quick_run, tmp_path):
    (video,) = data.EvaluationVideos("test", size=32)[[0]]
    still = np.concatenate([video[:10], np.repeat(video[9:10], 10, axis=0)])
    np.save(tmp_path / "videos.npy", np.stack([video, still])[..., 0] / 255)
    arguments = ["--data", tmp_path / "videos.npy", "--out", tmp_path]
    status, output, _ = script(predict, quick_run, *arguments)
    one, other = np.load(tmp_path / "predictions.npz")["prediction"]
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert status == 0 and "worse than copying the last frame" in output


def test_only_frames_that_the_data_has_are_scored(script, refused, quick_run, tmp_path):
    videos = data.EvaluationVideos("validation", frames=9, size=32)[[0, 1, 2]]
    prepare(tmp_path / "clips", [videos[0], videos[1, :6], videos[2, :3]])
    arguments = [quick_run, "--from-end", "--out", tmp_path, "--context", 5, "--horizon", 3]
    assert "--from-end is for your own clips" in refused(predict, *arguments)
    arguments += ["--data", tmp_path / "clips"]
    status, output, _ = script(predict, *arguments)
    assert status == 0 and "nothing to score" in output
    found = np.load(tmp_path / "predictions.npz")
    # Every long enough clip is continued beyond its end.
    np.testing.assert_array_equal(found["context"], [videos[0, 4:], videos[1, 1:6]])
    assert found["prediction"].shape == (2, 3, 32, 32, 1)
    assert files_in(tmp_path) == {"clips", "predictions.npz"}
    status, output, _ = script(predict, *arguments, "--no-from-end", "--context", 7)
    assert status == 0 and "only these are scored" in output
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert len(scores["mse"]) == 2 and scores["horizon"] == 3


def test_a_smaller_count_takes_the_first_of_a_larger_one():
    assert predict.choose_indices(5, usual_count=3).tolist() == [0, 1, 2]
    assert predict.choose_indices(5, usual_count=100).tolist() == [0, 1, 2, 3, 4]
    chosen = predict.choose_indices(100, 10, seed=1).tolist()
    assert len(set(chosen)) == 10 and max(chosen) < 100
    assert predict.choose_indices(100, 4, seed=1).tolist() == chosen[:4]
    assert chosen != predict.choose_indices(100, 10, seed=2).tolist()


def test_the_official_file_is_scored_to_its_end(script, refused, quick_run, tmp_path, monkeypatch):
    videos = data.EvaluationVideos("test", frames=20, size=32)[np.arange(103)]
    np.save(tmp_path / "official.npy", np.swapaxes(videos[..., 0], 0, 1))  # frames first
    monkeypatch.setattr(data, "download_official", lambda: tmp_path / "official.npy")
    arguments = [quick_run, "--data", "official", "--horizon", 1, "--out", tmp_path]
    assert script(predict, *arguments)[0] == 0
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    arrays = np.load(tmp_path / "predictions.npz")
    np.testing.assert_array_equal(arrays["truth"], videos[:, 10:11])
    whole = predict.score(arrays["truth"], arrays["prediction"])  # all at once
    assert scores["count"] == 103 and scores["mean"] == pytest.approx(whole["mean"])
    assert "of 20 frames are shorter than" in refused(predict, *arguments, "--context", 25)


def test_sprites_are_forecast_apart_and_scores_are_added(script, refused, quick_run, tmp_path):
    arguments = [quick_run, "--count", 2, "--horizon", 2, "--out", tmp_path]
    for count in (0, 2):
        assert script(predict, *arguments, "--sprites", count)[0] == 0
    context = data.to_float(data.EvaluationVideos("test", frames=10, size=32)[[0, 1]])
    rollout = functools.partial(models.rollout, runs.load_model(quick_run))
    prediction = np.load(tmp_path / "predictions.npz")["prediction"]
    np.testing.assert_allclose(prediction, sprites.rollout(rollout, context, 2, 2), atol=1e-6)
    path = tmp_path / "scores.json"
    first, second = json.loads(path.read_text())
    assert (first["sprites"], second["sprites"]) == (0, 2) and "--sprites 2" in second["command"]
    assert first["started"] and first["commit"]
    path.write_text("[cut")
    assert "scores.json" in refused(predict, *arguments)
    assert path.read_text() == "[cut"


# Own clips


def test_validation_clips_are_forecast_in_their_unit(script, run_on_clips, tmp_path):
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


def test_clips_that_have_changed_are_no_validation_clips(refused, run_on_clips, tmp_path):
    run = shutil.copytree(run_on_clips, tmp_path / "run")
    prepare(tmp_path / "clips", CLIPS[:-1])
    moved = dataclasses.replace(train.read_config(run), data=str(tmp_path / "clips"))
    runs.write_config(run, moved)
    assert "has changed since" in refused(predict, run, "--out", tmp_path / "out")


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
    for module in (predict, animate):
        line = refused(module, *arguments, tmp_path / "grey.npy", "--out", tmp_path / "new")
        assert "1 channel; this model is for 3" in line and not (tmp_path / "new").exists()


# What cannot be forecast

VIDEO = data.EvaluationVideos("test", frames=12, size=32)[[0]]


def test_frames_outside_0_to_1_are_refused_everywhere(quick_run):
    model, right = runs.load_model(quick_run), VIDEO / np.float32(255)
    np.testing.assert_array_equal(data.to_float(VIDEO), right)
    not_a_number = np.where(VIDEO > 0, np.nan, 0.0)
    for videos in (VIDEO.astype(np.float32), not_a_number, VIDEO.astype(np.int32)):
        for use in (
            data.shift_frames,
            lambda videos: models.rollout(model, videos, 2),
            lambda videos: predict.score(videos, right),
            lambda videos: predict.score(right, videos),
            lambda videos: sprites.decompose(videos, 2),
            model if videos.dtype == np.int32 else data.to_float,
        ):
            with pytest.raises(InputError, match=r"floats in \[0, 1\]"):
                use(videos)
    with pytest.raises(InputError, match="data.to_float divides uint8 by 255"):
        models.rollout(model, VIDEO, 2)


def test_a_forecast_that_cannot_be_finished_leaves_the_old_files(script, quick_run, tmp_path):
    model = runs.load_model(quick_run)
    model.set_weights([1e30 * weights for weights in model.get_weights()])
    model.save(tmp_path / "huge.keras")
    videos = VIDEO / 255
    videos[0, -1, 0, 0] = 7  # in the last frame to be scored
    np.save(tmp_path / "clips.npy", videos)
    out = tmp_path / "out"
    out.mkdir()
    before = {"predictions.npz": b"old", "scores.json": b"[]"}
    for name, content in before.items():
        (out / name).write_bytes(content)
    for model, clips, ended, reason in (
        (tmp_path / "huge.keras", "test", 1, "no numbers"),
        (quick_run, tmp_path / "clips.npy", 2, "values from 0 to 7"),
    ):
        arguments = ["--data", clips, "--count", 1, "--horizon", 2, "--out", out]
        status, _, errors = script(predict, model, *arguments)
        assert status == ended and len(errors.splitlines()) == 1 and reason in errors
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_who_stops_reading_what_is_printed_loses_no_result(quick_run, tmp_path, monkeypatch):
    broken = unittest.mock.Mock(side_effect=BrokenPipeError)
    monkeypatch.setattr(predict, "print", broken, raising=False)
    request = predict.Request(quick_run, count=1, horizon=1, out=tmp_path)
    with pytest.raises(BrokenPipeError):
        predict.forecast_and_score(request, runs.load_model(quick_run), QUICK)
    assert files_in(tmp_path) == {"predictions.npz", "scores.json"}
