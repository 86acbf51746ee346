"""The page with a frame slider: one file, every frame, and what a visitor does with it."""

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

import animate
import data
import predict
from extras import page, pictures


def forecasts_of(page):
    return json.loads(re.search(r'<script id="forecasts" [^>]*>(.*?)</script>', page, re.DOTALL)[1])


def pixels(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page of two videos, and what it shows."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    videos = np.random.default_rng(0).integers(0, 256, (2, 10, 32, 32, 1), dtype=np.uint8)
    context, truth = videos[:, :4], videos[:, 4:]
    prediction = data.to_float(truth[:, ::-1])
    gifs, stills = [], []
    for n in range(2):
        frames = animate.side_by_side(context[n], truth[n], {"predicted": prediction[n]})
        gifs.append(path.with_name(f"clips-{n}.gif"))
        stills.append(frames[-1])
        animate.write_gif(gifs[-1], frames)
    milliseconds = {"each": 200, "last": 1200}
    page.write_page(path, context, truth, prediction, gifs, stills, predict.score, milliseconds)
    return path, context, truth, prediction


def test_page_is_one_file_with_every_frame(written):
    path, context, truth, prediction = written
    text = path.read_text()
    assert not re.search(r"https?:|@import|<link|<script [^>]*src=", text)
    shown = forecasts_of(text)
    for n, clip in enumerate(shown["clips"]):
        errors = pictures.error_map(truth[n], prediction[n])
        rows = [
            [*context[n], *truth[n]],
            [*context[n], *prediction[n]],
            [*np.zeros((4, 32, 32, 3)), *errors],
        ]
        for url, row in zip(clip["strips"], rows):
            strip = pixels(url)
            assert strip.shape == (36, 10 * 36, 3)
            for f, frame in enumerate(row):
                tile = strip[2:-2, 36 * f + 2 : 36 * f + 34]
                assert (tile == pictures.to_uint8(frame)).all()
        assert pixels(clip["still"]).shape == pixels(clip["gif"]).shape
        gif = base64.b64decode(clip["gif"].split(",")[1])
        assert gif == path.with_name(f"{clip['name']}.gif").read_bytes()
        difference = data.to_float(truth[n]) - prediction[n]
        np.testing.assert_allclose(clip["mse"], np.square(difference).sum((1, 2, 3)), rtol=1e-5)
    both = np.mean([clip["mse"] for clip in shown["clips"]], axis=0)
    np.testing.assert_allclose(shown["scores"]["model"]["mse"], both, rtol=1e-5)


def test_clips_without_truth_and_with_any_name_have_a_page_without_scores(
    script, quick_run, tmp_path
):
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
    assert clip["mse"] == []
    assert forecasts_of(text)["scores"] is None
    real = pixels(clip["strips"][0])
    assert not real[2:-2, -34:-2].any()  # the last frame within its border


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

# What a visitor does, and what is then to be seen.
VISIT = """
<script>
  const seen = {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    mse: [...document.querySelectorAll(".head span")].map(e => e.textContent),
    rows: document.querySelectorAll("tbody tr").length,
    images: [...document.images].filter(i => i.complete && i.naturalWidth).length,
    frames: [],
  };
  for (const frame of [0, 4, 9]) {
    slider.value = frame;
    slider.dispatchEvent(new Event("input"));
    const places = [...document.querySelectorAll(".tile")].map(
      tile => getComputedStyle(tile).backgroundPositionX);
    seen.frames.push([document.querySelector("output").textContent, ...new Set(places)]);
  }
  document.querySelector("#play").click();
  seen.playing = [play.textContent, slider.value];
  play.click();
  seen.paused = play.textContent;
  document.body.textContent = JSON.stringify(seen);
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_page_in_a_browser(written, tmp_path):
    visited = tmp_path / "visited.html"
    visited.write_text(written[0].read_text().replace("</html>", VISIT + "</html>"))
    result = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
         visited.as_uri()],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    seen = json.loads(re.search(r"<body>(.*)</body>", result.stdout, re.DOTALL)[1])
    assert seen["overflow"] == 0  # nothing to scroll sideways
    assert all(re.fullmatch(r"MSE \d+\.\d", label) for label in seen["mse"])
    assert seen["rows"] == 6 + 1 and seen["images"] == 2 * (3 + 1)
    # One slider moves every tile, and all of them to the same frame.
    assert seen["frames"] == [
        ["context 1 of 4", "0%"],
        ["predicted 1 of 6", "44.4444%"],
        ["predicted 6 of 6", "100%"],
    ]
    assert seen["playing"] == ["Pause", "0"] and seen["paused"] == "Play"
