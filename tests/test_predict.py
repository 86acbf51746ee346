import json

import keras
import numpy as np
import pytest
from skimage.metrics import structural_similarity

import data
import model as models
import predict
import train


def test_script_scores_forecasts_on_own_predictions(script, tiny_run, tmp_path):
    status, output, _ = script(predict, tiny_run, "--count", 3, "--horizon", 4, "--out", tmp_path)
    assert status == 0
    arrays = np.load(tmp_path / "predictions.npz")
    videos = data.evaluation_videos("test", np.arange(3))
    np.testing.assert_array_equal(arrays["context"], videos[:, :10])
    np.testing.assert_array_equal(arrays["truth"], videos[:, 10:14])
    assert arrays["context"].dtype == np.uint8
    np.testing.assert_array_equal(arrays["indices"], [0, 1, 2])
    prediction = arrays["prediction"]
    assert prediction.dtype == np.float32 and 0 <= prediction.min() <= prediction.max() <= 1
    model = keras.models.load_model(tiny_run / "best.keras")
    expected = models.rollout(model, data.to_float(videos[:, :10]), 4)
    np.testing.assert_allclose(prediction, expected, atol=1e-6)

    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["model"] == str(tiny_run) and scores["data"] == "test"
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
    truth = data.evaluation_videos("test", [0])[:, :2]
    scores = predict.score(truth, data.to_float(truth))
    assert scores["mean"] == {"mse": 0, "mae": 0, "psnr": 100, "ssim": 1, "ssim_range2": 1}


def test_the_shipped_weights_forecast_far_better_than_copying(script, tmp_path):
    status, _, _ = script(predict, "--count", 50, "--out", tmp_path)
    assert status == 0
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mean"]["mse"] < 50
    assert scores["copy_last"]["mean"]["mse"] > 250
    assert scores["mean"]["ssim"] > scores["copy_last"]["mean"]["ssim"]
    assert max(scores["mse"]) < min(scores["copy_last"]["mse"])


def test_the_future_is_not_looked_at(script, tiny_run, tmp_path):
    videos = data.evaluation_videos("test", [0, 1])
    for name, rest in (("real", videos[:, 10:]), ("noise", 255 - videos[:, 10:])):
        np.save(tmp_path / f"{name}.npy", np.concatenate([videos[:, :10], rest], axis=1))
        script(predict, tiny_run, "--data", tmp_path / f"{name}.npy", "--out", tmp_path / name)
    predictions = [np.load(tmp_path / name / "predictions.npz") for name in ("real", "noise")]
    np.testing.assert_array_equal(*(arrays["prediction"] for arrays in predictions))


def test_own_clips_without_truth_are_forecast_and_not_scored(script, tiny_run, tmp_path):
    clips = data.evaluation_videos("validation", [0, 1])[:, :10, ..., 0] / 255
    np.save(tmp_path / "clips.npy", clips)
    arguments = [tiny_run, "--data", tmp_path / "clips.npy", "--horizon", 3, "--out", tmp_path]
    status, output, _ = script(predict, *arguments)
    assert status == 0 and "nothing to score" in output
    assert not (tmp_path / "scores.json").exists()
    assert np.load(tmp_path / "predictions.npz")["prediction"].shape == (2, 3, 64, 64, 1)
    # Two frames less of context leave two to score.
    status, output, _ = script(predict, *arguments, "--context", 8)
    assert status == 0 and "only these are scored" in output
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert len(scores["mse"]) == 2 and scores["horizon"] == 3


def test_scores_are_added_to_those_that_were_there(script, refused, tiny_run, tmp_path):
    path = tmp_path / "scores.json"
    for horizon in (1, 2):
        script(predict, tiny_run, "--count", 1, "--horizon", horizon, "--out", tmp_path)
    entries = json.loads(path.read_text())
    assert [entry["horizon"] for entry in entries] == [1, 2]
    assert "--horizon 2" in entries[1]["command"] and entries[0]["started"] and entries[0]["commit"]
    path.write_text(json.dumps(entries[0]))  # a single entry, as there was in earlier files
    script(predict, tiny_run, "--count", 1, "--horizon", 3, "--out", tmp_path)
    assert [entry["horizon"] for entry in json.loads(path.read_text())] == [1, 3]
    path.write_text("[cut")
    assert "scores.json" in refused(predict, tiny_run, "--count", 1, "--out", tmp_path)
    assert path.read_text() == "[cut"


def test_seed_picks_other_videos(script, tiny_run, tmp_path):
    picked = []
    for seed in (1, 1, 2):
        script(predict, tiny_run, "--count", 2, "--seed", seed, "--horizon", 1, "--out", tmp_path)
        picked.append(np.load(tmp_path / "predictions.npz")["indices"].tolist())
    assert picked[0] == picked[1] != picked[2]


def test_help_builds_no_model(script, monkeypatch):
    monkeypatch.delattr(models, "Forecaster")
    monkeypatch.delattr(keras.models, "load_model")
    status, output, _ = script(predict, "--help")
    assert status == 0 and "--horizon" in output and "official" in output


def test_the_official_file_is_asked_for(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "OFFICIAL_PATH", tmp_path / "mnist_test_seq.npy")
    assert "python data.py --official" in refused(predict, "--data", "official")


def test_the_official_file_is_read_frames_first(script, tiny_run, tmp_path, monkeypatch):
    path = tmp_path / "mnist_test_seq.npy"
    videos = data.evaluation_videos("test", [3, 4, 5])
    np.save(path, np.swapaxes(videos[..., 0], 0, 1))
    monkeypatch.setattr(data, "OFFICIAL_PATH", path)
    arguments = ["--data", "official", "--count", 2, "--horizon", 2, "--out", tmp_path]
    assert script(predict, tiny_run, *arguments)[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "predictions.npz")["truth"], videos[:2, 10:12])


def test_the_official_file_is_scored_to_its_end(script, tiny_run, tmp_path, monkeypatch):
    path = tmp_path / "mnist_test_seq.npy"
    videos = data.evaluation_videos("test", np.arange(103), frames=11)
    np.save(path, np.swapaxes(videos[..., 0], 0, 1))
    monkeypatch.setattr(data, "OFFICIAL_PATH", path)
    arguments = [tiny_run, "--data", "official", "--horizon", 1, "--out", tmp_path]
    status, output, _ = script(predict, *arguments)
    assert status == 0 and "103/103" in output
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert scores["count"] == 103
    arrays = np.load(tmp_path / "predictions.npz")
    np.testing.assert_array_equal(arrays["truth"], videos[:, 10:])
    whole = predict.score(arrays["truth"], arrays["prediction"])
    for name in predict.SCORES:  # as if all had been scored at once
        assert scores["mean"][name] == pytest.approx(whole["mean"][name])


@pytest.mark.parametrize(
    "size, horizon, at_once",
    [(64, 10, [50, 50, 3]), (256, 2, [3] * 34 + [1]), (64, 2000, [4] * 26)],
)
def test_memory_does_not_grow_with_videos_size_or_horizon(monkeypatch, size, horizon, at_once):
    """Long and large forecasts go fewer at a time; here with a model that does nothing."""
    asked = []

    def rollout(model, context, horizon):
        asked.append(len(context))
        return np.broadcast_to(np.float32(0), (len(context), horizon, *context.shape[2:]))

    monkeypatch.setattr(models, "rollout", rollout)
    videos = np.broadcast_to(np.uint8(0), (200, 3, size, size, 1))
    blocks = list(train.forecasts(None, videos, np.arange(103), 2, horizon))
    assert asked[: len(at_once) - 1] == at_once[:-1] and sum(asked) == 103
    assert [len(some) for some, _ in blocks] == asked


def test_a_full_disk_leaves_the_old_files(script, tiny_run, tmp_path, monkeypatch):
    arguments = [tiny_run, "--count", 1, "--horizon", 1, "--out", tmp_path]
    script(predict, *arguments)
    before = (tmp_path / "predictions.npz").read_bytes()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", no_space)
    status, _, errors = script(predict, *arguments)
    assert status == 1 and "No space left" in errors and len(errors.splitlines()) == 1
    assert (tmp_path / "predictions.npz").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.npz", "scores.json"}
