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
# Un modelo ve diez fotogramas de un vídeo y predice los diez siguientes. Este cuaderno cuenta cómo:
# de qué están hechos los datos, qué hace una capa ConvLSTM2D, cómo se entrena un modelo, hasta qué
# punto acierta, qué ocurre en su interior y por qué cuesta tanto eliminar la última parte del
# error.
#
# Aquí no se vuelve a programar el modelo: las celdas llaman a funciones de cinco archivos
# (`data.py`, `model.py`, `train.py`, `predict.py` y `animate.py`, que conviene leer en ese orden) y
# a algunas de la carpeta `extras`. Los nombres del código y los mensajes de los programas están en
# inglés. Ejecutarlo todo lleva unos cinco minutos con dos núcleos de CPU; no hace falta una GPU.
#
# La primera celda busca esos archivos. Si más adelante Python no encuentra algún paquete, ejecuta
# `%pip install -r requirements.txt` en una celda aparte y reinicia el kernel.

# %%
import os
import sys
from pathlib import Path

places = [Path("."), Path(".."), *Path(".").iterdir()]
root = next((place for place in places if (place / "extras" / "motion.py").exists()), None)
if root is None:
    sys.exit(
        "Faltan los archivos del proyecto: copia su carpeta entera a este equipo y abre el cuaderno "
        "que hay en ella. En Colab, súbela como ZIP, ejecuta !unzip NOMBRE.zip y repite esta celda."
    )
os.chdir(root)
sys.path.insert(0, os.getcwd())

# %%
import dataclasses
import tempfile
import time

# Los archivos del proyecto van antes que Keras, porque preparan el entorno de Keras.
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

# QUICK=1 en el entorno sirve para comprobar en un minuto que todas las celdas funcionan.
QUICK = os.environ.get("QUICK") == "1"

# %% [markdown]
# ## 1. Moving MNIST
#
# Los vídeos se componen con los dígitos manuscritos de MNIST, de 28 × 28 píxeles. Dos de ellos se
# mueven por un cuadrado negro de 64 × 64 píxeles. Cada uno lleva su propia dirección, mantiene la
# velocidad y rebota en las paredes. (Lo que rebota es el cuadro de 28 × 28, y el dígito no lo
# llena: por eso parece dar la vuelta un poco antes de la pared). Donde se superponen, se ve el
# píxel más claro. Es un problema de juguete, pero nada fácil: solo a partir de los fotogramas, el
# modelo tiene que averiguar qué objetos hay, hacia dónde va cada uno y qué hace una pared.
#
# `data.make_videos` genera cuantos queramos. La misma semilla produce los mismos vídeos en
# cualquier ordenador.

# %%
digits = data.load_digits("train")
videos = data.make_videos(digits, count=6, seed=3)

print("dígitos:", digits.shape, digits.dtype)
print("vídeos:", videos.shape, videos.dtype, "(vídeos, fotogramas, alto, ancho, canales)")

# %% [markdown]
# Para ver un vídeo dentro del cuaderno, lo más cómodo es un GIF. Esta pequeña función lo muestra.


# %%
def play(frames, description):
    """Muestra imágenes uint8 (fotogramas, alto, ancho, 3) como un GIF animado en el cuaderno."""
    with tempfile.TemporaryDirectory() as folder:
        animate.write_gif(Path(folder) / "video.gif", frames)
        gif = page.data_url("gif", (Path(folder) / "video.gif").read_bytes())
    return HTML(f'<img src="{gif}" alt="{description}">')


def in_a_row(frames):
    """Fotogramas (vídeos, alto, ancho, canales) -> una sola imagen con todos."""
    tiles = [pictures.enlarge(frame, 2, pictures.REAL_COLOUR) for frame in frames]
    return np.concatenate(tiles, axis=1)


play(
    [in_a_row(videos[:, n]) for n in range(20)],
    "Seis vídeos, cada uno con dos dígitos que se mueven",
)

# %% [markdown]
# ## 2. Tres conjuntos de datos
#
# Los vídeos de **entrenamiento** se generan a medida que hacen falta, con los 60 000 dígitos de
# entrenamiento de MNIST, y nunca se repiten. Así no hay vídeos que aprender de memoria. Cada lote
# depende únicamente de la semilla, de la época y de su número.

# %%
training = data.MovingMNIST(seed=0, batch_size=4, batches=250)
x, y = training[0]

print("un lote: x", x.shape, x.dtype, f"de {x.min():g} a {x.max():g}")
print("         y", y.shape)
print("el primer lote, si se pide otra vez, es el mismo:", np.array_equal(x, training[0][0]))
print("el segundo lote es igual que el primero:", np.array_equal(x, training[1][0]))

# %% [markdown]
# Los vídeos de **validación** son siempre los mismos 10 000. Están hechos con la mitad de los
# dígitos de *prueba* de MNIST, una caligrafía que ningún modelo ha visto al entrenarse. Salvo que
# se diga otra cosa, los modelos de este cuaderno se juzgan con algunos de ellos. El conjunto de
# **prueba**, reservado para la evaluación final, se forma del mismo modo con la otra mitad de esos
# dígitos. Los vídeos de ambos se crean en el momento en que se piden, por su índice:

# %%
validation = data.EvaluationVideos("validation")
examples = validation[np.arange(3 if QUICK else 40)]

print(f"{len(validation)} vídeos de validación; los primeros:", examples.shape, examples.dtype)

# %% [markdown]
# ## 3. La respuesta es el fotograma siguiente
#
# Nadie tiene que etiquetar nada. ¿Qué viene después del fotograma $n$? La respuesta correcta es el
# fotograma $n + 1$, y está en el propio vídeo. Por eso la entrada $x$ y el objetivo $y$ son el
# mismo vídeo, desplazado un fotograma. Estas son las líneas esenciales de `data.shift_frames`:
#
# ```python
# videos = to_float(videos)              # uint8 en 0..255 -> float32 en [0, 1]
# return videos[:, :-1], videos[:, 1:]   # x: fotogramas 1 a 19;  y: fotogramas 2 a 20
# ```
#
# En la imagen, cada entrada (con borde gris) está encima de su objetivo (con borde naranja). La
# entrada que está arriba a la derecha de cada objetivo (salvo del último) es ese mismo fotograma.

# %%
x, y = data.shift_frames(videos)
print("x", x.shape, "  y", y.shape)
print("y[:, n] es x[:, n + 1]:", np.array_equal(y[:, :-1], x[:, 1:]))

inputs = [(frame, pictures.REAL_COLOUR) for frame in x[0, :7]]
targets = [(frame, pictures.PREDICTED_COLOUR) for frame in y[0, :7]]
pictures.film_strip([inputs, targets], ["entrada x", "objetivo y"], scale=2)

# %% [markdown]
# ## 4. ConvLSTM2D: una memoria con forma de imagen
#
# Un solo fotograma no dice hacia dónde va un dígito. Para saberlo hace falta memoria. Una capa
# ConvLSTM2D (Shi et al., 2015) conserva dos estados de un fotograma al siguiente: su salida $h$ y
# su memoria $c$. Ambos son imágenes con varios canales, uno por cada filtro. Para cada fotograma
# $x_n$ calcula, con $\sigma$ la sigmoide, $[x, h]$ la concatenación de los canales de ambos y
# $\odot$ el producto píxel a píxel:
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
# solo mira a sus vecinos. Todos los píxeles comparten los mismos pesos, así que lo que se aprende
# sobre el movimiento en una esquina vale en cualquier otra parte de la imagen.
#
# Las cuatro convoluciones leen la misma entrada, de modo que se calculan como una sola con el
# cuádruple de filtros. Por eso, con 8 filtros, la última dimensión de los núcleos (*kernels*) es
# 32. Keras guarda por separado el núcleo que lee $x$ y el que lee $h$; `step` los une:

# %%
layer = models.ConvLSTM2D(filters=8, kernel_size=3)
states = layer.initial_states(batch=1, height=64, width=64)
for n in range(3):
    h, states = layer.step(x[:1, n], states)  # fotograma a fotograma

print("fotograma:", x[:1, 0].shape, "(lote, alto, ancho, canales)")
print("h y c:", [tuple(state.shape) for state in states], "(lote, alto, ancho, filtros)")
for weight in layer.weights:
    print(f"{weight.name}:", tuple(weight.shape))
keras_says = ops.convert_to_numpy(layer(x[:1, :3]))  # la capa de Keras, con los mismos fotogramas
print("la capa de Keras dice lo mismo:", np.allclose(h, keras_says, atol=1e-5))

# %% [markdown]
# ## 5. Una pila de capas
#
# Con cada fotograma, una capa con núcleos de 3 × 3 solo alcanza a ver un píxel más lejos. Por eso
# se apilan varias capas: cada una lee la salida de la anterior. El modelo más sencillo de este
# proyecto, `KerasExample`, es casi el ejemplo de la web de Keras: tres capas y una convolución que
# pinta el fotograma siguiente. (Allí la última convolución ve también el fotograma que hay que
# predecir; aquí no). Este es su paso, en el que `norms` son capas BatchNormalization:
#
# ```python
# x, first_state = first.step(frame, states[0])  # (lote, alto, ancho, filtros)
# x, second_state = second.step(self.norms[0](x, training=training), states[1])
# x, third_state = third.step(self.norms[1](x, training=training), states[2])
# return self.paint_head(x), [first_state, second_state, third_state]
# ```
#
# Nosotros entrenaremos el otro modelo, `Forecaster`, que se diferencia en tres cosas.
#
# **Tiene forma de U.** Unas convoluciones reducen el fotograma, para que las capas abarquen más y
# requieran menos cálculo; después se recorre el camino inverso.
#
# ```text
# fotograma 64×64                                     fotograma siguiente 64×64
#    ↓ convolución                                                  ↑
#    32×32 ─────────────────────────────────────────────────────→ 32×32
#       ↓ convolución                                            ↑
#       16×16 capas ConvLSTM2D ─────────────────────→ 16×16 capas ConvLSTM2D
#          ↓ convolución                                 ↑
#          8×8 capas ConvLSTM2D ─────────────────────────┘
# ```
#
# En la fila de 16 × 16, lo que sube de 8 × 8 se suma a lo que ya había; en la de 32 × 32, los
# canales se concatenan. Dentro de cada pila, cada capa *suma* su salida a lo que recibe de la
# anterior (una conexión residual), y así es tan fácil entrenar muchas capas como pocas (`norm` es
# una capa LayerNormalization):
#
# ```python
# for norm, conv_lstm, state in zip(self.norms, self.conv_lstms, states):
#     h, state = conv_lstm.step(norm(x), state)
#     x = x + h
# ```
#
# **Da dos respuestas.** Casi todo el fotograma siguiente es el actual, desplazado. Por eso una de
# las salidas dice de dónde viene cada píxel, y los píxeles se desplazan (`motion.warp`). La otra
# pinta el fotograma desde cero. Una puerta, entre 0 y 1, mezcla las dos píxel a píxel:
#
# ```python
# next_frame = gate * moved + (1 - gate) * painted
# ```
#
# **Recibe una medida de cómo se ha movido todo hasta ahora.** Para cada bloque de 4 × 4 píxeles,
# `motion.block_matching` mide cuánto se ha movido desde el fotograma anterior, como hacen los
# códecs de vídeo. También se recuerda lo medido en fotogramas anteriores, y ese recuerdo se
# desplaza junto con los objetos. Nada de esto se aprende. De lo que pasará *después* se encargan
# las capas que sí aprenden.
#
# Tenga lo que tenga dentro, cada modelo es un solo paso:
#
# ```python
# next_frame, states = model.step(frame, states)
# ```
#
# En `train.PRESETS` hay varios tamaños. Vamos a entrenar el más pequeño, `tiny`, con 1200 vídeos;
# solo tiene una capa ConvLSTM2D, la de 8 × 8. El proyecto trae además los pesos de un modelo mayor,
# entrenado en una GPU con 240 000 vídeos. Lo llamaremos «el incluido», y también nos va a hacer
# falta. Cada hiperparámetro es un campo de `train.Config` o, si es de las capas, de
# `config.architecture` (`Architecture`, en `model.py`); en el código, la explicación está debajo de
# cada campo.

# %%
config = train.PRESETS["tiny"]
if QUICK:
    small = {"frames": 4, "context": 2, "steps_per_epoch": 2, "epochs": 2, "validation_videos": 2}
    config = dataclasses.replace(config, **small)

model = train.build_model(config)
shipped = runs.load_model(runs.SHIPPED)

for name, forecaster in {"tiny": model, "incluido": shipped}.items():
    print(f"{name}: {forecaster.count_params() / 1e6:.2f} millones de parámetros")
    states = forecaster.initial_states(batch=1, height=64, width=64)
    for part in ("down", "coarse", "up"):
        for h, c in states[part]:
            print(f"   una capa ConvLSTM2D en stack_{part}: h y c", tuple(h.shape))

# %% [markdown]
# ## 6. El entrenamiento
#
# El modelo tendrá que continuar a partir de sus propias predicciones. Si al entrenarse solo ve
# fotogramas reales (*teacher forcing*), nunca aprende a convivir con sus errores. Por eso se
# entrena tal como se va a usar, en bucle cerrado: lee unos fotogramas reales y continúa a partir de
# lo que él mismo predice. Al principio, casi todas esas predicciones se sustituyen por fotogramas
# reales; la proporción va bajando hasta cero (muestreo programado o *scheduled sampling*, Bengio et
# al., 2015). `real_mask` dice en qué posiciones se lee el fotograma real; en cuanto el modelo
# recibe una predicción propia, sigue solo hasta el final. Estas son las líneas esenciales del
# método `unroll` del modelo:
#
# ```python
# for n in range(videos.shape[1]):
#     frame = videos[:, n]  # (lote, alto, ancho, canales)
#     if real_mask is not None and n > 0:
#         is_real = ops.reshape(real_mask[:, n], (-1, 1, 1, 1))
#         frame = ops.where(is_real, frame, predictions[-1])
#     prediction, states = step(frame, states)
#     predictions.append(prediction)
# ```
#
# La función de pérdida es el error cuadrático, sumado sobre todos los píxeles de un fotograma (en
# las figuras, MSE). Un segundo término, de menor peso, compara el movimiento predicho con el que se
# mide después en el vídeo real. El optimizador Muon ajusta los núcleos de las capas ocultas, y
# Adam, los demás pesos (`extras/optimizer.py`).
#
# Para ir deprisa, `tiny` se entrena con vídeos de 12 fotogramas: lee seis (el *contexto*) y predice
# seis. Después puede leer y predecir cuantos hagan falta, porque lo único que ha aprendido es a dar
# un paso.
#
# En la terminal, `python train.py --preset tiny` llama a esta misma función, `train.train` (esta
# orden y las demás se ejecutan desde la carpeta del proyecto). La función deja una carpeta con los
# pesos, un registro, imágenes y todo lo necesario para reanudar el entrenamiento. En la barra,
# `frames_loss` es el error medio de las 11 predicciones, incluidas las del contexto; `motion_loss`,
# el del movimiento; `loss`, la suma de `frames_loss` y 0.1 × `motion_loss`; `val_mse`, el error de
# las 6 predicciones que siguen al contexto, en vídeos de validación y con una media móvil de los
# pesos.

# %%
run = Path("runs") / time.strftime("notebook-%Y-%m-%d-%H%M%S")
train.train(config, run)

# %% [markdown]
# Al final de cada época se predicen vídeos de validación. El primer fotograma predicho es el más
# fácil. El último se apoya en todas las predicciones anteriores.


# %%
def curves(lines, horizontal, title):
    """Dibuja una línea por cada {etiqueta: (valores horizontales, errores)}; cuanto más bajo, mejor."""
    _, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for label, line in lines.items():
        axis.plot(*line, marker=".", label=label)
    axis.set(xlabel=horizontal, ylabel="MSE (suma sobre los píxeles)", title=title, ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    plt.show()


log = runs.read_log(run, config.epochs)
trained_on = [int(row["videos"]) for row in log]
columns = {
    "último fotograma predicho": "val_mse_last_frame",
    "media de los fotogramas predichos": "val_mse",
    "primer fotograma predicho": "val_mse_first_frame",
}
lines = {
    label: (trained_on, [float(row[column]) for row in log]) for label, column in columns.items()
}
curves(lines, "vídeos de entrenamiento", "Predicciones de vídeos de validación")

# %% [markdown]
# ## 7. Entran diez fotogramas, salen diez
#
# Ahora, un vídeo de validación al azar (si cambias la semilla, sale otro). El modelo lee diez
# fotogramas y predice diez más sin volver a ver ninguno real. Las líneas esenciales de
# `model.rollout`:
#
# ```python
# for n in range(frames + horizon - 1):
#     frame = context[:, n] if n < frames else predictions[-1]  # (lote, alto, ancho, canales)
#     prediction, states = step({"frame": frame, "states": states})
#     if n >= frames - 1:
#         predictions.append(prediction)
# ```

# %%
number = np.random.default_rng(seed=0).integers(len(validation))
example = data.to_float(validation[[number]])  # la lista conserva el eje de los vídeos
context, truth = example[:, :10], example[:, 10:]

trained_here = runs.load_model(run)  # best.keras: los pesos con el menor val_mse
prediction = models.rollout(trained_here, context, horizon=10)
print("contexto", context.shape, "-> predicción", prediction.shape)
pictures.forecast_strip(context, truth, prediction, labels=("real", "predicción"))

# %% [markdown]
# Cuanto más lejano en el tiempo, más borroso. Y tiene su explicación: el error se eleva al
# cuadrado, así que, si un dígito puede estar en dos sitios, lo que da menos error es dibujarlo en
# los dos, a media intensidad.
#
# Aquí están nuestro modelo y el incluido, cada uno con su error: en naranja, donde la predicción es
# demasiado clara; en azul, donde es demasiado oscura.


# %%
def strip(real, *predicted):
    """Una tira de fotogramas reales y, debajo, lo predicho: pares (etiqueta, fotogramas)."""
    rows = [[(frame, pictures.REAL_COLOUR) for frame in real]]
    for _, frames in predicted:
        rows.append([(frame, pictures.PREDICTED_COLOUR) for frame in frames])
    return pictures.film_strip(rows, ["real", *(label for label, _ in predicted)])


better = models.rollout(shipped, context, horizon=10)
strip(
    truth[0],
    ("el nuestro", prediction[0]),
    ("error", pictures.error_map(truth[0], prediction[0])),
    ("el incluido", better[0]),
    ("error", pictures.error_map(truth[0], better[0])),
)

# %% [markdown]
# ## 8. Cuánto se equivoca y cuándo
#
# Un solo vídeo no demuestra nada. `predict.score` compara muchas predicciones con los fotogramas
# reales. El MSE es el error cuadrático, sumado sobre todos los píxeles de un fotograma (la M es de
# *media*, pero los artículos sobre Moving MNIST lo dan así). El SSIM compara estructuras; 1
# significa que las imágenes son iguales. Un modelo que valga algo tiene que equivocarse menos que
# la simple copia del último fotograma. (El SSIM castiga sobre todo el velo gris que `tiny` deja en
# el fondo negro: por eso ahí queda por debajo de la copia).

# %%
contexts, truths = data.to_float(examples[:, :10]), examples[:, 10:]
forecasts = {
    "entrenado aquí": models.rollout(trained_here, contexts, 10),
    "incluido": models.rollout(shipped, contexts, 10),
    "copiar el último fotograma": data.copy_last(contexts, 10),
}
scores = {name: predict.score(truths, forecast) for name, forecast in forecasts.items()}
for name, score in scores.items():
    print(f"{name}: MSE {score['mean']['mse']:.1f}, SSIM {score['mean']['ssim']:.3f}")

ahead = range(1, 11)
lines = {name: (ahead, score["mse"]) for name, score in scores.items()}
curves(lines, "fotograma predicho", "Tres predicciones de los mismos vídeos")

# %% [markdown]
# El error crece con cada fotograma: una dirección ligeramente equivocada aleja el dígito cada vez
# más de su sitio. El MSE del modelo entrenado aquí no es su `val_mse`: ahora lee y predice diez
# fotogramas en lugar de seis, y los vídeos son otros.
#
# Cuatro de estos vídeos, con el real a la izquierda y la predicción del modelo incluido a la
# derecha. Los dos lados muestran primero el mismo contexto, con borde gris. Cuando el borde de la
# derecha se vuelve naranja, empieza la predicción.

# %%
animations = [
    animate.side_by_side(
        contexts[n], truths[n], forecasts["incluido"][n], words=("real", "contexto", "predicción")
    )
    for n in range(min(4, len(examples)))
]
HTML("".join(play(video, "Vídeo real junto al predicho").data for video in animations))

# %% [markdown]
# ## 9. Una imagen que favorece y otra que dice la verdad
#
# Muchas demostraciones enseñan predicciones como las de la segunda fila de la figura siguiente.
# Cada una se hizo a partir de los fotogramas *reales* anteriores (*teacher forcing*): el modelo
# nunca tiene que adelantarse más de un fotograma. En la cuarta fila se predicen los mismos
# fotogramas con los mismos pesos, pero en cadena, es decir, en bucle cerrado: a partir de las
# propias predicciones. Compara las últimas columnas y, ante cualquier imagen de un vídeo predicho,
# pregúntate cuál de las dos estás viendo.

# %%
FEW = 2 if QUICK else 16
x, _ = data.shift_frames(examples[:FEW])
teacher_forced = ops.convert_to_numpy(shipped(x))[:, 9:]  # predicciones de los fotogramas 11 a 20
rolled_out = forecasts["incluido"][:FEW]
strip(
    truths[0],
    ("con reales", teacher_forced[0]),
    ("error", pictures.error_map(truths[0], teacher_forced[0])),
    ("en cadena", rolled_out[0]),
    ("error", pictures.error_map(truths[0], rolled_out[0])),
)

# %%
both = {"en cadena": rolled_out, "con fotogramas reales": teacher_forced}
errors = {name: predict.score(truths[:FEW], frames)["mse"] for name, frames in both.items()}
lines = {name: (ahead, values) for name, values in errors.items()}
curves(lines, "fotograma predicho", "El mismo modelo, los mismos fotogramas")

# %% [markdown]
# ## 10. Una capa ConvLSTM2D por dentro
#
# ¿Qué hacen las puertas cuando pasa un dígito? El modelo incluido ve dos vídeos a la vez: uno con
# un solo dígito y otro completamente negro. Anotamos lo que ocurre en su primera capa ConvLSTM2D,
# que trabaja en una cuadrícula de 16 × 16. Toda diferencia entre lo que ocurre con uno y con otro
# se debe al dígito. Las puertas se calculan con los pesos de la capa, igual que en las fórmulas de
# la sección 4.

# %%
single_digits = data.EvaluationVideos("validation", digits_per_video=1)
digit = data.to_float(single_digits[[3]])  # elegido a mano: rebota en el borde izquierdo
digit_and_black = np.concatenate([digit, np.zeros_like(digit)])
layer = shipped.stack_down.conv_lstms[0]
reactions = []


def step_and_note(x, states):
    """Da el paso de la propia capa y anota cuánto difiere su interior entre los dos vídeos."""
    kernel, recurrent_kernel, bias = layer.weights
    gates = ops.conv(x, kernel, padding="same")
    gates = gates + ops.conv(states[0], recurrent_kernel, padding="same") + bias
    input_gate, forget_gate, _, output_gate = ops.split(ops.sigmoid(gates), 4, axis=-1)
    h, (_, c) = type(layer).step(layer, x, states)
    insides = [input_gate, forget_gate, output_gate, c, h]  # cada uno (2 vídeos, 16, 16, filtros)
    insides = np.stack([ops.convert_to_numpy(part) for part in insides])
    reactions.append(np.abs(insides[:, 0] - insides[:, 1]).mean(axis=-1))  # media de los filtros
    return h, [h, c]


layer.step = step_and_note
shipped.unroll(digit_and_black[:, :16])
del layer.step  # vuelve a valer el de la clase

names = [
    "fotograma",
    "puerta de\nentrada",
    "puerta de\nolvido",
    "puerta de\nsalida",
    "memoria c",
    "salida h",
]
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
# Cuanto más claro, mayor es la diferencia; cada fila tiene su propia escala. Casi todo se mueve con
# el dígito: como los pesos de la capa son los mismos en todas partes, responde igual esté donde
# esté. Nadie le dice a la capa dónde está. Antes del primer fotograma, la memoria $c$ está vacía. A
# partir de ahí contiene lo que la puerta de entrada dejó pasar y la de olvido conservó. Así es como
# una capa que ve un solo fotograma a la vez puede saber qué hubo antes.
#
# ## 11. Hacia dónde cree el modelo que va todo
#
# Antes de ver el fotograma siguiente, el modelo predice un desplazamiento para cada bloque de 4 × 4
# píxeles, que luego se afina píxel a píxel. No es un único número, sino una probabilidad para cada
# valor entero de −4 a 4 píxeles en cada eje (los dígitos avanzan 3.6 píxeles por fotograma). Los
# logits quedan en el estado `predicted_motion`: primero los verticales, después los horizontales.
#
# Un desplazamiento dice de dónde *viene* un píxel. El movimiento es, por tanto, su opuesto: un +2
# vertical es un píxel que estaba dos píxeles más abajo y que ha subido.

# %%
watched = data.to_float(validation[[49]])  # elegido a mano: dos rebotes, en los fotogramas 7 y 8
x, y = data.shift_frames(watched)
predicted, all_states = shipped.unroll(x)
logits = ops.stack([states["predicted_motion"][0] for states in all_states])  # (19, 16, 16, 18)
predicted_motion = [ops.softmax(axis) for axis in ops.split(logits, 2, axis=-1)]
measured_motion = ops.split(motion.block_matching(y[0], x[0], shipped.motion_radius), 2, axis=-1)
predicted_motion, measured_motion = (  # (vertical y horizontal, fotogramas, 16, 16, 9 valores)
    np.stack([ops.convert_to_numpy(axis) for axis in both])
    for both in (predicted_motion, measured_motion)
)
displacements = np.arange(-shipped.motion_radius, shipped.motion_radius + 1)
contrast = ops.convert_to_numpy(motion.contrast(predicted[0]))[..., 0]  # (19, 16, 16)

figure, axes = plt.subplots(3, 4, figsize=(11, 8), layout="constrained")
view = {"xlim": (15.5, 57.5), "ylim": (63.5, 27.5)}  # donde están los dígitos
for column, n in enumerate(range(4, 8)):
    rows, columns = np.nonzero(contrast[n] > 0.15)  # los bloques en los que hay algo
    centre_y, centre_x = motion.BLOCK * rows + 1.5, motion.BLOCK * columns + 1.5  # en píxeles
    # El bloque de mayor contraste, y lo que el modelo predice para él.
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
    axes[0, column].set_title(f"fotograma {n + 1} → {n + 2}")

    vertical, horizontal = predicted_motion[(slice(None), n, *block)]
    axis = axes[2, column]
    # Al revés, porque el movimiento es el opuesto del desplazamiento.
    axis.imshow(np.outer(vertical[::-1], horizontal[::-1]), cmap="Oranges", vmin=0, vmax=1,
                extent=(-4.5, 4.5, 4.5, -4.5))  # fmt: skip
    down, right = -(measured_motion[(slice(None), n, *block)] * displacements).sum(axis=-1)
    axis.plot(right, down, "o", color="deepskyblue", fillstyle="none", markersize=11)
    axis.set(xlabel="píxeles a la derecha", xticks=[-4, 0, 4], yticks=[-4, 0, 4])
for axis, label in zip(axes[:, 0], ["predicho", "medido", "píxeles hacia abajo"]):
    axis.set_ylabel(label)
plt.show()

# %% [markdown]
# En naranja, el movimiento que el modelo espera: la media de los movimientos posibles, ponderada
# por sus probabilidades. Cada flecha empieza donde están los píxeles y termina donde deberían estar
# en el fotograma siguiente. En azul, lo que mide `block_matching` cuando ese fotograma llega.
# Fíjate en lo que pasa al llegar al borde inferior.
#
# Abajo, las probabilidades del bloque marcado en rojo (el de más contraste en el fotograma
# predicho; en el actual puede ser negro) y, con un círculo azul, lo que pasó después. Un solo
# cuadro oscuro significa que el modelo está seguro. Si hay varios cuadros coloreados, el modelo
# duda: los píxeles desplazados tienden a ser una mezcla, y por eso se ven borrosos.
#
# ## 12. Fotogramas separados en sprites
#
# Un *sprite* es una imagen pequeña que se mueve entera, sin deformarse, como en los videojuegos.
# Buena parte del error se debe a dígitos que se cruzan. Donde se superponen, parecen un solo
# objeto. Pero cada uno se mueve entero, y eso los delata: si se coloca un dígito donde está en otro
# fotograma, ninguno de sus píxeles es más claro que lo que se ve allí. Por eso `sprites.decompose`
# empieza con dos copias del primer fotograma. De un fotograma al siguiente, lleva cada copia adonde
# mejor encaja y le quita todo lo que allí sea más claro que el fotograma, pues esa parte no se ha
# movido con la copia. Recorre los fotogramas hacia delante, hacia atrás y otra vez hacia delante.
# Esto se mide, no se aprende (Wang y Adelson, 1994; Jojic y Frey, 2001).

# %%
crossing = data.to_float(validation[[45]])[:, :10]  # elegido a mano: se cruzan en el fotograma 5
parts, moved = sprites.decompose(crossing, count=2)
print("fotogramas", crossing.shape, "-> sprites", parts.shape)
together = parts.max(axis=1)
print("el píxel más claro de los dos da el fotograma:", np.array_equal(together, crossing))
rows = [[(image, pictures.REAL_COLOUR) for image in row] for row in (crossing[0], *parts[0])]
pictures.film_strip(rows, ["fotograma", "sprite 1", "sprite 2"])

# %% [markdown]
# Cada sprite es ahora un vídeo aparte, con un solo dígito. El *mismo* modelo predice cada uno por
# separado, sin más entrenamiento, y de las dos predicciones se toma siempre el píxel más claro. En
# la terminal: `python predict.py --sprites 2`. La tira muestra, de los 40 vídeos, aquel en el que
# más ayudan los sprites.

# %%
forecasts["con sprites"] = sprites.rollout(shipped, contexts, 10, count=2)
scores["con sprites"] = predict.score(truths, forecasts["con sprites"])
for name in ("incluido", "con sprites"):
    print(f"{name}: MSE {scores[name]['mean']['mse']:.1f}")

frames_error, sprites_error = (
    np.square(forecasts[name] - data.to_float(truths)).mean(axis=(1, 2, 3, 4))
    for name in ("incluido", "con sprites")
)
helped = np.argmax(frames_error - sprites_error)  # el vídeo que más gana
strip(
    truths[helped],
    ("sin sprites", forecasts["incluido"][helped]),
    ("con sprites", forecasts["con sprites"][helped]),
)

# %% [markdown]
# Tiene sus límites. Los sprites solo sirven si los objetos son claros sobre fondo negro, conservan
# su forma y se mueven enteros. Así está definido Moving MNIST, pero pocos vídeos reales cumplen
# todo eso. Por eso solo se usan si se piden.
#
# ## 13. De dónde viene el error restante
#
# ¿Acertaría siempre un modelo perfecto? No. Antes de dibujar un dígito, su posición se redondea
# hacia abajo a píxeles enteros. Por eso diez fotogramas no dicen cuál es su dirección exacta, y
# direcciones que ahora parecen iguales llevan después a sitios distintos.
#
# Veámoslo. Tomamos un vídeo con un solo dígito (el vídeo número 31, elegido a mano) y probamos 200
# 000 comienzos posibles del mismo dígito, casi en el mismo sitio y casi en la misma dirección. Nos
# quedamos con los que ponen el dígito exactamente donde está en el vídeo real en cada uno de los
# diez primeros fotogramas: nadie podría distinguirlos del real.

# %%
real = single_digits.numbers[31, 0]  # qué dígito, x inicial, y inicial, dirección en vueltas
room = 64 - data.DIGIT_SIZE  # píxeles por los que se mueve


def places(numbers):
    """Números (..., 4) -> bordes izquierdo y superior del dígito en píxeles, (..., 2, 20)."""
    direction = 2 * np.pi * numbers[..., 3:]
    velocity = data.STEP * np.concatenate([np.cos(direction), np.sin(direction)], axis=-1)
    return (room * data.bounce(numbers[..., 1:3], velocity, 20)).astype(int)


spread = np.array([0, 1 / room, 1 / room, 0.02])  # como mucho un píxel y un cincuentavo de vuelta
guesses = real + spread * np.random.default_rng(0).uniform(-1, 1, size=(200_000, 4))
fits = (places(guesses) == places(real))[..., :10].all(axis=(1, 2))
futures = data.to_float(data.move_digits(single_digits.digits, guesses[fits][:, None]))
print(f"{fits.sum()} de {len(guesses)} se ven iguales durante diez fotogramas")
print("sus contextos son iguales:", np.array_equal(futures[:, :10].min(0), futures[:, :10].max(0)))

best = futures.mean(axis=0)
order = np.argsort(guesses[fits][:, 3])  # por dirección
truth = data.to_float(single_digits[[31]])[0]
by_model = models.rollout(shipped, truth[None, :10], 10)[0]
strip(
    truth[10:],
    ("un futuro", futures[order[0], 10:]),
    ("otro futuro", futures[order[-1], 10:]),
    ("la media", best[10:]),
    ("el incluido", by_model),
)

# %% [markdown]
# La diferencia entre los dos futuros es de unos pocos píxeles: compara la última columna.

# %%
for name, frames in [
    ("la media de todos los futuros", best[10:]),
    ("el modelo incluido", by_model),
]:
    print(f"{name}: MSE {predict.score(truth[None, 10:], frames[None])['mean']['mse']:.1f}")

# %% [markdown]
# La media de todos los futuros todavía posibles es la predicción con el menor error cuadrático
# esperado. A la larga nadie puede hacerlo mejor, y también ella es borrosa.
#
# `benchmarks/floor.py` calcula esa media para vídeos de dos dígitos, suponiendo conocidas con
# exactitud la forma y las diez primeras posiciones de ambos. Su error es de unos **8.7**: una cota
# inferior para cualquier modelo. Entre esa cota y el modelo incluido hay otra referencia,
# `benchmarks/tracks.py`: separa los fotogramas en sprites y entrega las posiciones medidas de cada
# uno a una red pequeña, que ha aprendido con un millón de trayectorias simuladas cómo se mueven los
# dígitos en Moving MNIST. Esa red no ve ni un píxel: no tiene que deducir la ley del movimiento a
# partir de imágenes. Su error es de unos **11.0** («con la ley conocida», más abajo).

# %%
FLOOR = [4.3, 5.8, 6.5, 7.6, 8.3, 9.1, 9.9, 10.9, 11.8, 12.4]  # fotogramas predichos 1 a 10
ladder = {
    "copiar el último fotograma": scores["copiar el último fotograma"]["mean"]["mse"],
    "entrenado aquí": scores["entrenado aquí"]["mean"]["mse"],
    "incluido": scores["incluido"]["mean"]["mse"],
    "con sprites": scores["con sprites"]["mean"]["mse"],
    "con la ley conocida": 11.0,
    "cota inferior": 8.7,
}
for name, error in ladder.items():
    print(f"{name:30} {error:6.1f}")

lines = {name: (ahead, scores[name]["mse"]) for name in ("incluido", "con sprites")}
curves({**lines, "cota inferior": (ahead, FLOOR)}, "fotograma predicho", "Lo que queda por mejorar")

# %% [markdown]
# El error del modelo incluido tiene, pues, cuatro partes. En las cuatro últimas filas de la lista,
# de arriba abajo:
#
# - de «incluido» a «con **sprites**»: distinguir dígitos que se cruzan;
# - de «con sprites» a «con la **ley** conocida»: conocer la velocidad y las paredes con toda la
#   precisión que permiten los fotogramas. El modelo tiene que aprender esa ley a partir de píxeles,
#   y además sus propias predicciones borrosas se convierten en su entrada;
# - de «con la ley conocida» a «**cota inferior**»: medir los dígitos y aplicar la ley a la
#   perfección;
# - la propia **cota inferior**: lo que el contexto no dice.
#
# (Los cuatro primeros errores son los de los 40 primeros vídeos de validación; los dos últimos se
# calcularon con el conjunto de prueba, como en la tabla del README).
#
# ## 14. Ahora te toca a ti
#
# 1. **Veinte fotogramas.** Toma un vídeo de 30 fotogramas, `videos =
#    data.EvaluationVideos("validation", frames=30)[[0]]`, y llama a `models.rollout(shipped,
#    data.to_float(videos[:, :10]), horizon=20)`. ¿Hasta qué fotograma se reconocen los dígitos y
#    están en su sitio? Prueba con varios vídeos: no en todos ocurre lo mismo. En la terminal:
#    `python animate.py --horizon 20`.
# 2. **¿Cuánto necesita ver?** Predice a partir de `contexts[:, -n:]` con `n` igual a 1, 2, 3 y 5.
#    Un fotograma dice cómo son los dígitos, pero no hacia dónde van. ¿Cuántos bastan?
# 3. **Tres dígitos.** El modelo incluido nunca ha visto vídeos como `three =
#    data.to_float(data.EvaluationVideos("validation", digits_per_video=3)[np.arange(10)])`. Compara
#    `models.rollout(shipped, three[:, :10], 10)` con `sprites.rollout(shipped, three[:, :10], 10,
#    count=3)`. Para entrenar con vídeos así: `python train.py --init assets/forecaster.keras
#    --digits-per-video 3 --run runs/three` (alrededor de una hora con dos núcleos).
# 4. **Otra capa.** En la sección 10, cambia `shipped.stack_down` por `shipped.stack_coarse`. ¿Cuál
#    de las dos sigue más de cerca al dígito? (La cuadrícula de `stack_coarse` es de 8 × 8, no de 16
#    × 16 como dice el comentario, así que todo se ve más tosco).
# 5. **Teacher forcing.** Pon `config = dataclasses.replace(config, teacher_forcing=True)` al
#    principio de la sección 6, guarda los errores de antes con `before = scores` y repite las
#    secciones 6 a 8 (entrenar de nuevo lleva un par de minutos). ¿Qué aporta el bucle cerrado?
# 6. **Sin medir nada.** Haz lo mismo con `config = train.PRESETS["tiny"]`, `layers =
#    dataclasses.replace(config.architecture, motion_radius=0)` y `config =
#    dataclasses.replace(config, architecture=layers)`. Ahora las capas tienen que averiguar por sí
#    solas cómo se mueve todo, y pintar cada píxel. Compara los errores. (Como no hay movimiento que
#    medir, la barra solo muestra `loss` y `val_mse`).
# 7. **Un vídeo tuyo.** Elige uno de al menos 24 fotogramas y ponlo en la carpeta del proyecto.
#    Ejecuta `pip install av` (para leer archivos MP4), luego `python train.py --data pelicula.mp4
#    --preset tiny --run runs/pelicula` y, por último, `python animate.py runs/pelicula`; las
#    animaciones quedan en `outputs/`.
