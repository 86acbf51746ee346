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
# A model watches ten frames of a video and predicts the next ten. This notebook tells how: what the
# data are, what a ConvLSTM2D layer does, how a model is trained, how good its forecasts are, what
# happens inside, and why the last part of the error is so hard to get rid of.
#
# It repeats none of the project's code. The cells call functions of five short files (`data.py`,
# `model.py`, `train.py`, `predict.py` and `animate.py`, best read in this order) and a few of the
# folder `extras`. All cells together take about five minutes on two CPU cores. No GPU is needed.
#
# The first cell looks for these files. If Python cannot find a package later on, run
# `%pip install -r requirements.txt` in a cell of its own, and restart the kernel.

# %%
import os
import sys
from pathlib import Path

places = [Path("."), Path(".."), *Path(".").iterdir()]
root = next((place for place in places if (place / "extras" / "motion.py").exists()), None)
if root is None:
    sys.exit(
        "The project's files are not here: copy its whole folder to this machine, and open the "
        "notebook in it. On Colab upload it as a ZIP file, run !unzip NAME.zip, and this cell again."
    )
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
from extras import motion, page, pictures, runs, sprites

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from keras import ops

# QUICK=1 in the environment makes everything small: to see in a minute that all cells run.
QUICK = os.environ.get("QUICK") == "1"

# %% [markdown]
# ## 1. Moving MNIST
#
# The videos are made of MNIST's handwritten digits, of 28 × 28 pixels. Two of them move over a
# black square of 64 × 64 pixels. Each has a direction of its own, keeps its speed, and bounces off
# the walls. (What bounces is the square of 28 × 28, which the digit does not fill: so it seems to
# turn a little before the wall.) Where they overlap, the brighter pixel is seen. It is a toy
# problem, and a hard one: from the frames alone, a model has to find out which things there are,
# where each is going, and what a wall does.
#
# `data.make_videos` makes as many as you like. The same seed gives the same videos, on every
# machine.

# %%
digits = data.load_digits("train")
videos = data.make_videos(digits, count=6, seed=3)

print("digits:", digits.shape, digits.dtype)
print("videos:", videos.shape, videos.dtype, "(videos, frames, height, width, channels)")

# %% [markdown]
# A GIF shows a video best. This small function shows one within the notebook.


# %%
def play(frames, description):
    """Show uint8 pictures (frames, height, width, 3) as a GIF that plays in the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        animate.write_gif(Path(folder) / "video.gif", frames)
        gif = page.data_url("gif", (Path(folder) / "video.gif").read_bytes())
    return HTML(f'<img src="{gif}" alt="{description}">')


def in_a_row(frames):
    """Frames (videos, height, width, channels) -> one picture of them all."""
    tiles = [pictures.enlarge(frame, 2, pictures.REAL_COLOUR) for frame in frames]
    return np.concatenate(tiles, axis=1)


play([in_a_row(videos[:, n]) for n in range(20)], "Six videos of two moving digits each")

# %% [markdown]
# ## 2. Three sets
#
# **Training** videos are made while training asks for them, from MNIST's 60,000 training digits,
# and never repeat. So no video can be learned by heart. A batch depends on the seed, the epoch and
# its number alone.

# %%
training = data.MovingMNIST(seed=0, batch_size=4, batches=250)
x, y = training[0]

print("a batch: x", x.shape, x.dtype, f"from {x.min():g} to {x.max():g}")
print("         y", y.shape)
print("the first batch, asked for again, is the same:", np.array_equal(x, training[0][0]))
print("the second batch is the same as the first:", np.array_equal(x, training[1][0]))

# %% [markdown]
# **Validation** videos are always the same 10,000. They are made of half of MNIST's *test* digits,
# whose handwriting no model has seen in training. Where nothing else is said, models are judged by
# some of them in this notebook. The **test** set, for final scores, is made in the same way from
# the other half of those digits. Both are made as they are indexed:

# %%
validation = data.EvaluationVideos("validation")
examples = validation[np.arange(3 if QUICK else 40)]

print(f"{len(validation)} validation videos; the first of them:", examples.shape, examples.dtype)

# %% [markdown]
# ## 3. The next frame is the answer
#
# Nobody has to label anything. What comes after frame $n$? Frame $n + 1$ is the right answer, and
# the video itself has it. So the input $x$ and the target $y$ are the same video, shifted by one
# frame. These are the essential lines of `data.shift_frames`:
#
# ```python
# videos = to_float(videos)              # uint8 in 0..255 -> float32 in [0, 1]
# return videos[:, :-1], videos[:, 1:]   # x: frames 1 to 19;  y: frames 2 to 20
# ```
#
# Below, each input (grey border) stands above its target (orange border). The input at the upper
# right of each target (except the last) is the same frame.

# %%
x, y = data.shift_frames(videos)
print("x", x.shape, "  y", y.shape)
print("y[:, n] is x[:, n + 1]:", np.array_equal(y[:, :-1], x[:, 1:]))

inputs = [(frame, pictures.REAL_COLOUR) for frame in x[0, :7]]
targets = [(frame, pictures.PREDICTED_COLOUR) for frame in y[0, :7]]
pictures.film_strip([inputs, targets], ["input x", "target y"], scale=2)

# %% [markdown]
# ## 4. ConvLSTM2D: a memory with the shape of a picture
#
# One frame does not tell where a digit is going. That takes memory. A ConvLSTM2D layer (Shi et al.
# 2015) carries two states from frame to frame: its output $h$ and its memory $c$. Both are pictures
# with several channels, one for each filter. For each frame $x_n$ it computes, with $\sigma$ the
# sigmoid, $[x, h]$ the channels of both concatenated and $\odot$ the product pixel by pixel:
#
# $$\begin{aligned}
# i &= \sigma(W_i * [x_n, h_{n-1}] + b_i) & &\text{input gate: what to write} \\
# f &= \sigma(W_f * [x_n, h_{n-1}] + b_f) & &\text{forget gate: what to keep} \\
# o &= \sigma(W_o * [x_n, h_{n-1}] + b_o) & &\text{output gate: what to show} \\
# c_n &= f \odot c_{n-1} + i \odot \tanh(W_c * [x_n, h_{n-1}] + b_c) & &\text{the new memory} \\
# h_n &= o \odot \tanh(c_n) & &\text{the new output}
# \end{aligned}$$
#
# This is an LSTM whose products are convolutions ($*$). Every pixel has a memory of its own, and
# looks at its neighbours only. All pixels share the same weights, so what is learned about motion
# in one corner holds everywhere.
#
# The four convolutions read the same input, so they are computed as one with four times as many
# filters. That is why, with 8 filters, the last dimension of the kernels is 32. Keras keeps the
# kernel that reads $x$ and the one that reads $h$ apart; `step` joins them:

# %%
layer = models.ConvLSTM2D(filters=8, kernel_size=3)
states = layer.initial_states(batch=1, height=64, width=64)
for n in range(3):
    h, states = layer.step(x[:1, n], states)  # one frame at a time

print("frame:", x[:1, 0].shape, "(batch, height, width, channels)")
print("h and c:", [tuple(state.shape) for state in states], "(batch, height, width, filters)")
for weight in layer.weights:
    print(f"{weight.name}:", tuple(weight.shape))
keras_says = ops.convert_to_numpy(layer(x[:1, :3]))  # Keras's own layer, over the same frames
print("Keras's own layer says the same:", np.allclose(h, keras_says, atol=1e-5))

# %% [markdown]
# ## 5. A stack of such layers
#
# With each frame, a layer with 3 × 3 kernels sees only one pixel farther. So layers are stacked,
# each reading what the one below says. The simplest model here, `KerasExample`, is nearly the stack
# that the Keras site shows: three layers, and a convolution that paints the next frame. (There,
# that convolution also sees the frame that is to be predicted; here it does not.) Its whole step,
# in which `norms` are BatchNormalization layers:
#
# ```python
# x, first_state = first.step(frame, states[0])  # (batch, height, width, filters)
# x, second_state = second.step(self.norms[0](x, training=training), states[1])
# x, third_state = third.step(self.norms[1](x, training=training), states[2])
# return self.paint_head(x), [first_state, second_state, third_state]
# ```
#
# We train the other model, the `Forecaster`. Three things are different.
#
# **It has the shape of a U.** Convolutions make the frame smaller, so that the layers see farther
# and cost less; then the way goes up again.
#
# ```text
# 64×64 frame                                                next frame 64×64
#    ↓ convolution                                                  ↑
#    32×32 ─────────────────────────────────────────────────────→ 32×32
#       ↓ convolution                                            ↑
#       16×16 ConvLSTM2D layers ────────────────────→ 16×16 ConvLSTM2D layers
#          ↓ convolution                                 ↑
#          8×8 ConvLSTM2D layers ────────────────────────┘
# ```
#
# At 16 × 16, what comes up from 8 × 8 is added to what was there; at 32 × 32, the channels are
# concatenated. Within a stack, each layer *adds* its output to what the one below says (a residual
# connection), and so many layers are as easy to train as few (`norm`: a LayerNormalization):
#
# ```python
# for norm, conv_lstm, state in zip(self.norms, self.conv_lstms, states):
#     h, state = conv_lstm.step(norm(x), state)
#     x = x + h
# ```
#
# **It has two answers.** Most of the next frame is this frame, moved. So one head says for each
# pixel where it comes from, and the pixels are moved (`motion.warp`). Another head paints the frame
# anew. A gate between 0 and 1 blends the two, pixel by pixel:
#
# ```python
# next_frame = gate * moved + (1 - gate) * painted
# ```
#
# **It is told how things have moved so far.** For each block of 4 × 4 pixels,
# `motion.block_matching` measures how the last frame moved into this one, as codecs for video do.
# What was measured earlier is remembered, and this memory is carried along with the things that
# move. Nothing of this is learned. What will happen *next* is left to the layers that learn.
#
# Whatever is inside, every model is one step:
#
# ```python
# next_frame, states = model.step(frame, states)
# ```
#
# `train.PRESETS` has several sizes. We train `tiny`. It has one ConvLSTM2D layer, at 8 × 8, and
# sees 1,200 videos. The project also ships the weights of a larger model, trained on a GPU with
# 240,000 videos, and we shall need them. Each hyperparameter is a field of `train.Config` or, for
# the layers, of `config.architecture` (`Architecture`, in `model.py`); in the code, the explanation
# is below each field.

# %%
config = train.PRESETS["tiny"]
if QUICK:
    small = {"frames": 4, "context": 2, "steps_per_epoch": 2, "epochs": 2, "validation_videos": 2}
    config = dataclasses.replace(config, **small)

model = train.build_model(config)
shipped = runs.load_model(runs.SHIPPED)

for name, forecaster in {"tiny": model, "shipped": shipped}.items():
    print(f"{name}: {forecaster.count_params() / 1e6:.2f} million parameters")
    states = forecaster.initial_states(batch=1, height=64, width=64)
    for part in ("down", "coarse", "up"):
        for h, c in states[part]:
            print(f"   a ConvLSTM2D layer in stack_{part}: h and c", tuple(h.shape))

# %% [markdown]
# ## 6. Training
#
# The model will have to go on from its own predictions. If it only ever sees real frames while it
# is trained ("teacher forcing"), it never learns to live with its own mistakes. So it is trained as
# it will be used, in closed loop: it reads some real frames, and goes on from its own predictions.
# In the beginning most of those are replaced by real frames; their share falls to zero ("scheduled
# sampling", Bengio et al. 2015). `real_mask` says at which positions the real frame is read; once
# the model has been given a prediction of its own, it goes on alone to the end. These are the
# essential lines of the model's `unroll`:
#
# ```python
# for n in range(videos.shape[1]):
#     frame = videos[:, n]  # (batch, height, width, channels)
#     if real_mask is not None and n > 0:
#         is_real = ops.reshape(real_mask[:, n], (-1, 1, 1, 1))
#         frame = ops.where(is_real, frame, predictions[-1])
#     prediction, states = step(frame, states)
#     predictions.append(prediction)
# ```
#
# The loss is the squared error, summed over the pixels of a frame (MSE in the figures). A second,
# smaller one compares the predicted motion with the motion that was then measured. The optimizer
# Muon trains the kernels of hidden layers, and Adam all other weights (`extras/optimizer.py`).
#
# To be quick, `tiny` trains on videos of 12 frames: it reads six (the *context*) and predicts six.
# Afterwards it can read and predict as many as you like, since all it has learned is one step.
#
# `train.train` is what `python train.py --preset tiny` runs in the terminal (this command and all
# others: in the project's folder). It leaves a folder with the weights, a log, pictures, and all
# that is needed to go on. In the progress bar, `frames_loss` is the mean error of all 11
# predictions, those within the context too; `motion_loss` is that of the motion; `loss` is
# `frames_loss` plus 0.1 × `motion_loss`; `val_mse` is the error of the 6 predictions after the
# context, for validation videos and with a moving average of the weights.

# %%
run = Path("runs") / time.strftime("notebook-%Y-%m-%d-%H%M%S")
train.train(config, run)

# %% [markdown]
# After each epoch it forecasts validation videos. The first predicted frame is the easiest. The
# last one builds on all predictions before it.


# %%
def curves(lines, horizontal, title):
    """Draw a line for each {label: (horizontal values, errors)}; lower is better."""
    _, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for label, line in lines.items():
        axis.plot(*line, marker=".", label=label)
    axis.set(xlabel=horizontal, ylabel="MSE, summed over pixels", title=title, ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    plt.show()


log = runs.read_log(run, config.epochs)
trained_on = [int(row["videos"]) for row in log]
columns = {
    "last predicted frame": "val_mse_last_frame",
    "mean of the predicted frames": "val_mse",
    "first predicted frame": "val_mse_first_frame",
}
lines = {
    label: (trained_on, [float(row[column]) for row in log]) for label, column in columns.items()
}
curves(lines, "training videos", "Forecasts of validation videos")

# %% [markdown]
# ## 7. Ten frames in, ten frames out
#
# Now a validation video at random (another seed, another video). The model reads ten frames, and
# predicts ten more without ever seeing a real frame again. The essential lines of `model.rollout`:
#
# ```python
# for n in range(frames + horizon - 1):
#     frame = context[:, n] if n < frames else predictions[-1]  # (batch, height, width, channels)
#     prediction, states = step({"frame": frame, "states": states})
#     if n >= frames - 1:
#         predictions.append(prediction)
# ```

# %%
number = np.random.default_rng(seed=0).integers(len(validation))
example = data.to_float(validation[[number]])  # an index in a list keeps the axis of videos
context, truth = example[:, :10], example[:, 10:]

trained_here = runs.load_model(run)  # best.keras: the weights of the lowest val_mse
prediction = models.rollout(trained_here, context, horizon=10)
print("context", context.shape, "-> prediction", prediction.shape)
pictures.forecast_strip(context, truth, prediction, labels=("real", "predicted"))

# %% [markdown]
# The farther ahead, the more blurred. The blur has a reason: the error is squared, and if a digit
# may be in one of two places, half a digit in each costs least.
#
# Here are our model and the shipped one, each with its error: orange where the prediction is too
# bright, blue where it is too dark.


# %%
def strip(real, *predicted):
    """A film strip of real frames, and below them of predicted ones: pairs (label, frames)."""
    rows = [[(frame, pictures.REAL_COLOUR) for frame in real]]
    for _, frames in predicted:
        rows.append([(frame, pictures.PREDICTED_COLOUR) for frame in frames])
    return pictures.film_strip(rows, ["real", *(label for label, _ in predicted)])


better = models.rollout(shipped, context, horizon=10)
strip(
    truth[0],
    ("ours", prediction[0]),
    ("error", pictures.error_map(truth[0], prediction[0])),
    ("shipped", better[0]),
    ("error", pictures.error_map(truth[0], better[0])),
)

# %% [markdown]
# ## 8. How wrong, and when
#
# One video proves nothing. `predict.score` compares many forecasts with the real frames. MSE is the
# squared error, summed over the pixels of a frame. SSIM compares structures; 1 means the same
# picture. A model that is worth anything must have a lower error than a mere copy of the last
# frame. (SSIM punishes most of all the grey haze that `tiny` leaves on the black ground: there it
# falls behind the copy.)

# %%
contexts, truths = data.to_float(examples[:, :10]), examples[:, 10:]
forecasts = {
    "trained here": models.rollout(trained_here, contexts, 10),
    "shipped": models.rollout(shipped, contexts, 10),
    "copying the last frame": data.copy_last(contexts, 10),
}
scores = {name: predict.score(truths, forecast) for name, forecast in forecasts.items()}
for name, score in scores.items():
    print(f"{name}: MSE {score['mean']['mse']:.1f}, SSIM {score['mean']['ssim']:.3f}")

ahead = range(1, 11)
lines = {name: (ahead, score["mse"]) for name, score in scores.items()}
curves(lines, "predicted frame", "Three forecasts of the same videos")

# %% [markdown]
# The error grows with every frame: a slightly wrong direction leads the digit farther and farther
# from its place. The MSE of the model trained here is not its `val_mse`: it now reads and predicts
# ten frames instead of six, of other videos.
#
# Four of these videos, the real one at the left and the shipped model's forecast at the right. Both
# sides show the same context first, framed in grey. When the border at the right turns orange, the
# forecast begins.

# %%
animations = [
    animate.side_by_side(
        contexts[n], truths[n], forecasts["shipped"][n], words=("real", "context", "predicted")
    )
    for n in range(min(4, len(examples)))
]
HTML("".join(play(video, "Real video beside the predicted one").data for video in animations))

# %% [markdown]
# ## 9. A picture that flatters, and one that tells the truth
#
# Many demonstrations show predictions like those of the second row below. Each was made from the
# *real* frames before it (teacher forcing): the model only ever looks one frame ahead. The fourth
# row is a forecast of the same frames by the same weights, rolled out on its own predictions.
# Compare the last columns, and ask of any picture of predicted video which of the two it shows.

# %%
FEW = 2 if QUICK else 16
x, _ = data.shift_frames(examples[:FEW])
teacher_forced = ops.convert_to_numpy(shipped(x))[:, 9:]  # predictions of frames 11 to 20
rolled_out = forecasts["shipped"][:FEW]
strip(
    truths[0],
    ("forced", teacher_forced[0]),
    ("error", pictures.error_map(truths[0], teacher_forced[0])),
    ("rolled out", rolled_out[0]),
    ("error", pictures.error_map(truths[0], rolled_out[0])),
)

# %%
both = {"rolled out": rolled_out, "teacher-forced": teacher_forced}
errors = {name: predict.score(truths[:FEW], frames)["mse"] for name, frames in both.items()}
lines = {name: (ahead, values) for name, values in errors.items()}
curves(lines, "predicted frame", "The same model, the same frames")

# %% [markdown]
# ## 10. Inside a ConvLSTM2D layer
#
# What do the gates do while a digit passes? The shipped model watches two videos at once: one has a
# single digit, the other is black. We note what happens in its first ConvLSTM2D layer, which works
# on 16 × 16 places. Whatever differs between what happens with one and with the other is due to the
# digit. The gates are computed from the layer's weights, just as in the formulas above.

# %%
single_digits = data.EvaluationVideos("validation", digits_per_video=1)
digit = data.to_float(single_digits[[3]])  # chosen by hand: it bounces off the left edge
digit_and_black = np.concatenate([digit, np.zeros_like(digit)])
layer = shipped.stack_down.conv_lstms[0]
reactions = []


def step_and_note(x, states):
    """Take the layer's own step, and note how far its insides differ between the two videos."""
    kernel, recurrent_kernel, bias = layer.weights
    gates = ops.conv(x, kernel, padding="same")
    gates = gates + ops.conv(states[0], recurrent_kernel, padding="same") + bias
    input_gate, forget_gate, _, output_gate = ops.split(ops.sigmoid(gates), 4, axis=-1)
    h, (_, c) = type(layer).step(layer, x, states)
    insides = [input_gate, forget_gate, output_gate, c, h]  # (2 videos, 16, 16, filters) each
    insides = np.stack([ops.convert_to_numpy(part) for part in insides])
    reactions.append(np.abs(insides[:, 0] - insides[:, 1]).mean(axis=-1))  # mean over filters
    return h, [h, c]


layer.step = step_and_note
shipped.unroll(digit_and_black[:, :16])
del layer.step  # the class's own again

names = ["frame", "input gate", "forget gate", "output gate", "memory c", "output h"]
brightest = np.max(reactions, axis=(0, 2, 3))
figure, axes = plt.subplots(6, 8, figsize=(9, 6.8), layout="constrained")
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
# Brighter means a larger difference, and each row has its own scale. Nearly all of it moves along
# with the digit: the layer's weights are the same at every place, so it answers alike wherever the
# digit is. Nobody tells it where that is. Before the first frame the memory *c* is empty. From then
# on it holds what the input gate let in and the forget gate kept. So a layer that sees one frame at
# a time can know what came before.
#
# ## 11. Where the model thinks that things are going
#
# Before it sees the next frame, the model predicts a displacement for each block of 4 × 4 pixels,
# which is then refined for each pixel. Not one number: a probability for each of −4 … 4 pixels
# along either axis (digits move 3.6 pixels in a frame). The logits are left in the state
# `predicted_motion`, first vertical, then horizontal.
#
# A displacement says where a pixel comes *from*. So the motion is its negative: +2 vertically is a
# pixel from two pixels further down, which moved up.

# %%
watched = data.to_float(validation[[49]])  # chosen by hand: both digits bounce, in frames 7 and 8
x, y = data.shift_frames(watched)
predicted, all_states = shipped.unroll(x)
logits = ops.stack([states["predicted_motion"][0] for states in all_states])  # (19, 16, 16, 18)
predicted_motion = [ops.softmax(axis) for axis in ops.split(logits, 2, axis=-1)]
measured_motion = ops.split(motion.block_matching(y[0], x[0], shipped.motion_radius), 2, axis=-1)
predicted_motion, measured_motion = (  # (vertical and horizontal, frames, 16, 16, 9 displacements)
    np.stack([ops.convert_to_numpy(axis) for axis in both])
    for both in (predicted_motion, measured_motion)
)
displacements = np.arange(-shipped.motion_radius, shipped.motion_radius + 1)
contrast = ops.convert_to_numpy(motion.contrast(predicted[0]))[..., 0]  # (19, 16, 16)

figure, axes = plt.subplots(3, 4, figsize=(11, 8), layout="constrained")
view = {"xlim": (15.5, 57.5), "ylim": (63.5, 27.5)}  # where the digits are
for column, n in enumerate(range(4, 8)):
    rows, columns = np.nonzero(contrast[n] > 0.15)  # the blocks in which something is
    centre_y, centre_x = motion.BLOCK * rows + 1.5, motion.BLOCK * columns + 1.5  # in pixels
    # The block of the highest contrast, and what is thought of it.
    block = np.unravel_index(contrast[n].argmax(), contrast[n].shape)
    corner = (motion.BLOCK * block[1] - 0.5, motion.BLOCK * block[0] - 0.5)
    for axis, moved, colour in [
        (axes[0, column], predicted_motion, "darkorange"),
        (axes[1, column], measured_motion, "deepskyblue"),
    ]:
        down, right = -(moved[:, n, rows, columns] * displacements).sum(axis=-1)
        axis.imshow(x[0, n], cmap="gray")
        axis.quiver(centre_x - right, centre_y - down, right, down, color=colour, width=0.012,
                    angles="xy", scale_units="xy", scale=1)  # fmt: skip
        axis.add_patch(plt.Rectangle(corner, 4, 4, fill=False, edgecolor="red", linewidth=1.5))
        axis.set(**view, xticks=[], yticks=[])
    axes[0, column].set_title(f"frame {n + 1} → {n + 2}")

    vertical, horizontal = predicted_motion[(slice(None), n, *block)]
    axis = axes[2, column]
    # Reversed, since the motion is the negative of the displacement.
    axis.imshow(np.outer(vertical[::-1], horizontal[::-1]), cmap="Oranges", vmin=0, vmax=1,
                extent=(-4.5, 4.5, 4.5, -4.5))  # fmt: skip
    down, right = -(measured_motion[(slice(None), n, *block)] * displacements).sum(axis=-1)
    axis.plot(right, down, "o", color="deepskyblue", fillstyle="none", markersize=11)
    axis.set(xlabel="pixels to the right", xticks=[-4, 0, 4], yticks=[-4, 0, 4])
for axis, label in zip(axes[:, 0], ["predicted", "measured", "pixels down"]):
    axis.set_ylabel(label)
plt.show()

# %% [markdown]
# In orange: the motion that the model expects, the mean of the possible ones, weighted by their
# probabilities. An arrow begins where the pixels are, and ends where they should be in the next
# frame. In blue: what `block_matching` measures once that frame is there. Watch the lower edge.
#
# Below are the probabilities for the block with the red border (the one of most contrast in the
# predicted frame; in the current one it may be black), and a blue circle at what then happened. One
# dark square means that the model is sure. Where several squares are coloured, the model is not:
# the moved pixels tend to be a mixture, and that is the blur.
#
# ## 12. Frames taken apart into sprites
#
# A *sprite* is a small picture that moves as a whole, as in video games. Much of the error comes
# from digits that get in each other's way. Where they overlap, they look like one thing. But each
# moves as a whole, and that gives them away: put a digit where it is in another frame, and none of
# its pixels is brighter than what is seen there. So `sprites.decompose` begins with two copies of
# the first frame. From frame to frame it shifts each copy to where it fits best, and takes away
# whatever is brighter than the frame there: that did not move along with the copy. It passes the
# frames forward, back, and forward again. This is measured, not learned. (Wang and Adelson 1994;
# Jojic and Frey 2001.)

# %%
crossing = data.to_float(validation[[45]])[:, :10]  # chosen by hand: they cross in the fifth frame
parts, moved = sprites.decompose(crossing, count=2)
print("frames", crossing.shape, "-> sprites", parts.shape)
together = parts.max(axis=1)
print("the brighter pixel of both is the frame:", np.array_equal(together, crossing))
rows = [[(image, pictures.REAL_COLOUR) for image in row] for row in (crossing[0], *parts[0])]
pictures.film_strip(rows, ["frame", "sprite 1", "sprite 2"])

# %% [markdown]
# Each sprite is now a video of its own, with one digit. The *same* model forecasts each of them,
# without any further training, and the brighter pixel of both forecasts is taken. From the
# terminal: `python predict.py --sprites 2`. The strip shows the one of 40 videos that gains most.

# %%
forecasts["with sprites"] = sprites.rollout(shipped, contexts, 10, count=2)
scores["with sprites"] = predict.score(truths, forecasts["with sprites"])
for name in ("shipped", "with sprites"):
    print(f"{name}: MSE {scores[name]['mean']['mse']:.1f}")

frames_error, sprites_error = (
    np.square(forecasts[name] - data.to_float(truths)).mean(axis=(1, 2, 3, 4))
    for name in ("shipped", "with sprites")
)
helped = np.argmax(frames_error - sprites_error)  # the video that gains most
strip(
    truths[helped],
    ("frames", forecasts["shipped"][helped]),
    ("sprites", forecasts["with sprites"][helped]),
)

# %% [markdown]
# It has its limits. Sprites assume bright things on black ground that keep their shapes and move as
# a whole. That is the definition of Moving MNIST, but few real videos are like that. So they are
# off unless you ask for them.
#
# ## 13. Where the rest of the error comes from
#
# Could a perfect forecaster have no error at all? No. A digit's place is rounded down to whole
# pixels before it is drawn. So ten frames do not tell its exact direction, and directions that look
# the same now lead to different places later.
#
# Let us see that. Here is a video of one digit (number 31, chosen by hand). We try many digits that
# start nearly in the same place and move in nearly the same direction, and keep those that put the
# digit exactly where it is in the real video in all of the first ten frames: nobody could tell them
# apart.

# %%
real = single_digits.numbers[31, 0]  # which digit, start x, start y, direction as part of a turn
room = 64 - data.DIGIT_SIZE  # pixels in which it moves


def places(numbers):
    """Numbers (..., 4) -> the digit's left and top edge in pixels, (..., 2, 20 frames)."""
    direction = 2 * np.pi * numbers[..., 3:]
    velocity = data.STEP * np.concatenate([np.cos(direction), np.sin(direction)], axis=-1)
    return (room * data.bounce(numbers[..., 1:3], velocity, 20)).astype(int)


spread = np.array([0, 1 / room, 1 / room, 0.02])  # at most a pixel, and a fiftieth of a turn
guesses = real + spread * np.random.default_rng(0).uniform(-1, 1, size=(200_000, 4))
fits = (places(guesses) == places(real))[..., :10].all(axis=(1, 2))
futures = data.to_float(data.move_digits(single_digits.digits, guesses[fits][:, None]))
print(f"{fits.sum()} of {len(guesses)} look the same for ten frames")
print("their contexts are equal:", np.array_equal(futures[:, :10].min(0), futures[:, :10].max(0)))

best = futures.mean(axis=0)
order = np.argsort(guesses[fits][:, 3])  # by direction
truth = data.to_float(single_digits[[31]])[0]
by_model = models.rollout(shipped, truth[None, :10], 10)[0]
strip(
    truth[10:],
    ("a future", futures[order[0], 10:]),
    ("another", futures[order[-1], 10:]),
    ("their mean", best[10:]),
    ("shipped", by_model),
)

# %% [markdown]
# The two futures differ by a few pixels: compare the last column.

# %%
for name, frames in [("the mean of all futures", best[10:]), ("the shipped model", by_model)]:
    print(f"{name}: MSE {predict.score(truth[None, 10:], frames[None])['mean']['mse']:.1f}")

# %% [markdown]
# The mean of all futures that are still possible is the forecast with the least expected squared
# error. Nobody can do better in the long run, and it is blurred, too.
#
# `benchmarks/floor.py` computes this mean for videos of two digits, taking the shapes of both and
# their first ten places as known exactly. Its error is about **8.7**, the floor for every model.
# Between this floor and the shipped model stands another yardstick, `benchmarks/tracks.py`: it
# takes the frames apart into sprites, and gives the measured places of each to a small network that
# has learned from a million simulated tracks how things move in Moving MNIST. It never sees a
# pixel, so it need not find out the law of motion from pictures. Its error is about **11.0** ("told
# the law of motion", below).

# %%
FLOOR = [4.3, 5.8, 6.5, 7.6, 8.3, 9.1, 9.9, 10.9, 11.8, 12.4]  # of predicted frames 1 to 10
ladder = {
    "copying the last frame": scores["copying the last frame"]["mean"]["mse"],
    "trained here": scores["trained here"]["mean"]["mse"],
    "shipped": scores["shipped"]["mean"]["mse"],
    "with sprites": scores["with sprites"]["mean"]["mse"],
    "told the law of motion": 11.0,
    "floor": 8.7,
}
for name, error in ladder.items():
    print(f"{name:30} {error:6.1f}")

lines = {name: (ahead, scores[name]["mse"]) for name in ("shipped", "with sprites")}
curves({**lines, "floor": (ahead, FLOOR)}, "predicted frame", "What is left to gain")

# %% [markdown]
# So the shipped model's error has four parts. In the last four rows of the list, from the top down:
#
# - from "shipped" to "with **sprites**": to tell apart digits that get in each other's way;
# - from "with sprites" to "told the **law** of motion": to know speed and walls as exactly as the
#   frames show them. The model has to learn that law from pixels, and its own blurred predictions
#   become its inputs;
# - from there to the **floor**: to measure the digits and use the law perfectly;
# - the **floor** itself: what the context does not tell.
#
# (The first four errors are those of the first 40 validation videos. The last two were computed on
# the test set, as in the README's table.)
#
# ## 14. Your turn
#
# 1. **Twenty frames ahead.** Take a video of 30 frames, `videos =
#    data.EvaluationVideos("validation", frames=30)[[0]]`, and call `models.rollout(shipped,
#    data.to_float(videos[:, :10]), horizon=20)`. Up to which frame are the digits recognizable, and
#    in their places? Try several videos: they differ. In the terminal: `python animate.py --horizon
#    20`.
# 2. **How much must it see?** Forecast from `contexts[:, -n:]` for `n` of 1, 2, 3 and 5. One frame
#    tells what the digits look like, but not where they are going. How many are enough?
# 3. **Three digits.** The shipped model has never seen videos like `three =
#    data.to_float(data.EvaluationVideos("validation", digits_per_video=3)[np.arange(10)])`. Compare
#    `models.rollout(shipped, three[:, :10], 10)` with `sprites.rollout(shipped, three[:, :10], 10,
#    count=3)`. To train on such videos: `python train.py --init assets/forecaster.keras
#    --digits-per-video 3 --run runs/three` (about an hour on two cores).
# 4. **Another layer.** In section 10, replace `shipped.stack_down` by `shipped.stack_coarse`. Which
#    of the two follows the digit more closely? (The grid of `stack_coarse` is 8 × 8, not 16 × 16 as
#    the comment says, so all looks coarser.)
# 5. **Teacher forcing.** Put `config = dataclasses.replace(config, teacher_forcing=True)` at the
#    top of section 6, keep the errors from before by `before = scores`, and run sections 6 to 8
#    again (training again takes two minutes or so). What does the closed loop bring?
# 6. **Nothing measured.** Do the same with `config = train.PRESETS["tiny"]`, `layers =
#    dataclasses.replace(config.architecture, motion_radius=0)` and `config =
#    dataclasses.replace(config, architecture=layers)`. Now the layers must find out by themselves
#    how things move, and paint every pixel. Compare the errors. (With no motion to measure, the bar
#    shows `loss` and `val_mse` alone.)
# 7. **A video of your own.** Take one of at least 24 frames, and put it into the project's folder.
#    Run `pip install av` (for MP4), then `python train.py --data film.mp4 --preset tiny --run
#    runs/film`, and then `python animate.py runs/film`; the animations are in `outputs/`.
