# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What happens next? Video prediction with ConvLSTM2D
#
# *[Este cuaderno en español](prediccion_de_fotogramas.ipynb)*
#
# A model watches ten frames of a video and predicts the next ten. On the way there, this notebook
# shows what the data are, what a model learns from them, what a ConvLSTM2D layer does and looks
# like inside, how it is trained, and how good its forecasts are.
#
# It repeats none of the project's code. Every cell calls functions of five short files, which are
# made to be read in this order: `data.py`, `model.py`, `train.py`, `predict.py`, `animate.py`. To
# run everything takes less than five minutes on two CPU cores. A GPU is not needed.
#
# The first cell finds the project's files. Where this notebook came alone, as on Colab, it fetches
# them and installs what is missing.

# %%
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://github.com/OWNER/next-frame-prediction"

places = [Path("."), Path(".."), Path("next-frame-prediction")]
root = next((place for place in places if (place / "train.py").exists()), None)
if root is None:
    root = places[-1]
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, root], check=True)
    requirements = root / "requirements.txt"
    subprocess.run([sys.executable, "-m", "pip", "install", "-qr", requirements], check=True)
os.chdir(root)
sys.path.insert(0, os.getcwd())

# %%
import dataclasses
import tempfile
import time

# The project's files come before Keras: they set up its backend.
import animate
import data
import model as models
import predict
import train

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, Image
from keras import ops

# TINY=1 in the environment makes everything small: to see in a minute that all cells run.
TINY = os.environ.get("TINY") == "1"

# %% [markdown]
# ## 1. Moving MNIST
#
# The videos are made of MNIST's handwritten digits, of 28 × 28 pixels. Two of them move over a
# black square of 64 × 64 pixels, each at a constant speed in a direction of its own, and bounce
# off the walls. Where they overlap, the brighter pixel is seen. It is a toy, and a hard one: to
# predict it, a model has to find out from the frames alone what the objects are, where each is
# going, and what a wall does.
#
# `data.make_videos` makes as many as you like. The same seed gives the same videos, on every
# machine.

# %%
digits = data.load_digits("train")
videos = data.make_videos(digits, count=6, seed=3)

print("digits:", digits.shape, digits.dtype)
print("videos:", videos.shape, videos.dtype, "(videos, frames, height, width, channels)")

# %% [markdown]
# A video is a stack of pictures, so a GIF shows it best. This small function shows one within the
# notebook; `animate.write_gif` does the work.


# %%
def play(pictures, description):
    """Show uint8 pictures (frames, height, width, 3) as a GIF that plays in the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        animate.write_gif(Path(folder) / "pictures.gif", pictures)
        gif = animate.data_url("gif", (Path(folder) / "pictures.gif").read_bytes())
    return HTML(f'<img src="{gif}" alt="{description}">')


def beside_each_other(frames):
    """Frames (videos, height, width, channels) -> one picture of them all."""
    return np.concatenate([data.enlarge(frame, 2, data.REAL_COLOUR) for frame in frames], axis=1)


pictures = [beside_each_other(videos[:, n]) for n in range(videos.shape[1])]
play(pictures, "Six videos of two moving digits each")

# %% [markdown]
# ## 2. Training and validation sets
#
# Training videos are made while training asks for them, and never repeat: `data.MovingMNIST` makes
# batch after batch from MNIST's 60,000 training digits. So nothing can be learned by heart, and a
# batch depends on its number and the seed alone.

# %%
training = data.MovingMNIST(seed=0, batch_size=4, batches=250)
x, y = training[0]

print("a batch: x", x.shape, x.dtype, f"from {x.min():g} to {x.max():g}")
print("         y", y.shape)
print("the first batch, asked for again, is the same:", np.array_equal(x, training[0][0]))
print("the second one is the same as the first:", np.array_equal(x, training[1][0]))

# %% [markdown]
# Validation videos are the opposite: always the same 10,000, made of digits of MNIST's *test* set.
# The model has never seen their handwriting. (A third set, for final scores, is made of the other
# half of those digits.)

# %%
COUNT = 3 if TINY else 50
validation = data.evaluation_videos("validation", np.arange(COUNT))
print("validation:", validation.shape, validation.dtype)

# %% [markdown]
# ## 3. The next frame is the answer
#
# Nobody needs to label anything: the right answer to "what comes after frame $n$?" is frame
# $n + 1$. So the input $x$ and the target $y$ are the same video, shifted by one frame. These are
# the essential lines of `data.shift_frames`:
#
# ```python
# videos = to_float(videos)              # uint8 in 0..255 -> float32 in [0, 1]
# return videos[:, :-1], videos[:, 1:]   # x: frames 1 to 19;  y: frames 2 to 20
# ```
#
# Below each input (grey) stands its target (orange). Every target is the next input: follow one to
# the upper right.

# %%
x, y = data.shift_frames(videos)
print("x", x.shape, "  y", y.shape)
print("y[:, n] is x[:, n + 1]:", np.array_equal(y[:, :-1], x[:, 1:]))

inputs = [(frame, data.REAL_COLOUR) for frame in x[0, :8]]
targets = [(frame, data.PREDICTED_COLOUR) for frame in y[0, :8]]
data.film_strip([inputs, targets], ["x", "y"])

# %% [markdown]
# ## 4. ConvLSTM2D: a memory with the shape of a picture
#
# One frame does not tell where a digit is going; that takes memory. A ConvLSTM2D layer (Shi et al.
# 2015) carries two states from frame to frame, the output $h$ and the memory $c$. Both are
# pictures with several channels, called filters. For each frame $x_n$ it computes
#
# $$\begin{aligned}
# i &= \sigma(W_i * [x_n, h_{n-1}] + b_i) & &\text{input gate: what to write} \\
# f &= \sigma(W_f * [x_n, h_{n-1}] + b_f) & &\text{forget gate: what to keep} \\
# o &= \sigma(W_o * [x_n, h_{n-1}] + b_o) & &\text{output gate: what to show} \\
# c_n &= f \odot c_{n-1} + i \odot \tanh(W_c * [x_n, h_{n-1}] + b_c) & &\text{the new memory} \\
# h_n &= o \odot \tanh(c_n) & &\text{the new output}
# \end{aligned}$$
#
# That is an LSTM whose products are convolutions ($*$). Every pixel has its own memory and looks at
# its neighbours only, and all pixels share the same weights: what is learned about movement in one
# corner holds in all others. The four convolutions have the same input, so they are computed as one
# with four times as many filters. Hence the 32 in these shapes:

# %%
layer = models.ConvLSTM2D(filters=8, kernel_size=3)
frame = x[:1, 0]
states = layer.empty_states(batch=1, height=64, width=64)
h, states = layer.step(frame, states)

print("frame:", frame.shape, "(batch, height, width, channels)")
print("h and c:", [tuple(state.shape) for state in states], "(batch, height, width, filters)")
for weight in layer.weights:
    print(f"{weight.name}:", tuple(weight.shape))

# %% [markdown]
# `model.py` stacks such layers. Convolutions shrink the frame first, since a digit is larger than
# 3 × 3 pixels; the layers work at an eighth of its size, and tell from what they remember how what
# they see will move next.
#
# ### Two digits, two sheets
#
# Two digits that overlap look like one. But each moves as a whole, and that gives them away: nothing
# of a digit was ever darker than what is seen at its place now. So a `SheetForecaster` sees a frame
# as two sheets that lie upon each other. In the first frame both hold everything. Then each sheet is
# moved to where it fits best below the next frame, and loses what is brighter than that frame:
# whatever does not move along. This is measured, not learned. A few frames later, each sheet holds
# one digit, and never mind if they cross:

# %%
sheets = np.zeros((1, 2, 64, 64, 1), "float32")  # (batch, sheets, height, width, channels)
apart = []
for n in range(8):
    sheets, moved_by = models.separate(x[1:2, n], sheets, radius=4)
    apart.append(ops.convert_to_numpy(sheets)[0])

rows = [x[1, :8], [both[0] for both in apart], [both[1] for both in apart]]
data.film_strip(
    [[(frame, data.REAL_COLOUR) for frame in row] for row in rows],
    ["frame", "sheet 1", "sheet 2"],
)

# %% [markdown]
# So the ConvLSTM2D layers watch one thing at a time, as if every sheet were a video of its own, and
# say how it will move. The forecast is made of the sheets as they were last seen, in their
# predicted places. Another model, `Forecaster`, predicts pixels, and is for videos in which
# things do not move as a whole. Whatever is inside, each model is one step:
#
# ```python
# next_frame, states = model.step(frame, states)
# ```
#
# Here is the one that we are about to train. `train.PRESETS` has several sizes, and this is the
# smallest one with more epochs. Every hyperparameter is a field of `train.Config`, with a comment.

# %%
config = dataclasses.replace(train.PRESETS["tiny"], epochs=12)
if TINY:
    small = {"frames": 4, "context": 2, "steps_per_epoch": 2, "epochs": 2, "validation_videos": 2}
    config = dataclasses.replace(config, **small)

model = train.build_model(config)
print(f"{model.count_params():,} parameters")
for layer, (h, c) in zip(model.conv_lstms, model.empty_states(1, 64, 64)["layers"]):
    print(f"{layer.name}: kernel {tuple(layer.cell.kernel.shape)}, h and c {tuple(h.shape)}")

# %% [markdown]
# ## 5. Training, for two minutes
#
# How should a model be trained that will have to go on from its own predictions? If it only ever
# sees real frames ("teacher forcing"), it never learns to live with its own mistakes. So we train
# it as it will be used, in a closed loop: it reads some real frames and goes on from its own
# predictions. Early on most of those are replaced by real frames; their share falls to zero
# ("scheduled sampling", Bengio et al. 2015). The essential lines of the model's
# `read`, which a call of the model calls:
#
# ```python
# for n in range(videos.shape[1]):
#     frame = videos[:, n]
#     if real is not None and n > 0:
#         frame = ops.where(frame_is_real, frame, predictions[-1])
#     prediction, states = step(frame, states)
# ```
#
# `train.train` is what `python train.py` runs. It leaves a folder with the weights, a log,
# pictures, and all that is needed to go on.

# %%
run = Path("runs") / time.strftime("notebook-%Y-%m-%d-%H%M%S")
train.train(config, run)

# %% [markdown]
# The curve is that of forecasts of validation videos. The first predicted frame is the easiest; the
# last one builds on all predictions before it.

# %%
Image(run / "curve.png")

# %% [markdown]
# ## 6. Ten frames in, ten frames out
#
# Now a validation video at random (another seed, another video). The model reads the first ten
# frames, and predicts ten more without ever seeing a real frame again. The essential lines of
# `model.rollout`:
#
# ```python
# for n in range(frames + horizon - 1):
#     frame = context[:, n] if n < frames else predictions[-1]
#     inputs = {"frame": frame, "states": states}
#     prediction, states = model.compiled_step(inputs)  # model.step, compiled
#     if n >= frames - 1:
#         predictions.append(prediction)
# ```

# %%
rng = np.random.default_rng(seed=11)
example = data.evaluation_videos("validation", rng.integers(data.EVALUATION_VIDEOS, size=1))
context, truth = data.to_float(example[:, :10]), data.to_float(example[:, 10:])

trained_here = train.load_model(run)
prediction = models.rollout(trained_here, context, horizon=10)
print("context", context.shape, "-> prediction", prediction.shape)
data.forecast_strip(context, truth, prediction)

# %% [markdown]
# On the move, and the more blurred the farther ahead. The blur has a reason: the error is squared,
# and whoever is unsure between two places does best with half a digit in each.
#
# The project ships weights of a larger model that was trained for longer. Here are both below the
# real frames, with their errors: orange where the prediction is too bright, blue where it is too
# dark.

# %%
shipped = train.load_model(predict.SHIPPED)
print(f"{trained_here.count_params():,} and {shipped.count_params():,} parameters")


def strip(real, predictions):
    """A film strip of real frames, and below them of what was predicted, {label: frames}."""
    rows = [[(frame, data.REAL_COLOUR) for frame in real]]
    for frames in predictions.values():
        rows.append([(frame, data.PREDICTED_COLOUR) for frame in frames])
    return data.film_strip(rows, ["real", *predictions])


better = models.rollout(shipped, context, horizon=10)
strip(
    truth[0],
    {
        "ours": prediction[0],
        "error": animate.error_map(truth[0], prediction[0]),
        "shipped": better[0],
        "its error": animate.error_map(truth[0], better[0]),
    },
)

# %% [markdown]
# ## 7. How wrong, and when
#
# One video proves nothing, so now the same with many. `models.rollout` rolls a model out over any
# number of videos, and `predict.score` compares with the real frames. MSE is the squared error
# summed over the pixels of a frame; SSIM compares structures, and 1 means the same picture. A model
# that is worth anything must beat copying the last frame that it saw.

# %%
contexts, truths = data.to_float(validation[:, :10]), validation[:, 10:]
forecasts = {
    "trained here": models.rollout(trained_here, contexts, 10),
    "shipped": models.rollout(shipped, contexts, 10),
    "copying the last frame": np.repeat(contexts[:, -1:], 10, axis=1),
}
scores = {name: predict.score(truths, forecast) for name, forecast in forecasts.items()}
for name, score in scores.items():
    print(f"{name}: MSE {score['mean']['mse']:.1f}, SSIM {score['mean']['ssim']:.3f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for name, score in scores.items():
    axes[0].plot(range(1, 11), score["mse"], marker=".", label=name)
    axes[1].plot(range(1, 11), score["ssim"], marker=".", label=name)
axes[0].set(xlabel="predicted frame", title="MSE (lower is better)", ylim=(0, None))
axes[1].set(xlabel="predicted frame", title="SSIM (higher is better)")
axes[0].legend()
plt.show()

# %% [markdown]
# Errors grow with every frame, because a slightly wrong direction leads further and further away. The two scores need not agree: SSIM minds
# blur, and so may rank a sharp copy in the wrong place above a blurred forecast in the right one.
#
# ## 8. Watch it
#
# Four validation videos, the real one at the left and the shipped model's forecast at the right.
# Both sides show the same context first, framed in grey; with the orange frame the forecast begins.

# %%
pictures = [
    animate.side_by_side(contexts[n], truths[n], forecasts["shipped"][n])
    for n in range(min(4, COUNT))
]
HTML("".join(play(video, "Real video beside the predicted one").data for video in pictures))

# %% [markdown]
# ## 9. How much must it see?
#
# All these forecasts are of the same ten frames. What changes is how many frames the model saw just
# before them. One frame tells what the digits look like and where they are, but not where they are
# going.

# %%
FEW = 2 if TINY else 20
lengths = [1, 10] if TINY else [1, 2, 3, 5, 10]
fewer = {n: models.rollout(shipped, contexts[:FEW, -n:], 10) for n in lengths}
strip(truths[0], {f"saw {n}": forecast[0] for n, forecast in fewer.items()})

# %%
errors = [predict.score(truths[:FEW], forecast)["mean"]["mse"] for forecast in fewer.values()]
figure, axis = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
axis.plot(lengths, errors, marker="o", color="tab:orange")
axis.set(xlabel="frames that the model saw", ylabel="MSE of the next ten", ylim=(0, None))
axis.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## 10. A picture that flatters, and one that tells the truth
#
# Many demonstrations show predictions like those in the second row: every one was made from the
# *real* frames before it. That is teacher forcing. It looks splendid, since the model only ever has
# to look one frame ahead. The fourth row is a true forecast of the same frames by the same weights.
# Compare the last column, and ask of any picture of predicted video which of the two it is.

# %%
x, _ = data.shift_frames(validation[:FEW])
teacher_forced = ops.convert_to_numpy(shipped(x))[:, 9:]
rolled_out = forecasts["shipped"][:FEW]
strip(
    truths[0],
    {
        "forced": teacher_forced[0],
        "error": animate.error_map(truths[0], teacher_forced[0]),
        "forecast": rolled_out[0],
        "its error": animate.error_map(truths[0], rolled_out[0]),
    },
)

# %%
figure, axis = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
for name, forecast in [("teacher-forced", teacher_forced), ("forecast", rolled_out)]:
    axis.plot(range(1, 11), predict.score(truths[:FEW], forecast)["mse"], marker=".", label=name)
axis.set(xlabel="predicted frame", ylabel="MSE", ylim=(0, None))
axis.grid(alpha=0.3)
axis.legend()
plt.show()

# %% [markdown]
# ## 11. Inside a ConvLSTM2D layer
#
# What do the gates do while a digit passes? We let the shipped model watch two videos at once, one
# with a single digit and one that is black throughout, and note down what happens in its first
# ConvLSTM2D layer, which works on 8 × 8 places. Whatever differs between the two is the layer's
# reaction to the digit. (Each video is two sheets to the model. We look at the first one of each.)
#
# The gates are computed from the layer's weights, just as in the formulas above.

# %%
digit = data.to_float(data.evaluation_videos("validation", [3], digits_per_video=1))
both = np.concatenate([digit, np.zeros_like(digit)])
layer = shipped.conv_lstms[0]
reactions = []


def step_and_note(x, states):
    """The layer's own step, and a note of how far its insides differ between the two videos."""
    kernel, recurrent_kernel, bias = layer.weights
    x_part = ops.conv(ops.cast(x, "float32"), kernel, padding="same")
    h_part = ops.conv(ops.cast(states[0], "float32"), recurrent_kernel, padding="same")
    input_gate, forget_gate, _, output_gate = ops.split(
        ops.sigmoid(x_part + h_part + bias), 4, axis=-1
    )
    h, (_, c) = type(layer).step(layer, x, states)
    insides = [input_gate, forget_gate, output_gate, c, h]  # each (4, height, width, filters)
    insides = np.stack([ops.convert_to_numpy(ops.cast(part, "float32")) for part in insides])
    reactions.append(np.abs(insides[:, 0] - insides[:, 2]).mean(axis=-1))  # mean over filters
    return h, [h, c]


layer.step = step_and_note
states = shipped.empty_states(2, 64, 64)
for n in range(16):
    _, states = shipped.step(both[:, n], states)
del layer.step

# %%
names = ["frame", "input gate", "forget gate", "output gate", "memory c", "output h"]
brightest = np.max(reactions, axis=(0, 2, 3))
figure, axes = plt.subplots(6, 8, figsize=(10, 7.5), layout="constrained")
for column, n in enumerate(range(0, 16, 2)):
    axes[0, column].imshow(digit[0, n], cmap="gray")
    axes[0, column].set_title(n + 1, fontsize=10)
    for row, reaction in enumerate(reactions[n]):
        axes[row + 1, column].imshow(reaction, cmap="magma", vmin=0, vmax=brightest[row])
for axis, name in zip(axes[:, 0], names):
    axis.set_ylabel(name)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Compare the rows. At the first frame the gates answer where the digit is. Then they answer nearly
# everywhere, since every place is told how its sheet has moved so far, and a black sheet has not.
# The memory *c* was empty before the first frame; it fills while the frames go by, and stays when
# the gates have calmed down. That is how a layer that sees one frame at a time can know a
# direction.
#
# ## 12. Your turn
#
# 1. **Twenty frames ahead.** Make videos of 30 frames by
#    `data.evaluation_videos("validation", [0], frames=30)`, and call `models.rollout` with
#    `horizon=20`. When does it stop being a forecast? In the terminal:
#    `python animate.py --horizon 20`.
# 2. **Three digits.** Give the shipped model videos with `digits_per_video=3`, which it never saw.
#    Then train with `dataclasses.replace(config, digits_per_video=3, sheets=3)`. In the terminal,
#    from the shipped weights on: `python train.py --init assets/forecaster.keras
#    --digits-per-video 3 --sheets 3 --run runs/three`.
# 3. **Your own clip.** Any grey video as a NumPy array `(videos, frames, height, width)` will do,
#    uint8 or floats in [0, 1], height and width divisible by 8. Save it by `np.save("clip.npy",
#    clip)`, then run `python animate.py --data clip.npy`. What does a model that knows nothing but
#    digits make of it?
# 4. **Look into the other layer.** Replace `shipped.conv_lstms[0]` in section 11 by `[1]`. Which of
#    them remembers longer?
# 5. **Teacher forcing.** Train with `dataclasses.replace(config, teacher_forcing=True)`, and draw
#    section 7 again. How much of the gap comes from training in a closed loop?
# 6. **Pixels.** Train with `dataclasses.replace(config, model="forecaster")`, and draw section 6
#    again. Where are its forecasts blurred, and those of sheets are not?
