"""Pictures of forecasts: real and predicted frames told apart, GIFs that loop, the page."""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from helpers import files_in
from PIL import Image, ImageSequence

import animate
import data
import predict
from extras import pictures

REAL, PREDICTED = pictures.REAL_COLOUR, pictures.PREDICTED_COLOUR


def video(frames, seed=0, shape=(32, 32, 1)):
    return np.random.default_rng(seed).integers(0, 256, (frames, *shape), dtype=np.uint8)


def framed(frame, colour, scale=1):
    """How a frame is to be shown: without blur, in a border of 2 pixels."""
    blocks = np.kron(frame, np.ones((scale, scale, 1), np.uint8))
    picture = np.full((blocks.shape[0] + 4, blocks.shape[1] + 4, 3), colour, np.uint8)
    picture[2:-2, 2:-2] = blocks
    return picture


def test_context_and_forecast_are_told_apart():
    context, truth, prediction = video(3), video(2, seed=1), video(2, seed=2)
    frames = animate.side_by_side(context, truth[:1], {"predicted": prediction})
    assert frames.dtype == np.uint8 and frames.shape[2:] == (260 + 8 + 260, 3)
    real = [framed(frame, REAL, scale=8) for frame in (*context, truth[0])]
    forecast = real[:3] + [framed(frame, PREDICTED, scale=8) for frame in prediction]
    white = np.full((260, 260, 3), 255)  # after the end of the truth
    for shown, left, right in zip(frames, [*real, white], forecast, strict=True):
        np.testing.assert_array_equal(shown[-260:, :260], left)
        np.testing.assert_array_equal(shown[-260:, -260:], right)


def test_a_film_strip_has_predicted_frames_below_those_that_they_predict():
    context, truth, prediction = (video(n, seed=n, shape=(12, 16, 3)) for n in (3, 2, 4))
    parts = context[None], truth[None], {"predicted": prediction[None] / np.float32(255)}
    strip = np.asarray(pictures.forecast_strip(*parts))
    gap, margin, height, width = 2, 80, 12 + 4 + 2, 16 + 4 + 2  # a frame, its border, and a gap
    assert strip.shape == (2 * height + gap, margin + 7 * width, 3)
    assert (strip[:, :margin] < 128).any()  # the labels
    white = np.full((12 + 4, 16 + 4, 3), 255)
    upper = [framed(frame, REAL) for frame in (*context, *truth)] + 2 * [white]
    lower = 3 * [white] + [framed(frame, PREDICTED) for frame in prediction]
    for (row, column), tile in zip(np.ndindex(2, 7), upper + lower, strict=True):
        top, left = gap + row * height, margin + column * width
        np.testing.assert_array_equal(strip[top : top + 16, left : left + 20], tile)


def test_error_map_shows_too_bright_in_orange_and_too_dark_in_blue():
    truth = np.array([0, 255, 255], np.uint8).reshape(1, 1, 3, 1)
    prediction = np.array([1, 1, 0.5], np.float32).reshape(1, 1, 3, 1)
    too_bright, right, too_dark = pictures.error_map(truth, prediction)[0, 0]
    assert too_bright[0] == 1 > too_bright[1] > too_bright[2] == 0
    assert (right == 0).all()
    assert too_dark[0] == 0 < too_dark[1] < too_dark[2] == pytest.approx(0.5, abs=0.01)


def test_gif_loops_and_does_not_flicker(tmp_path):
    """A palette for each frame, or dithering, would have a coloured ground flicker."""
    y, x = np.mgrid[:64, :64]
    ground = np.stack([4 * x, 4 * y, 2 * (x + y // 2)], axis=-1)
    frames = np.repeat(ground.astype(np.uint8)[None], 12, axis=0)
    for n in range(12):
        frames[n, 40:54, 4 * n : 4 * n + 14] = 255, 50, 25
    animate.write_gif(tmp_path / "a.gif", frames)
    gif = Image.open(tmp_path / "a.gif")
    shown = np.array([frame.convert("RGB") for frame in ImageSequence.Iterator(gif)])
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert gif.info["loop"] == 0 and durations == [200] * 11 + [1200]
    still = (frames == frames[0]).all(axis=(0, 3))
    assert still.mean() > 0.7
    assert (shown == shown[0]).all(axis=(0, 3))[still].all()
    assert np.abs(shown.astype(float) - frames).mean() < 12


def test_script_writes_an_animation_for_each_video_and_one_strip(script, quick_run, tmp_path):
    status, output, _ = script(animate, quick_run, "--out", tmp_path)
    assert status == 0
    assert "--context 2 --horizon 1" in output  # it was trained on other lengths
    paths = [line for line in output.splitlines() if line.startswith(str(tmp_path))]
    assert {str(tmp_path / name) for name in files_in(tmp_path)} == set(paths)
    *gifs, strip = map(Path, paths)
    assert len(gifs) == 4 and all(Image.open(path).n_frames == 20 for path in gifs)
    assert np.all(np.array(Image.open(strip).size) > (20 * 32, 8 * 32))
    # The numbers in the names are those of the validation videos.
    numbers = [int(path.stem.split("-")[-1]) for path in gifs]
    assert numbers == predict.choose_indices(data.EVALUATION_VIDEOS, 4, seed=0).tolist()
    first = np.asarray(Image.open(gifs[0]).convert("RGB"))[-258:-2:8, 2:258:8]
    expected = data.EvaluationVideos("validation", size=32)[numbers[:1]][0, 0]
    assert np.abs(first.astype(int) - expected).max() < 24


def test_two_models_beside_each_other_and_one_after_the_other(script, refused, quick_run, tmp_path):
    one, other, out = (tmp_path / name for name in ("rate-0.1", "rate-0.2", "out"))
    arguments = ["--count", 1, "--context", 2, "--horizon", 1, "--out", out]
    for run in (one, other):
        shutil.copytree(quick_run, run)
        status, output, _ = script(animate, run, *arguments, "--format", "mp4")
        assert status == 0 and "--context 2" not in output
    paths = list(out.glob("*.mp4"))
    assert len(paths) == 2  # none took the other's name
    frames = imageio.imread(paths[0], plugin="pyav")
    assert frames.shape[0] == 3 and frames.shape[3] == 3
    assert script(animate, one, "--beside", other, *arguments)[0] == 0
    (path,) = out.glob("rate-0.1-and-rate-0.2-*.gif")
    assert Image.open(path).width - 8 == (frames.shape[2] - 8) / 2 * 3 + 8
    assert "other names" in refused(animate, one, "--beside", one, *arguments)


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_full_disk_is_an_error_of_the_disk(tmp_path, kind):
    resource = pytest.importorskip("resource")
    path, (_, hard) = tmp_path / f"a.{kind}", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))  # Python ignores the signal
    try:
        with pytest.raises(OSError, match="too large"):
            getattr(animate, f"write_{kind}")(path, np.repeat(video(9), 3, axis=-1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert not any(tmp_path.iterdir())


# The page with a frame slider


def forecasts_of(page):
    return json.loads(re.search(r'<script id="forecasts" [^>]*>(.*?)</script>', page, re.DOTALL)[1])


def pixels(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


FORECAST = ["--count", 2, "--context", 4, "--horizon", 6, "--out"]


def test_page_is_one_file_with_every_frame(script, quick_run, tmp_path):
    options = ["--data", "validation", "--seed", 0]  # as `animate` has them
    assert script(predict, quick_run, *options, *FORECAST, tmp_path)[0] == 0
    assert script(animate, quick_run, *FORECAST, tmp_path, "--page")[0] == 0
    text = (tmp_path / "index.html").read_text()
    assert not re.search(r"https?:|@import|<link|<script [^>]*src=", text)
    shown, forecasts = forecasts_of(text), np.load(tmp_path / "predictions.npz")
    videos = (forecasts[name] for name in ("context", "truth", "prediction"))
    for clip, context, truth, prediction in zip(shown["clips"], *videos, strict=True):
        errors = pictures.error_map(truth, prediction)
        rows = [[*context, *truth], [*context, *prediction], [*np.zeros((4, 32, 32, 3)), *errors]]
        for url, row in zip(clip["strips"], rows):
            tiles = pixels(url).reshape(32 + 4, 10, 32 + 4, 3).swapaxes(0, 1)
            frames = np.array([pictures.to_uint8(frame) for frame in row])
            assert (tiles[:, 2:-2, 2:-2] == frames).all()
        assert pixels(clip["still"]).shape == pixels(clip["gif"]).shape
        gif = base64.b64decode(clip["gif"].split(",")[1])
        assert gif == (tmp_path / f"{clip['name']}.gif").read_bytes()
        difference = data.to_float(truth) - prediction
        np.testing.assert_allclose(clip["mse"], np.square(difference).sum((1, 2, 3)), rtol=1e-5)
    (scores,) = json.loads((tmp_path / "scores.json").read_text())
    assert shown["scores"]["model"]["mse"] == pytest.approx(scores["mse"], rel=1e-5)


def test_a_page_takes_any_name_and_without_truth_has_no_scores(script, quick_run, tmp_path):
    name = "a<!--b" + 76 * "風"  # 234 bytes; with .npy nearly what a file system takes
    np.save(tmp_path / f"{name}.npy", data.EvaluationVideos("test", frames=10, size=32)[[0]])
    arguments = ["--page", "--data", tmp_path / f"{name}.npy", "--out", tmp_path, "--horizon", 2]
    status, output, errors = script(animate, quick_run, *arguments)
    assert status == 0 and str(tmp_path / "index.html") in output, errors
    (gif,) = tmp_path.glob("*.gif")
    assert Image.open(gif).n_frames == 12
    text = (tmp_path / "index.html").read_text()
    assert "a<!--b" not in text  # it would begin a comment there
    (clip,) = forecasts_of(text)["clips"]
    assert clip["name"] == gif.stem and clip["name"].startswith("run-a<!--b風")
    assert clip["mse"] == [] and forecasts_of(text)["scores"] is None
    real = pixels(clip["strips"][0])
    assert not real[2:-2, -34:-2].any()  # the last frame within its border


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

# What a visitor does, and what is then to be seen.
VISIT = """
<script>
  const every = (selector, look) => [...document.querySelectorAll(selector)].map(look);
  const seen = {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    mse: every(".head span", e => e.textContent),
    rows: every("tbody tr", e => e).length,
    images: every("img", e => e.complete && e.naturalWidth > 0),
    frames: [0, 4, 9].map(frame => {
      slider.value = frame;
      slider.dispatchEvent(new Event("input"));
      const places = every(".tile", e => getComputedStyle(e).backgroundPositionX);
      return [document.querySelector("output").textContent, ...new Set(places)];
    }),
  };
  play.click();
  seen.playing = [play.textContent, slider.value];
  play.click();
  seen.paused = play.textContent;
  document.body.textContent = JSON.stringify(seen);
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_page_in_a_browser(script, quick_run, tmp_path):
    assert script(animate, quick_run, *FORECAST, tmp_path, "--page")[0] == 0
    page = tmp_path / "index.html"
    page.write_text(page.read_text().replace("</html>", VISIT + "</html>"))
    result = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
         page.as_uri()],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    seen = json.loads(re.search(r"<body>(.*)</body>", result.stdout, re.DOTALL)[1])
    assert seen["overflow"] == 0  # nothing to scroll sideways
    assert all(re.fullmatch(r"MSE \d+\.\d", label) for label in seen["mse"])
    assert seen["rows"] == 6 + 1 and sum(seen["images"]) == 2 * (3 + 1)
    # One slider moves every tile, and all of them to the same frame.
    assert seen["frames"] == [
        ["context 1 of 4", "0%"],
        ["predicted 1 of 6", "44.4444%"],
        ["predicted 6 of 6", "100%"],
    ]
    assert seen["playing"] == ["Pause", "0"] and seen["paused"] == "Play"
