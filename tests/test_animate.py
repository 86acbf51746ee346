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


def video(frames=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 1), dtype=np.uint8)


def test_context_and_forecast_are_told_apart():
    context, truth, prediction = video(3), video(2, seed=1), video(2, seed=2)
    pictures = animate.side_by_side(context, truth, prediction)
    assert pictures.dtype == np.uint8 and pictures.shape[0] == 5 and pictures.shape[3] == 3
    height, width = pictures.shape[1:3]
    half = (width - 8) // 2
    # Every pixel becomes a block of 8x8, without blur, within a border of 2 pixels.
    for n, (left, right) in enumerate(zip([*context, *truth], [*context, *prediction])):
        bottom = pictures[n, height - 260 :]
        for shown, real in ((bottom[:, :half], left), (bottom[:, -half:], right)):
            blocks = np.kron(real[..., 0], np.ones((8, 8), np.uint8))
            np.testing.assert_array_equal(shown[2:-2, 2:-2], np.stack([blocks] * 3, axis=-1))
        right_border = data.REAL_COLOUR if n < 3 else data.PREDICTED_COLOUR
        assert tuple(bottom[0, 0]) == data.REAL_COLOUR
        assert tuple(bottom[0, -1]) == right_border


def test_without_truth_the_real_side_is_blank():
    pictures = animate.side_by_side(video(3), video(1), video(2))
    width = pictures.shape[2] // 2 - 8
    assert (pictures[3, 40:, :width] < 255).any()
    assert (pictures[4, 40:, :width] == 255).all()
    assert (pictures[4, 40:, -width:] < 255).any()


def test_gif_loops_and_keeps_its_pixels(tmp_path):
    pictures = animate.side_by_side(video(3), video(2, seed=1), video(2, seed=2))
    animate.write_gif(tmp_path / "a.gif", pictures)
    gif = Image.open(tmp_path / "a.gif")
    assert gif.n_frames == 5 and gif.info["loop"] == 0
    durations = []
    for n in range(5):
        gif.seek(n)
        durations.append(gif.info["duration"])
        shown = np.asarray(gif.convert("RGB")).astype(int)
        assert np.abs(shown - pictures[n])[28:].max() < 24  # 256 colours have to do
    assert durations == [200, 200, 200, 200, 1200]


def test_script_writes_an_animation_for_each_video_and_one_strip(script, tiny_run, tmp_path):
    status, output, _ = script(animate, tiny_run, "--out", tmp_path)
    assert status == 0
    written = {str(path) for path in tmp_path.iterdir()}
    assert written == {line for line in output.splitlines() if line.startswith(str(tmp_path))}
    gifs = sorted(tmp_path.glob("*.gif"))
    assert len(gifs) == 4 and len(written) == 5
    assert all(Image.open(path).n_frames == 20 for path in gifs)
    (strip,) = tmp_path.glob("*.png")
    width, height = Image.open(strip).size
    assert width > 20 * 64 and height > 8 * 64
    # The numbers in the names are those of the validation videos.
    number = int(gifs[0].stem.split("-")[1])
    gif = Image.open(gifs[0])
    first = np.asarray(gif.convert("RGB"))[-258:-2:4, 2:258:4]
    expected = data.evaluation_videos("validation", [number])[0, 0]
    assert np.abs(first.astype(int) - expected).max() < 24


def test_mp4(script, tiny_run, tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("av")
    arguments = [tiny_run, "--count", 1, "--horizon", 3, "--format", "mp4", "--out", tmp_path]
    assert script(animate, *arguments)[0] == 0
    (path,) = tmp_path.glob("*.mp4")
    frames = imageio.imread(path, plugin="pyav")
    assert frames.shape[0] == 13 and frames.shape[3] == 3


def test_mp4_without_its_packages_says_what_to_install(refused, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(animate.importlib.util, "find_spec", lambda name: None)
    arguments = [tiny_run, "--count", 1, "--horizon", 1, "--format", "mp4", "--out", tmp_path]
    assert "pip install imageio av" in refused(animate, *arguments)
    assert not list(tmp_path.iterdir())


def test_clips_without_truth_are_animated(script, tiny_run, tmp_path):
    np.save(tmp_path / "clip.npy", data.evaluation_videos("test", [0])[:, :10])
    arguments = ["--data", tmp_path / "clip.npy", "--out", tmp_path / "out"]
    assert script(animate, tiny_run, *arguments)[0] == 0
    assert Image.open(tmp_path / "out" / "clip-0000.gif").n_frames == 20


def test_help(script):
    status, output, _ = script(animate, "--help")
    assert status == 0 and "--horizon" in output and "validation" in output


def test_error_map_shows_too_bright_in_orange_and_too_dark_in_blue():
    truth = np.array([0, 255, 255], np.uint8).reshape(1, 1, 3, 1)
    prediction = np.array([1, 1, 0.5], np.float32).reshape(1, 1, 3, 1)
    (too_bright, right, too_dark) = animate.error_map(truth, prediction)[0, 0]
    assert too_bright[0] == 1 > too_bright[1] > too_bright[2] == 0
    assert (right == 0).all()
    assert too_dark[0] == 0 < too_dark[1] < too_dark[2] == 0.5


def forecasts_of(page):
    return json.loads(re.search(r'<script id="forecasts" [^>]*>(.*?)</script>', page, re.S)[1])


def pixels(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of two videos, and what it shows."""
    path = tmp_path_factory.mktemp("page") / "index.html"
    videos = np.stack([video(10, seed=n) for n in range(2)])
    context, truth = videos[:, :4], videos[:, 4:]
    prediction = data.to_float(truth[:, ::-1])
    gifs = [path.with_name(f"clips-{n}.gif") for n in range(2)]
    for n, gif in enumerate(gifs):
        animate.write_gif(gif, animate.side_by_side(context[n], truth[n], prediction[n]))
    animate.write_page(path, context, truth, prediction, gifs)
    return path, context, truth, prediction


def test_page_is_one_file_with_every_frame(page):
    path, context, truth, prediction = page
    text = path.read_text()
    assert not re.search(r"https?:|@import|<link|<script [^>]*src=", text)
    shown = forecasts_of(text)
    for n, clip in enumerate(shown["clips"]):
        errors = animate.error_map(truth[n], prediction[n])
        rows = [
            [*context[n], *truth[n]],
            [*context[n], *prediction[n]],
            [*np.zeros((4, 32, 32, 3)), *errors],
        ]
        for url, row in zip(clip["strips"], rows):
            strip = pixels(url)
            assert strip.shape == (36, 10 * 36, 3)
            tiles = [strip[2:-2, 36 * f + 2 : 36 * f + 34] for f in range(10)]
            for tile, frame in zip(tiles, row):
                expected = np.broadcast_to(data.to_uint8(frame), tile.shape)
                np.testing.assert_array_equal(tile, expected)
        gif = base64.b64decode(clip["gif"].split(",")[1])
        assert gif == path.with_name(f"{clip['name']}.gif").read_bytes()
        difference = data.to_float(truth[n]) - prediction[n]
        np.testing.assert_allclose(clip["mse"], np.square(difference).sum((1, 2, 3)), rtol=1e-5)
    both = np.mean([clip["mse"] for clip in shown["clips"]], axis=0)
    np.testing.assert_allclose(shown["scores"]["model"]["mse"], both, rtol=1e-5)


def test_page_without_truth_has_no_scores(script, tiny_run, tmp_path):
    np.save(tmp_path / "a<!--b.npy", data.evaluation_videos("test", [0])[:, :10])
    arguments = ["--page", "--data", tmp_path / "a<!--b.npy", "--out", tmp_path, "--horizon", 2]
    status, output, _ = script(animate, tiny_run, *arguments)
    assert status == 0 and str(tmp_path / "index.html") in output
    text = (tmp_path / "index.html").read_text()
    assert "a<!--b" not in text  # it would begin a comment there
    shown = forecasts_of(text)
    assert shown["clips"][0]["name"] == "a<!--b-0000" and shown["clips"][0]["mse"] == []
    assert shown["scores"] is None
    real = pixels(shown["clips"][0]["strips"][0])
    assert not real[2:-2, -66:-2].any()  # the last frame within its border


def test_page_shows_gifs_only(refused, tiny_run, tmp_path):
    arguments = [tiny_run, "--page", "--format", "mp4", "--out", tmp_path]
    assert "--page" in refused(animate, *arguments)


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

# What a visitor does, and what is then to be seen.
VISIT = """
<script>
  const seen = {
    width: document.documentElement.scrollWidth - document.documentElement.clientWidth,
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
  parent.postMessage(JSON.stringify(seen), "*");
</script>
"""
# A window cannot be as narrow as a phone, but a frame can.
PHONE = """
<body></body>
<iframe width="WIDTH" height="800" style="border: 0" src="visited.html"></iframe>
<script>onmessage = message => { document.body.textContent = message.data; }</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_a_browser(page, tmp_path, width):
    visited, phone = tmp_path / "visited.html", tmp_path / "phone.html"
    visited.write_text(page[0].read_text().replace("</html>", VISIT + "</html>"))
    phone.write_text(PHONE.replace("WIDTH", str(width)))
    result = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
         phone.as_uri()],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    seen = json.loads(re.search(r"<body>(.*)</body>", result.stdout, re.S)[1])
    assert seen["width"] == 0  # nothing to scroll sideways
    assert all(re.fullmatch(r"MSE \d+\.\d", label) for label in seen["mse"])
    assert seen["rows"] == 6 + 1 and seen["images"] == 2 * (3 + 1)
    # One slider moves every tile, and all of them to the same frame.
    assert seen["frames"] == [
        ["context 1 of 4", "0%"],
        ["predicted 1 of 6", "44.4444%"],
        ["predicted 6 of 6", "100%"],
    ]
    assert seen["playing"] == ["Pause", "0"] and seen["paused"] == "Play"
