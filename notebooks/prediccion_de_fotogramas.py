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
# # ¿Y ahora qué pasa? Predicción de vídeo con ConvLSTM2D
#
# *[This notebook in English](next_frame_prediction.ipynb)*
#
# Un modelo ve diez fotogramas de un vídeo y predice los diez siguientes. Por el camino, este
# cuaderno enseña cómo son los datos, qué aprende de ellos un modelo, qué hace una capa ConvLSTM2D y
# qué aspecto tiene por dentro, cómo se entrena y hasta qué punto acierta.
#
# Aquí no se repite nada del código del proyecto. Cada celda llama a funciones de cinco archivos
# cortos, pensados para leerse en este orden: `data.py`, `model.py`, `train.py`, `predict.py` y
# `animate.py`. Los nombres del código y los mensajes de los programas están en inglés. Ejecutarlo
# todo lleva menos de cinco minutos con dos núcleos de CPU; no hace falta una GPU.
#
# La primera celda busca los archivos del proyecto. Si el cuaderno está solo, como ocurre en Colab,
# los descarga e instala lo que falte.

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

# Los archivos del proyecto van antes que Keras, porque preparan su backend.
import animate
import data
import model as models
import predict
import train

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, Image
from keras import ops

# Con TINY=1 en el entorno todo es pequeño: en un minuto se ve que todas las celdas funcionan.
TINY = os.environ.get("TINY") == "1"

# %% [markdown]
# ## 1. Moving MNIST
#
# Los vídeos se componen con los dígitos manuscritos de MNIST, de 28 × 28 píxeles. Dos de ellos se
# mueven sobre un cuadrado negro de 64 × 64 píxeles, cada uno a velocidad constante y en su propia
# dirección, y rebotan en las paredes. Donde se superponen, se ve el píxel más claro. Es un juguete,
# pero un juguete difícil: para predecirlo, el modelo tiene que averiguar, solo a partir de los
# fotogramas, qué objetos hay, adónde va cada uno y qué hace una pared.
#
# `data.make_videos` genera cuantos queramos. La misma semilla produce los mismos vídeos en
# cualquier ordenador.

# %%
digits = data.load_digits("train")
videos = data.make_videos(digits, count=6, seed=3)

print("dígitos:", digits.shape, digits.dtype)
print("vídeos:", videos.shape, videos.dtype, "(vídeos, fotogramas, alto, ancho, canales)")

# %% [markdown]
# Un vídeo es una pila de imágenes, así que lo mejor es verlo como GIF. Esta pequeña función lo
# muestra dentro del cuaderno; el trabajo lo hace `animate.write_gif`.


# %%
def play(pictures, description):
    """Muestra imágenes uint8 (fotogramas, alto, ancho, 3) como un GIF animado en el cuaderno."""
    with tempfile.TemporaryDirectory() as folder:
        animate.write_gif(Path(folder) / "pictures.gif", pictures)
        gif = animate.data_url("gif", (Path(folder) / "pictures.gif").read_bytes())
    return HTML(f'<img src="{gif}" alt="{description}">')


def beside_each_other(frames):
    """Fotogramas (vídeos, alto, ancho, canales) -> una sola imagen con todos."""
    return np.concatenate([data.enlarge(frame, 2, data.REAL_COLOUR) for frame in frames], axis=1)


pictures = [beside_each_other(videos[:, n]) for n in range(videos.shape[1])]
play(pictures, "Seis vídeos, cada uno con dos dígitos en movimiento")

# %% [markdown]
# ## 2. Conjuntos de entrenamiento y de validación
#
# Los vídeos de entrenamiento se generan a medida que hacen falta y nunca se repiten:
# `data.MovingMNIST` prepara un lote tras otro con los 60 000 dígitos de entrenamiento de MNIST. Así
# no hay nada que aprender de memoria, y cada lote depende únicamente de su número y de la semilla.

# %%
training = data.MovingMNIST(seed=0, batch_size=4, batches=250)
x, y = training[0]

print("un lote: x", x.shape, x.dtype, f"de {x.min():g} a {x.max():g}")
print("         y", y.shape)
print("el primer lote, si se pide otra vez, es el mismo:", np.array_equal(x, training[0][0]))
print("el segundo es igual que el primero:", np.array_equal(x, training[1][0]))

# %% [markdown]
# Con los vídeos de validación pasa lo contrario: son siempre los mismos 10 000, hechos con dígitos
# del conjunto de *prueba* de MNIST. El modelo nunca ha visto esa caligrafía. (Con la otra mitad de
# esos dígitos se forma un tercer conjunto, el de prueba, para la evaluación final).

# %%
COUNT = 3 if TINY else 50
validation = data.evaluation_videos("validation", np.arange(COUNT))
print("validación:", validation.shape, validation.dtype)

# %% [markdown]
# ## 3. La respuesta es el fotograma siguiente
#
# Nadie tiene que etiquetar nada: la respuesta correcta a «¿qué viene después del fotograma $n$?» es
# el fotograma $n + 1$. Por eso la entrada $x$ y el objetivo $y$ son el mismo vídeo, desplazado un
# fotograma. Estas son las líneas esenciales de `data.shift_frames`:
#
# ```python
# videos = to_float(videos)              # uint8 en 0..255 -> float32 en [0, 1]
# return videos[:, :-1], videos[:, 1:]   # x: fotogramas 1 a 19;  y: fotogramas 2 a 20
# ```
#
# Debajo de cada entrada (en gris) está su objetivo (en naranja). Cada objetivo es la entrada
# siguiente: basta con seguir uno hacia arriba y a la derecha.

# %%
x, y = data.shift_frames(videos)
print("x", x.shape, "  y", y.shape)
print("y[:, n] es x[:, n + 1]:", np.array_equal(y[:, :-1], x[:, 1:]))

inputs = [(frame, data.REAL_COLOUR) for frame in x[0, :8]]
targets = [(frame, data.PREDICTED_COLOUR) for frame in y[0, :8]]
data.film_strip([inputs, targets], ["x", "y"])

# %% [markdown]
# ## 4. ConvLSTM2D: una memoria con forma de imagen
#
# Un solo fotograma no dice hacia dónde va un dígito; para saberlo hace falta memoria. Una capa
# ConvLSTM2D (Shi et al., 2015) conserva dos estados de un fotograma a otro: la salida $h$ y la
# memoria $c$. Ambos son imágenes con varios canales, llamados filtros. Para cada fotograma $x_n$
# calcula
#
# $$\begin{aligned}
# i &= \sigma(W_i * [x_n, h_{n-1}] + b_i) & &\text{puerta de entrada: qué escribir} \\
# f &= \sigma(W_f * [x_n, h_{n-1}] + b_f) & &\text{puerta de olvido: qué conservar} \\
# o &= \sigma(W_o * [x_n, h_{n-1}] + b_o) & &\text{puerta de salida: qué mostrar} \\
# c_n &= f \odot c_{n-1} + i \odot \tanh(W_c * [x_n, h_{n-1}] + b_c) & &\text{la nueva memoria} \\
# h_n &= o \odot \tanh(c_n) & &\text{la nueva salida}
# \end{aligned}$$
#
# Es una LSTM en la que los productos son convoluciones ($*$). Cada píxel tiene su propia memoria y
# solo mira a sus vecinos, y todos los píxeles comparten los mismos pesos: lo que se aprende sobre
# el movimiento en una esquina vale en todas las demás. Las cuatro convoluciones tienen la misma
# entrada, así que se calculan como una sola con el cuádruple de filtros. De ahí el 32 de estas
# formas:

# %%
layer = models.ConvLSTM2D(filters=8, kernel_size=3)
frame = x[:1, 0]
states = layer.empty_states(batch=1, height=64, width=64)
h, states = layer.step(frame, states)

print("fotograma:", frame.shape, "(lote, alto, ancho, canales)")
print("h y c:", [tuple(state.shape) for state in states], "(lote, alto, ancho, filtros)")
for weight in layer.weights:
    print(f"{weight.name}:", tuple(weight.shape))

# %% [markdown]
# `model.py` apila estas capas. Primero unas convoluciones reducen el fotograma, porque un dígito es
# mayor que 3 × 3 píxeles; las capas trabajan a un octavo de su tamaño y, con lo que recuerdan, dicen
# cómo se va a mover lo que ven.
#
# ### Dos dígitos, dos láminas
#
# Dos dígitos superpuestos parecen uno solo. Pero cada uno se mueve entero, y eso los delata: nada de
# un dígito ha sido nunca más oscuro que lo que ahora se ve en su sitio. Por eso un `SheetForecaster`
# ve cada fotograma como dos láminas puestas una sobre otra. En el primero, ambas lo contienen todo.
# Después, cada lámina se mueve adonde mejor encaja debajo del fotograma siguiente y pierde lo que es
# más claro que él: lo que no la acompaña. Esto se mide, no se aprende. Unos fotogramas más tarde,
# cada lámina tiene un dígito, aunque se crucen:

# %%
sheets = np.zeros((1, 2, 64, 64, 1), "float32")  # (lote, láminas, alto, ancho, canales)
apart = []
for n in range(8):
    sheets, moved_by = models.separate(x[1:2, n], sheets, radius=4)
    apart.append(ops.convert_to_numpy(sheets)[0])

rows = [x[1, :8], [both[0] for both in apart], [both[1] for both in apart]]
data.film_strip(
    [[(frame, data.REAL_COLOUR) for frame in row] for row in rows],
    ["fotograma", "lámina 1", "lámina 2"],
)

# %% [markdown]
# Así, las capas ConvLSTM2D miran una sola cosa cada vez, como si cada lámina fuera otro vídeo, y
# dicen cómo se moverá. La predicción se compone de las láminas tal como se vieron por última vez, en
# los sitios previstos. Otro modelo, `Forecaster`, predice píxeles y sirve para vídeos en los que las
# cosas no se mueven enteras. Haya lo que haya dentro, cada modelo es un solo paso:
#
# ```python
# next_frame, states = model.step(frame, states)
# ```
#
# Este es el que vamos a entrenar. En `train.PRESETS` hay varios tamaños; este es el menor, con más
# épocas. Cada hiperparámetro es un campo de `train.Config`, con su comentario.

# %%
config = dataclasses.replace(train.PRESETS["tiny"], epochs=12)
if TINY:
    small = {"frames": 4, "context": 2, "steps_per_epoch": 2, "epochs": 2, "validation_videos": 2}
    config = dataclasses.replace(config, **small)

model = train.build_model(config)
print(f"{model.count_params():,} parámetros")
for layer, (h, c) in zip(model.conv_lstms, model.empty_states(1, 64, 64)["layers"]):
    print(f"{layer.name}: kernel {tuple(layer.cell.kernel.shape)}, h y c {tuple(h.shape)}")

# %% [markdown]
# ## 5. Dos minutos de entrenamiento
#
# ¿Cómo se entrena un modelo que tendrá que continuar a partir de sus propias predicciones? Si solo
# ve fotogramas reales (*teacher forcing*), nunca aprende a convivir con sus errores. Por eso lo
# entrenamos tal como se va a usar, en bucle cerrado: lee unos fotogramas reales y continúa a
# partir de sus propias predicciones. Al principio, la mayoría de estas se sustituyen por
# fotogramas reales; esa proporción va bajando hasta cero (*scheduled sampling*, Bengio et al.,
# 2015). Las líneas esenciales del método `read`
# del modelo, el que se ejecuta al llamar al modelo:
#
# ```python
# for n in range(videos.shape[1]):
#     frame = videos[:, n]
#     if real is not None and n > 0:
#         frame = ops.where(frame_is_real, frame, predictions[-1])
#     prediction, states = step(frame, states)
# ```
#
# `train.train` es lo que ejecuta `python train.py`. Deja una carpeta con los pesos, un registro,
# imágenes y todo lo necesario para continuar.

# %%
run = Path("runs") / time.strftime("notebook-%Y-%m-%d-%H%M%S")
train.train(config, run)

# %% [markdown]
# La curva mide predicciones de vídeos de validación: el error cuadrático (*MSE*) frente al número
# de vídeos de entrenamiento. El primer fotograma predicho (*first*) es el más fácil; el último
# (*last*) se apoya en todas las predicciones anteriores.

# %%
Image(run / "curve.png")

# %% [markdown]
# ## 6. Entran diez fotogramas, salen diez
#
# Ahora, un vídeo de validación al azar (con otra semilla, otro vídeo). El modelo lee los diez
# primeros fotogramas y predice diez más sin volver a ver ninguno real. Las líneas esenciales de
# `model.rollout`:
#
# ```python
# for n in range(frames + horizon - 1):
#     frame = context[:, n] if n < frames else predictions[-1]
#     inputs = {"frame": frame, "states": states}
#     prediction, states = model.compiled_step(inputs)  # model.step, compilado
#     if n >= frames - 1:
#         predictions.append(prediction)
# ```
#
# En la tira, *real* son los fotogramas reales y *predicted*, los predichos.

# %%
rng = np.random.default_rng(seed=11)
example = data.evaluation_videos("validation", rng.integers(data.EVALUATION_VIDEOS, size=1))
context, truth = data.to_float(example[:, :10]), data.to_float(example[:, 10:])

trained_here = train.load_model(run)
prediction = models.rollout(trained_here, context, horizon=10)
print("contexto", context.shape, "-> predicción", prediction.shape)
data.forecast_strip(context, truth, prediction)

# %% [markdown]
# Se mueve, y cuanto más lejos, más borroso. Lo borroso tiene su razón: el error se eleva al cuadrado, y quien duda
# entre dos sitios sale mejor parado si pone medio dígito en cada uno.
#
# El proyecto incluye los pesos de un modelo mayor, entrenado durante más tiempo. Aquí están los
# dos, debajo de los fotogramas reales y con sus errores: en naranja donde la predicción es
# demasiado clara y en azul donde es demasiado oscura.

# %%
shipped = train.load_model(predict.SHIPPED)
print(f"{trained_here.count_params():,} y {shipped.count_params():,} parámetros")


def strip(real, predictions):
    """Una tira de fotogramas reales y, debajo, lo que se predijo: {etiqueta: fotogramas}."""
    rows = [[(frame, data.REAL_COLOUR) for frame in real]]
    for frames in predictions.values():
        rows.append([(frame, data.PREDICTED_COLOUR) for frame in frames])
    return data.film_strip(rows, ["real", *predictions])


better = models.rollout(shipped, context, horizon=10)
strip(
    truth[0],
    {
        "el nuestro": prediction[0],
        "error": animate.error_map(truth[0], prediction[0]),
        "el incluido": better[0],
        "su error": animate.error_map(truth[0], better[0]),
    },
)

# %% [markdown]
# ## 7. Cuánto se equivoca, y cuándo
#
# Un solo vídeo no demuestra nada, así que hagamos lo mismo con muchos. `models.rollout` predice
# cualquier número de vídeos, y `predict.score` compara el resultado con los fotogramas reales. El
# MSE es el error cuadrático sumado sobre los píxeles de un fotograma; el SSIM compara estructuras,
# y 1 significa que las imágenes son iguales. Un modelo que valga algo tiene que superar a quien se
# limita a copiar el último fotograma que vio.

# %%
contexts, truths = data.to_float(validation[:, :10]), validation[:, 10:]
forecasts = {
    "entrenado aquí": models.rollout(trained_here, contexts, 10),
    "incluido": models.rollout(shipped, contexts, 10),
    "copiar el último fotograma": np.repeat(contexts[:, -1:], 10, axis=1),
}
scores = {name: predict.score(truths, forecast) for name, forecast in forecasts.items()}
for name, score in scores.items():
    print(f"{name}: MSE {score['mean']['mse']:.1f}, SSIM {score['mean']['ssim']:.3f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for name, score in scores.items():
    axes[0].plot(range(1, 11), score["mse"], marker=".", label=name)
    axes[1].plot(range(1, 11), score["ssim"], marker=".", label=name)
axes[0].set(xlabel="fotograma predicho", title="MSE (mejor cuanto más bajo)", ylim=(0, None))
axes[1].set(xlabel="fotograma predicho", title="SSIM (mejor cuanto más alto)")
axes[0].legend()
plt.show()

# %% [markdown]
# El error crece con cada fotograma, porque una dirección ligeramente equivocada lleva cada vez más
# lejos. Las dos medidas no siempre coinciden: el
# SSIM castiga lo borroso, y puede preferir una copia nítida en el lugar equivocado a una predicción
# borrosa en el correcto.
#
# ## 8. En movimiento
#
# Cuatro vídeos de validación: el real (*real*) a la izquierda y la predicción del modelo incluido a
# la derecha. Los dos lados muestran primero el mismo contexto (*context*), con borde gris; con el
# borde naranja empieza la predicción (*predicted*).

# %%
pictures = [
    animate.side_by_side(contexts[n], truths[n], forecasts["incluido"][n])
    for n in range(min(4, COUNT))
]
HTML("".join(play(video, "Vídeo real junto al predicho").data for video in pictures))

# %% [markdown]
# ## 9. ¿Cuánto necesita ver?
#
# Todas estas predicciones son de los mismos diez fotogramas. Lo que cambia es cuántos vio el modelo
# justo antes. Con uno solo se sabe cómo son los dígitos y dónde están, pero no adónde van.

# %%
FEW = 2 if TINY else 20
lengths = [1, 10] if TINY else [1, 2, 3, 5, 10]
fewer = {n: models.rollout(shipped, contexts[:FEW, -n:], 10) for n in lengths}
strip(truths[0], {f"con {n}": forecast[0] for n, forecast in fewer.items()})

# %%
errors = [predict.score(truths[:FEW], forecast)["mean"]["mse"] for forecast in fewer.values()]
figure, axis = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
axis.plot(lengths, errors, marker="o", color="tab:orange")
axis.set(xlabel="fotogramas que vio el modelo", ylabel="MSE de los diez siguientes", ylim=(0, None))
axis.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## 10. Una imagen que favorece y otra que dice la verdad
#
# Muchas demostraciones enseñan predicciones como las de la segunda fila: cada una se hizo a partir
# de los fotogramas *reales* anteriores. Eso es *teacher forcing*. El resultado es vistoso, porque
# el modelo nunca tiene que mirar más allá de un fotograma. La cuarta fila es una predicción de
# verdad de los mismos fotogramas, con los mismos pesos. Compara la última columna y, ante
# cualquier imagen de un vídeo predicho, pregúntate cuál de las dos es.

# %%
x, _ = data.shift_frames(validation[:FEW])
teacher_forced = ops.convert_to_numpy(shipped(x))[:, 9:]
rolled_out = forecasts["incluido"][:FEW]
strip(
    truths[0],
    {
        "con reales": teacher_forced[0],
        "error": animate.error_map(truths[0], teacher_forced[0]),
        "predicho": rolled_out[0],
        "su error": animate.error_map(truths[0], rolled_out[0]),
    },
)

# %%
figure, axis = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
for name, forecast in [("con fotogramas reales", teacher_forced), ("predicción", rolled_out)]:
    axis.plot(range(1, 11), predict.score(truths[:FEW], forecast)["mse"], marker=".", label=name)
axis.set(xlabel="fotograma predicho", ylabel="MSE", ylim=(0, None))
axis.grid(alpha=0.3)
axis.legend()
plt.show()

# %% [markdown]
# ## 11. Una capa ConvLSTM2D por dentro
#
# ¿Qué hacen las puertas cuando pasa un dígito? Dejamos que el modelo incluido vea dos vídeos a la
# vez, uno con un solo dígito y otro completamente negro, y anotamos lo que ocurre en su primera
# capa ConvLSTM2D, que trabaja con 8 × 8 lugares. Toda diferencia entre los dos es la reacción de la
# capa al dígito. (Para el modelo, cada vídeo son dos láminas. Miramos la primera de cada uno.)
#
# Las puertas se calculan con los pesos de la capa, exactamente como en las fórmulas de arriba.

# %%
digit = data.to_float(data.evaluation_videos("validation", [3], digits_per_video=1))
both = np.concatenate([digit, np.zeros_like(digit)])
layer = shipped.conv_lstms[0]
reactions = []


def step_and_note(x, states):
    """El paso de la propia capa, y una nota de cuánto difiere por dentro entre los dos vídeos."""
    kernel, recurrent_kernel, bias = layer.weights
    x_part = ops.conv(ops.cast(x, "float32"), kernel, padding="same")
    h_part = ops.conv(ops.cast(states[0], "float32"), recurrent_kernel, padding="same")
    input_gate, forget_gate, _, output_gate = ops.split(
        ops.sigmoid(x_part + h_part + bias), 4, axis=-1
    )
    h, (_, c) = type(layer).step(layer, x, states)
    insides = [input_gate, forget_gate, output_gate, c, h]  # cada uno (4, alto, ancho, filtros)
    insides = np.stack([ops.convert_to_numpy(ops.cast(part, "float32")) for part in insides])
    reactions.append(np.abs(insides[:, 0] - insides[:, 2]).mean(axis=-1))  # media de los filtros
    return h, [h, c]


layer.step = step_and_note
states = shipped.empty_states(2, 64, 64)
for n in range(16):
    _, states = shipped.step(both[:, n], states)
del layer.step

# %%
names = ["fotograma", "entrada", "olvido", "salida", "memoria c", "salida h"]
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
# Compara las filas. En el primer fotograma, las puertas responden donde está el dígito. Después,
# casi en todas partes, porque a cada lugar se le dice cómo se ha movido hasta ahora su lámina, y una
# lámina negra no se ha movido. La memoria *c* estaba vacía antes del primer fotograma; se va
# llenando a medida que pasan los demás y permanece cuando las puertas se han calmado. Así es como
# una capa que ve un solo fotograma cada vez puede conocer una dirección.
#
# ## 12. Ahora te toca a ti
#
# 1. **Veinte fotogramas.** Genera vídeos de 30 fotogramas con
#    `data.evaluation_videos("validation", [0], frames=30)` y llama a `models.rollout` con
#    `horizon=20`. ¿Cuándo deja de ser una predicción? En la terminal:
#    `python animate.py --horizon 20`.
# 2. **Tres dígitos.** Dale al modelo incluido vídeos con `digits_per_video=3`, que nunca ha visto.
#    Después, entrena con `dataclasses.replace(config, digits_per_video=3, sheets=3)`. En la
#    terminal, a partir de los pesos incluidos: `python train.py --init assets/forecaster.keras
#    --digits-per-video 3 --sheets 3 --run runs/three`.
# 3. **Tu propio vídeo.** Sirve cualquier vídeo en gris como array de NumPy `(vídeos, fotogramas,
#    alto, ancho)`, uint8 o decimales en [0, 1], con alto y ancho divisibles por 8. Guárdalo con
#    `np.save("clip.npy", clip)` y ejecuta `python animate.py --data clip.npy`. ¿Qué entiende de él
#    un modelo que solo conoce dígitos?
# 4. **La otra capa.** En la sección 11, cambia `shipped.conv_lstms[0]` por `[1]`. ¿Cuál de las dos
#    recuerda durante más tiempo?
# 5. **Teacher forcing.** Entrena con `dataclasses.replace(config, teacher_forcing=True)` y vuelve a
#    dibujar la sección 7. ¿Qué parte de la diferencia se debe a entrenar en bucle cerrado?
# 6. **Píxeles.** Entrena con `dataclasses.replace(config, model="forecaster")` y vuelve a dibujar la
#    sección 6. ¿Dónde son borrosas sus predicciones, y no las de las láminas?
