# ---
# jupyter:
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
# A model watches ten frames of a video and predicts the next ten. This notebook builds the data,
# looks into a ConvLSTM2D layer, trains a model, and writes a GIF of its forecast beside the real
# video. Then it measures how wrong forecasts are, and shows what happens inside the model. The
# cells call functions of five short files, `data.py`, `model.py`, `train.py`, `predict.py` and
# `animate.py`, best read in this order, and a few of the folders `method` and `extras`. They take
# about five minutes on two CPU cores. No GPU is needed, and nothing is downloaded.
#
# The first cell looks for the project's files. If Python cannot find a package after it, run `%pip
# install -r requirements.txt` in a cell of its own, and restart the kernel.

# %%
import os
import sys
from pathlib import Path

places = [Path("."), Path(".."), *Path(".").iterdir()]
root = next((place for place in places if (place / "method" / "motion.py").exists()), None)
if root is None:
    sys.exit(
        "The project's files are not here: copy its whole folder to this machine and open the "
        "notebook in it. On Colab upload it as a ZIP, run !unzip NAME.zip, and run this cell again."
    )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no notes of TensorFlow's while it works
os.chdir(root)
sys.path.insert(0, os.getcwd())

# %%
import json
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from keras import ops

import animate
import data
import model as models
import predict
import train
from extras import page, pictures, runs
from method import motion, sprites

# QUICK=1 in the environment makes everything small: to see in a minute that all cells run.
QUICK = os.environ.get("QUICK") == "1"

# %% [markdown]
# ## 1. Moving MNIST
#
# Two of MNIST's handwritten digits, of 28 × 28 pixels, move over a black square of 64 × 64 pixels.
# Each has a direction of its own, keeps its speed, and bounces off the walls. (What bounces is the
# square of 28 × 28, which the digit does not fill: so it seems to turn a little before the wall.)
# Overlapping digits take the maximum. It is a toy problem, and a hard one: from the frames alone, a
# model has to find out which things there are, where each is going, and what a wall does.
#
# `data.make_videos` makes as many as you like. The same seed gives the same videos on every
# machine. Here are all twenty frames of the first one.

# %%
digits = data.load_digits("train")
videos = data.make_videos(digits, count=6, seed=3)
print("digits:", digits.shape, digits.dtype)
print("videos:", videos.shape, videos.dtype, "(videos, frames, height, width, channels)")

halves = [[(frame, pictures.REAL_COLOUR) for frame in half] for half in np.split(videos[0], 2)]
pictures.film_strip(halves, ["1 to 10", "11 to 20"])

# %% [markdown]
# A GIF shows a video best. Here are all six.


# %%
def play(name, frames, description):
    """Write a GIF to the folder outputs, and show it here."""
    path = Path("outputs") / name
    animate.write_gif(path, frames)
    return HTML(f'<img src="{page.data_url("gif", path.read_bytes())}" alt="{description}">')


tiles = [[pictures.enlarge(frame, 2, pictures.REAL_COLOUR) for frame in video] for video in videos]
side_by_side = np.concatenate(tiles, axis=2)  # (frames, height, six widths, 3)
play("six-videos.gif", side_by_side, "Six videos of two moving digits each")

# %% [markdown]
# **Training** videos are made of MNIST's 60,000 training digits while training asks for them, and
# never repeat, so none can be learned by heart. **Validation** videos are always the same 10,000,
# made of half of MNIST's *test* digits, whose handwriting no model has seen in training. The
# **test** set, for final scores, is made of the other half. Papers score on `mnist_test_seq.npy`, a
# file that was made in the same way: `python predict.py --data official` downloads its 781 MiB, and
# nothing else here needs it. (Commands are for a terminal, in the project's folder.)
#
# ## 2. The next frame is the answer
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
def strip(*rows):
    """A film strip of rows (label, frames): the first has a grey border, the others orange ones."""
    colours = [pictures.REAL_COLOUR] + [pictures.PREDICTED_COLOUR] * (len(rows) - 1)
    tiles = [[(frame, colour) for frame in frames] for (_, frames), colour in zip(rows, colours)]
    return pictures.film_strip(tiles, [label for label, _ in rows])


x, y = data.shift_frames(videos)
print("x and y:", x.shape, " y[:, n] is x[:, n + 1]:", np.array_equal(y[:, :-1], x[:, 1:]))
strip(("input x", x[0, :10]), ("target y", y[0, :10]))

# %% [markdown]
# ## 3. ConvLSTM2D: a memory with the shape of a picture
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
# ## 4. A stack of such layers
#
# With each frame, a layer with 3 × 3 kernels sees only one pixel farther. So layers are stacked,
# each reading what the one below says. This is `KerasExample`, the stack that the Keras site shows:
# ConvLSTM2D layers (with `relu` instead of tanh), BatchNormalization between them (`norms`), and a
# convolution that paints the next frame. (On the site that convolution also sees the frame that is
# to be predicted; here it does not.) Its `step`:
#
# ```python
# x, new_states = frame, []
# for n, conv_lstm in enumerate(self.conv_lstms):
#     x, state = conv_lstm.step(x, states[n])  # (batch, height, width, filters)
#     new_states.append(state)
#     if n < len(self.norms):
#         x = self.norms[n](x, training=training)
# return self.paint_head(x), new_states
# ```
#
# `layers` lists the filters and the kernel size of each layer. One pair more is one layer more.

# %%
stack = models.KerasExample(models.Architecture(layers=((64, 5), (64, 3), (64, 1))))
predictions = stack(x[:1])  # frame n predicts frame n + 1
print("predictions:", tuple(predictions.shape), f" parameters: {stack.count_params():,}")

# %% [markdown]
# Every model here is such a step, called for frame after frame: one frame and the states in, the
# next frame and the new states out.
#
# ## 5. The forecaster
#
# We train the project's other model, `Forecaster`. Three things are different.
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
# concatenated. Within a stack each layer *adds* its output to its input (a residual connection), so
# many layers are as easy to train as few.
#
# **It has two answers.** Most of the next frame is this frame, moved. So one head says for each
# pixel where it comes from, and the pixels are moved. Another head paints the frame anew. A gate
# between 0 and 1 blends the two, pixel by pixel.
#
# **It is told how things have moved.** For each block of 4 × 4 pixels `motion.block_matching`
# measures how the last frame moved into this one, as video codecs do. Earlier measurements are
# remembered, and move along with the things. Nothing of this is learned. What will happen *next* is
# left to the layers that learn.
#
# So its step is: measure the motion, run the U, paint, move and blend.
#
# ```python
# history, states = self.measure_motion(frame, states)
# x, features, states = self.run_stacks(frame, history, states)
# painted = ops.sigmoid(self.paint_head(features))  # (batch, 64, 64, channels)
# moved, gate, block_motion = self.move(frame, history, x, features)
# next_frame = gate * moved + (1 - gate) * painted
# ```
#
# `train.PRESETS` has several sizes. We train `tiny`: three ConvLSTM2D layers, and 1,200 videos. The
# project also ships the weights of a larger model, trained with 260,000 videos, most of them on a
# GPU ("shipped" below). The stack of section 4 trains in the terminal. As the Keras site publishes
# it that takes nine hours: `python train.py --preset keras-example`. With a quarter of its filters,
# and trained to forecast, it takes 13 minutes: `--preset keras-small`.
#
# Each hyperparameter is a field of `train.Config` or, for the layers, of `Architecture` in
# `model.py`, with its explanation below it. To change one, take the `# ` from the start of a line;
# one at a time, or you will not know which of them made the difference. `python animate.py
# runs/notebook-ONE --beside runs/notebook-OTHER` then shows both.

# %%
config = train.PRESETS["tiny"]
# config = replace(config, muon_learning_rate=0.01)  # a hyperparameter of training
# config = replace(config, architecture=replace(config.architecture, filters=32))  # of the model
if QUICK:
    small = {"frames": 4, "context": 2, "steps_per_epoch": 2, "epochs": 2, "validation_videos": 2}
    config = replace(config, **small)

shipped = runs.load_model(runs.SHIPPED)
for name, model in {"to train": train.build_model(config), "shipped": shipped}.items():
    print(f"{name}: {model.count_params():,} parameters")

# %% [markdown]
# ## 6. Training
#
# The model will have to go on from its own predictions. If it only ever sees real frames while it
# is trained ("teacher forcing"), it never learns to live with its own mistakes. So it is trained in
# closed loop, as it will be used: it reads some real frames (the *context*), and goes on from its
# own predictions. At first it is helped: after the context some more frames are real, fewer with
# each epoch, until none is ("scheduled sampling", Bengio et al. 2015). After a video's first
# predicted frame all are predicted. A mask says which are real, and the loop over the frames heeds
# it:
#
# ```python
# def next_step(real_frame, is_real, outputs, states):
#     frame = ops.where(is_real[:, None, None, None], real_frame, outputs[0])
#     return step(frame, states)
# ```
#
# To be quick, `tiny` trains on videos of 12 frames: it reads six and predicts six. Afterwards it
# can read and predict as many as you like, since all it has learned is one step. Here are the masks
# of four videos in the middle of each of the first epochs: `#` is real, `.` is predicted. They have
# 11 places, since the twelfth frame is only a target.

# %%
for epoch in range(config.sampling_epochs + 1):
    batches = train.Batches(config, data.TrainingVideos(frames=config.frames), epoch)
    inputs, targets = batches[config.steps_per_epoch // 2]
    masks = ["".join("#" if real else "." for real in mask) for mask in inputs["real_mask"]]
    print(f"epoch {epoch + 1}:", *masks, sep="   ")
print("videos and targets:", targets.shape, " real_mask:", inputs["real_mask"].shape)

# %% [markdown]
# The loss is the squared error, summed over the pixels of a frame. The forecaster adds
# another one, times 0.1, which compares the motion that it predicts with the motion that is then
# measured. The optimizer Muon trains the kernels of hidden layers, and Adam all other weights.
#
# `train.train` is what `python train.py --preset tiny` runs. It leaves a folder with the weights, a
# log, pictures, and all that is needed to go on. It prints a line for each epoch: `frames_loss` is
# the mean error of all 11 predictions, those within the context too; `loss` is that plus the
# motion's part; `val_mse` is the error of the 6 predictions after the context, for validation
# videos and with a moving average of the weights.

# %%
run = Path("runs") / time.strftime("notebook-%Y-%m-%d-%H%M%S")
train.train(config, run)


# %%
def curves(lines, horizontal, title):
    """Draw a line for each {label: (horizontal values, errors)}; lower is better."""
    _, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for label, line in lines.items():
        axis.plot(*line, marker=".", label=label)
    axis.set(xlabel=horizontal, ylabel="MSE, summed over pixels", title=title, ylim=(0, None))
    axis.locator_params("x", integer=True)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    plt.show()


log = runs.read_log(run)
columns = {"training: frames_loss": "frames_loss", "validation: val_mse": "val_mse"}
epochs = [int(row["epoch"]) for row in log]
lines = {label: (epochs, [float(row[column]) for row in log]) for label, column in columns.items()}
curves(lines, "epoch", "Training and validation")

# %% [markdown]
# Both are squared errors of predicted frames. But `frames_loss` also counts predictions within the
# context, and in the first epochs later frames are real, too. So compare the shapes of the lines,
# not their heights. No video can be learned by heart: each is seen once.
#
# ## 7. Ten frames in, ten frames out
#
# Now some validation videos at random (another seed, other videos). The model reads ten frames, and
# predicts ten more without ever seeing a real frame again. In `models.rollout` a mask says so, and
# the last real frame already gives the first prediction:
#
# ```python
# real_mask = np.arange(frames + horizon - 1) < frames
# return predictions[:, frames - 1 :]
# ```

# %%
validation = data.EvaluationVideos("validation")
numbers = np.random.default_rng(seed=0).permutation(len(validation))[: 3 if QUICK else 40]
examples = data.to_float(validation[numbers])  # (videos, 20, 64, 64, 1)
contexts, truths = examples[:, :10], examples[:, 10:]

trained_here = runs.load_model(run)  # best.keras: the weights of the lowest val_mse
forecasts = {
    "trained here": models.rollout(trained_here, contexts, horizon=10),
    "shipped": models.rollout(shipped, contexts, horizon=10),
}
ours, better = forecasts["trained here"], forecasts["shipped"]
print("contexts", contexts.shape, "-> predictions", ours.shape)
pictures.forecast_strip(contexts[:1], truths[:1], {"predicted": ours[:1]})

# %% [markdown]
# The farther ahead, the more blurred. The blur has a reason: the error is squared, and if a digit
# may be in one of two places, half a digit in each costs least. Here are both models, each with its
# error: orange where the prediction is too bright, blue where it is too dark.


# %%
def compare(real, *forecasts):
    """A film strip of real frames and of forecasts (label, frames), each with its error below."""
    errors = [("error", pictures.error_map(real, frames)) for _, frames in forecasts]
    rows = [row for pair in zip(forecasts, errors) for row in pair]
    return strip(("real", real), *rows)


compare(truths[0], ("ours", ours[0]), ("shipped", better[0]))

# %% [markdown]
# The same as a GIF, for two videos: the real one, the forecast of the model that you have just
# trained, and that of the shipped one. All show the same context first, framed in grey; where a
# border turns orange, the forecast begins. The file is **`outputs/my-forecast.gif`**, in the
# project's folder; the next run of this cell replaces it. (`python animate.py runs/notebook-DATE`
# makes others.)

# %%
rows = []
for context, truth, mine, published in zip(contexts[:2], truths, ours, better):
    predictions = {"trained here": mine, "shipped": published}
    # each (frames, height, width, 3)
    rows.append(animate.side_by_side(context, truth, predictions, words=("real", "context")))
play("my-forecast.gif", np.concatenate(rows, axis=1), "Real videos beside forecasts of both models")

# %% [markdown]
# ## 8. How wrong, and when
#
# Two videos prove nothing. `predict.score` compares many forecasts with the real frames. MSE is the
# squared error, summed over the pixels of a frame (the M is for *mean*, but papers on Moving MNIST
# give the sum). SSIM compares structures; 1 means the same picture. A model that is worth anything
# must have a lower error than a mere copy of the last frame. (SSIM punishes most of all the grey
# haze that `tiny` leaves on the black ground, and in SSIM `tiny` may fall behind the copy.)

# %%
forecasts = {"copying the last frame": data.copy_last(contexts, 10), **forecasts}
scores = {name: predict.score(truths, forecast) for name, forecast in forecasts.items()}
for name, score in scores.items():
    print(f"{name}: MSE {score['mean']['mse']:.1f}, SSIM {score['mean']['ssim']:.3f}")

ahead = range(1, 11)
lines = {name: (ahead, score["mse"]) for name, score in scores.items()}
curves(lines, "predicted frame", "Three forecasts of the same videos")

# %% [markdown]
# A model's error grows with every frame: a slightly wrong direction leads the digit farther and
# farther from its place. The MSE of the model trained here is not its `val_mse`: it now reads and
# predicts ten frames instead of six, of other videos.
#
# ## 9. A picture that flatters, and one that tells the truth
#
# Many demonstrations show predictions like those of the second row below. Each was made from the
# *real* frames before it (teacher forcing): the model only ever looks one frame ahead. The fourth
# row is a forecast of the same frames by the same weights, rolled out on its own predictions.
# Compare the last columns, and ask of any picture of predicted video which of the two it shows.

# %%
few = examples[:16]
teacher_forced = shipped.predict_on_batch(few[:, :-1])[:, 9:]  # no mask; of frames 11 to 20
for name, frames in ("teacher-forced", teacher_forced), ("rolled out", better[:16]):
    print(f"{name}: MSE {predict.score(few[:, 10:], frames)['mean']['mse']:.1f}")
compare(truths[0], ("forced", teacher_forced[0]), ("rolled out", better[0]))

# %% [markdown]
# ## 10. Inside a ConvLSTM2D layer
#
# What do the gates do while a digit passes? The shipped model watches two videos at once: one has a
# single digit, the other is black. We note what happens in its first ConvLSTM2D layer, which works
# on 16 × 16 places. Whatever differs between the two is due to the digit. The gates are computed
# from the layer's weights, just as in the formulas of section 3.

# %%
single_digits = data.EvaluationVideos("validation", digits_per_video=1)
digit = data.to_float(single_digits[[3]])  # chosen by hand: it bounces off the left edge
digit_and_black = np.concatenate([digit, np.zeros_like(digit)])
layer = shipped.stack_down.conv_lstms[0]
reactions = []


def step_and_note(x, states):
    """Take the layer's own step, and note how far its insides differ between the two videos."""
    kernel, recurrent_kernel, bias = layer.weights
    gates = ops.conv(x, kernel, padding="same") + bias
    gates = gates + ops.conv(states[0], recurrent_kernel, padding="same")
    input_gate, forget_gate, _, output_gate = ops.split(ops.sigmoid(gates), 4, axis=-1)
    h, (_, c) = type(layer).step(layer, x, states)
    insides = ops.stack([input_gate, forget_gate, output_gate, c, h])
    insides = ops.convert_to_numpy(insides)  # (5, 2 videos, 16, 16, filters)
    reactions.append(np.abs(insides[:, 0] - insides[:, 1]).mean(axis=-1))  # mean over filters
    return h, [h, c]


layer.step = step_and_note
states = shipped.initial_states(batch=2, height=64, width=64)
for n in range(16):
    _, states = shipped.step(digit_and_black[:, n], states)
del layer.step  # the class's own again

names = ["gate i", "gate f", "gate o", "memory c", "output h"]
rows = [("frame", digit[0, :16:2])]
for name, maps in zip(names, np.swapaxes(reactions, 0, 1)):  # maps: (16 frames, 16, 16)
    colours = plt.cm.magma(maps[::2] / maps.max())[..., :3]  # (8 frames, 16, 16, 3)
    rows.append((name, colours.repeat(4, axis=1).repeat(4, axis=2)))
strip(*rows)

# %% [markdown]
# Brighter means a larger difference, and each row has its own scale. Nearly all of it moves along
# with the digit: the layer's weights are the same at every place, so it answers alike wherever the
# digit is. Nobody tells it where that is. Before the first frame the memory $c$ is empty. From then
# on it holds what the input gate let in and the forget gate kept. So the layer, which is given one
# frame at a time, can know what came before. (In this model the measured motion tells it, too.)
#
# ## 11. Where the model thinks that things are going
#
# Before it sees the next frame, the model predicts a displacement for each block of 4 × 4 pixels,
# which is then refined for each pixel. Not one number: a probability for each of −4 … 4 pixels
# along either axis (digits move 3.6 pixels in a frame). `step_outputs` is a step that returns their
# logits, too.
#
# A displacement says where a pixel comes *from*. So the motion is its negative: +2 vertically is a
# pixel from two pixels further down, which moved up.

# %%
x, y = data.shift_frames(validation[[49]])  # chosen by hand: both digits bounce
radius = shipped.architecture.motion_radius
states = shipped.initial_states(batch=1, height=64, width=64)
figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for n in range(8):
    (predicted, logits), states = shipped.step_outputs(x[:, n], states)
    if n < 4:
        continue
    # Probabilities of -4 to 4 pixels, vertical and horizontal: (16, 16, 2, 9)
    expected = ops.softmax(ops.reshape(logits, (16, 16, 2, 2 * radius + 1)))
    measured = ops.reshape(motion.block_matching(y[:, n], x[:, n], radius), expected.shape)
    contrast = ops.convert_to_numpy(motion.contrast(predicted))[0, ..., 0]  # (16, 16)
    rows, columns = np.nonzero(contrast > 0.15)  # the blocks in which something is
    axis = axes[n - 4]
    axis.imshow(x[0, n], cmap="gray")
    for probability, colour, width in (measured, "cyan", 0.02), (expected, "darkorange", 0.008):
        displacement = ops.convert_to_numpy(probability) @ np.arange(-radius, radius + 1)  # mean
        down, right = -displacement[rows, columns].T  # pixels
        start = 4 * columns + 1.5 - right, 4 * rows + 1.5 - down
        scale = {"angles": "xy", "scale_units": "xy", "scale": 1}
        axis.quiver(*start, right, down, color=colour, width=width, **scale)
    axis.set(xlim=(15.5, 57.5), ylim=(63.5, 27.5), xticks=[], yticks=[], title=f"frame {n + 1}")
plt.show()

# %% [markdown]
# In orange: the motion that the model expects, the mean of the possible ones, weighted by their
# probabilities. An arrow ends where the pixels should be in the next frame. In cyan: what
# `block_matching` measures once that frame is there. Watch the lower edge. Where one displacement
# has nearly all the probability, the model is sure, and the pixels move as they are. Where several
# share it, the moved pixels are a mixture, and that is the blur.
#
# ## 12. Your turn
#
# 1. **Twenty frames ahead.** Take a video of 30 frames, `data.EvaluationVideos("validation",
#    frames=30)[[0]]`, make it floats by `data.to_float`, and forecast 20 of its frames from the
#    first ten by `models.rollout`. Up to which frame are the digits recognizable, and in their
#    places? Other videos differ.
# 2. **How much must it see?** Let `shipped` forecast from `contexts[:, -n:]` for `n` of 1, 2, 3
#    and 5. One frame tells what the digits look like, but not where they are going. How many are
#    enough?
# 3. **Teacher forcing.** Keep the errors from before by `before = scores`. Then put `config =
#    replace(config, teacher_forcing=True)` where section 5 changes hyperparameters, and run
#    sections 5 to 8 again. What does the closed loop bring?
# 4. **Nothing measured.** Take that line out again, and put `config = replace(config,
#    architecture=replace(config.architecture, motion_radius=0))` there. Now the layers must find
#    out by themselves how things move, and paint every pixel. Compare the errors.
# 5. **A film of your own.** Put one of at least 24 frames into the project's folder. `python
#    prepare.py film.mp4 film.prepared --size 64` prepares it, `python train.py --data film.prepared
#    --preset tiny --run runs/film` trains on it, and `python animate.py runs/film` leaves GIFs in
#    `outputs/`.
#
# Here the story ends. The rest asks why the last part of the error is so hard to get rid of.
#
# ## 13. More: frames taken apart into sprites
#
# A *sprite* is a small picture that moves as a whole, as in video games. Much of the error comes
# from digits that get in each other's way. Where they overlap, they look like one thing. But each
# moves as a whole, and that gives them away: shift a digit to its place in another frame, and none
# of its pixels is brighter than that frame's. So `sprites.decompose` begins with two copies of
# the first frame. From frame to frame it shifts each copy to where it fits best, and takes away
# whatever is brighter than the frame there: that did not move along. This is measured, not learned.
# (Wang and Adelson 1994; Jojic and Frey 2001.)

# %%
crossing = data.to_float(validation[[45]])[:, :10]  # chosen by hand: they cross in the fifth frame
parts, _ = sprites.decompose(crossing, count=2)
print("their maximum is the frame:", np.array_equal(parts.max(axis=1), crossing))
strip(("frame", crossing[0]), ("sprite 1", parts[0, 0]), ("sprite 2", parts[0, 1]))

# %% [markdown]
# Each sprite is now a video of its own, with one digit. The *same* model forecasts each of them,
# and the brighter pixel of both forecasts is taken. (A few of the videos that it was trained with
# had a single digit, too: `--single-digit-share`.) In the terminal:
# `python predict.py --sprites 2`. The strip shows the one of our videos that gains most.

# %%
by_sprites = sprites.rollout(lambda *part: models.rollout(shipped, *part), contexts, 10, count=2)
scores["with sprites"] = predict.score(truths, by_sprites)
gain = np.square(better - truths) - np.square(by_sprites - truths)
helped = gain.sum(axis=(1, 2, 3, 4)).argmax()  # the video that gains most
compare(truths[helped], ("frames", better[helped]), ("sprites", by_sprites[helped]))

# %% [markdown]
# Sprites assume bright things on black ground that keep their shapes and move as a whole. Moving
# MNIST is made so, and few real videos are. So sprites are off unless you ask for them.
#
# ## 14. More: where the rest of the error comes from
#
# Could a perfect forecaster have no error at all? No. A digit's place is rounded down to whole
# pixels before it is drawn. So ten frames do not tell its exact direction, and directions that look
# the same now lead to different places later. We draw 200,000 digits, look at one axis alone, and
# keep those that are at the same pixels as `pixels[9]` (chosen by hand) in all of the first ten
# frames. Nobody could tell them apart.

# %%
rng = np.random.default_rng(0)
starts, directions = rng.random(200_000), 2 * np.pi * rng.random(200_000)
pixels = (36 * data.bounce(starts, data.STEP * np.cos(directions), 20)).astype(int)
same = pixels[(pixels[:, :10] == pixels[9, :10]).all(axis=1)]  # (digits, 20 frames)

_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
axis.plot(range(1, 21), np.unique(same, axis=0).T)
axis.axvline(10.5, color="grey", linestyle=":")
axis.locator_params("x", integer=True)
axis.set(xlabel="frame", ylabel="place in pixels")
axis.set_title(f"{len(same)} digits, alike for ten frames")
plt.show()

# %% [markdown]
# The mean of all frames that are still possible is the forecast with the least expected squared
# error. Nobody can do better in the long run, and it is blurred, too.
#
# `benchmarks/floor.py` computes this mean for videos of two digits, taking their shapes and first
# ten places as known exactly. Its error is about **8.7**, the floor for every model.
# Between it and the shipped model stands `benchmarks/tracks.py`, with about **11.0**: a small
# network that has learned from a million simulated tracks how things move in Moving MNIST gets the
# measured places of both sprites ("told the law of motion", below), and never sees a pixel.

# %%
records = json.loads(Path("benchmarks/logs/records.json").read_text(encoding="utf-8"))
scores |= {"told the law of motion": records["tracks"], "floor": records["floor"]}
for name, score in scores.items():
    print(f"{name:27}{score['mean']['mse']:6.1f}")

# %% [markdown]
# So the shipped model's error has four parts. From "shipped" to "with **sprites**": to tell apart
# digits that get in each other's way. From there to "told the **law** of motion": to know speed and
# walls as exactly as the frames show them; the model has to learn that law from pixels, and its own
# blurred predictions become its inputs. From there to the **floor**: to measure the digits and use
# the law perfectly. And the floor itself: what the context does not tell. (The last two errors
# are of 1,000 test videos, from `benchmarks/logs`, and the others of our validation videos.)
