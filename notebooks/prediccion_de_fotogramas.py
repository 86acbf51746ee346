# ---
# jupyter:
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
# Un modelo ve diez fotogramas de un vídeo y predice los diez siguientes. Este cuaderno prepara los
# datos, mira por dentro una capa ConvLSTM2D, entrena un modelo y guarda un GIF de su predicción
# junto al vídeo real. Después mide cuánto se equivocan las predicciones y muestra qué ocurre dentro
# del modelo. Las celdas llaman a funciones de cinco archivos cortos, `data.py`, `model.py`,
# `train.py`, `predict.py` y `animate.py`, que conviene leer en ese orden, y a algunas funciones de
# las carpetas `method` y `extras`. Los nombres del código y los mensajes de los programas están en
# inglés. Ejecutarlo todo lleva unos cinco minutos con dos núcleos de la CPU. No hace falta una GPU
# ni se descarga nada.
#
# La primera celda busca los archivos del proyecto. Si después Python no encuentra algún paquete,
# ejecuta `%pip install -r requirements.txt` en una celda aparte y reinicia la sesión.

# %%
import os
import sys
from pathlib import Path

places = [Path("."), Path(".."), *Path(".").iterdir()]
root = next((place for place in places if (place / "method" / "motion.py").exists()), None)
if root is None:
    sys.exit(
        "Faltan los archivos del proyecto: copia su carpeta entera a este equipo y abre el "
        "cuaderno que hay en ella. En Colab, súbela como ZIP, ejecuta !unzip NOMBRE.zip y repite "
        "esta celda."
    )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # sin avisos de TensorFlow mientras trabaja
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

# QUICK=1 en el entorno sirve para comprobar en un minuto que todas las celdas funcionan.
QUICK = os.environ.get("QUICK") == "1"

# %% [markdown]
# ## 1. Moving MNIST
#
# Dos dígitos manuscritos de MNIST, de 28 × 28 píxeles, se mueven por un cuadrado negro de 64 × 64
# píxeles. Cada uno lleva su propia dirección, mantiene la velocidad y rebota en las paredes. (Lo
# que rebota es el cuadro de 28 × 28, y el dígito no lo llena: por eso parece dar la vuelta un poco
# antes de la pared). Donde dos dígitos se superponen, se toma el máximo. Es un problema de juguete,
# pero nada fácil: solo a partir de los fotogramas, el modelo tiene que averiguar qué objetos hay,
# hacia dónde va cada uno y qué hace una pared.
#
# `data.make_videos` genera cuantos vídeos queramos. La misma semilla produce los mismos en
# cualquier ordenador. Estos son los veinte fotogramas del primero.

# %%
digits = data.load_digits("train")
videos = data.make_videos(digits, count=6, seed=3)
print("dígitos:", digits.shape, digits.dtype)
print("vídeos:", videos.shape, videos.dtype, "(vídeos, fotogramas, alto, ancho, canales)")

halves = [[(frame, pictures.REAL_COLOUR) for frame in half] for half in np.split(videos[0], 2)]
pictures.film_strip(halves, ["1 a 10", "11 a 20"])

# %% [markdown]
# Para ver un vídeo, lo mejor es un GIF. Aquí están los seis.


# %%
def play(name, frames, description):
    """Guarda un GIF en la carpeta outputs y lo muestra aquí."""
    path = Path("outputs") / name
    animate.write_gif(path, frames)
    return HTML(f'<img src="{page.data_url("gif", path.read_bytes())}" alt="{description}">')


tiles = [[pictures.enlarge(frame, 2, pictures.REAL_COLOUR) for frame in video] for video in videos]
side_by_side = np.concatenate(tiles, axis=2)  # (fotogramas, alto, seis anchos, 3)
play("seis-videos.gif", side_by_side, "Seis vídeos de dos dígitos que se mueven")

# %% [markdown]
# Los vídeos de **entrenamiento** se generan a medida que hacen falta, con los 60 000 dígitos de
# entrenamiento de MNIST, y nunca se repiten: no se pueden aprender de memoria. Los de
# **validación** son siempre los mismos 10 000, hechos con la mitad de los dígitos de *prueba* de
# MNIST, una caligrafía que ningún modelo ha visto al entrenarse. El conjunto de **prueba**,
# reservado para la evaluación final, se forma con la otra mitad. Los artículos científicos evalúan
# con `mnist_test_seq.npy`, un archivo creado del mismo modo: `python predict.py --data official`
# descarga sus 781 MiB; para nada más hace falta. (Las órdenes se ejecutan en una terminal, desde la
# carpeta del proyecto).
#
# ## 2. La respuesta es el fotograma siguiente
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
# entrada que está arriba a la derecha de cada objetivo (salvo en el último) es ese mismo fotograma.


# %%
def strip(*rows):
    """Una tira de filas (etiqueta, fotogramas): la primera con borde gris; las otras, naranja."""
    colours = [pictures.REAL_COLOUR] + [pictures.PREDICTED_COLOUR] * (len(rows) - 1)
    tiles = [[(frame, colour) for frame in frames] for (_, frames), colour in zip(rows, colours)]
    return pictures.film_strip(tiles, [label for label, _ in rows])


x, y = data.shift_frames(videos)
print("x e y:", x.shape, " y[:, n] es x[:, n + 1]:", np.array_equal(y[:, :-1], x[:, 1:]))
strip(("entrada x", x[0, :10]), ("objetivo y", y[0, :10]))

# %% [markdown]
# ## 3. ConvLSTM2D: una memoria con forma de imagen
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
# Es una LSTM en la que se multiplica por los pesos con convoluciones ($*$). Cada píxel tiene su
# propia memoria y solo mira a su alrededor. Todos los píxeles comparten los mismos pesos, así que
# lo que se aprende sobre el movimiento en una esquina vale en cualquier otra parte de la imagen.
#
# Las cuatro convoluciones leen la misma entrada, de modo que se calculan como una sola con el
# cuádruple de filtros. Por eso, con 8 filtros, la última dimensión de los kernels (los pesos de las
# convoluciones) es 32. Keras guarda por separado el kernel que lee $x$ y el que lee $h$; `step` los
# une:

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
# ## 4. Una pila de capas
#
# Con cada fotograma, una capa con kernels de 3 × 3 solo alcanza a ver un píxel más allá. Por eso
# se apilan varias capas: cada una lee la salida de la anterior. Esto es `KerasExample`, la pila que
# enseña la web de Keras: capas ConvLSTM2D (con `relu` en lugar de tanh), BatchNormalization entre
# ellas (`norms`) y una convolución que pinta el fotograma siguiente. (En la web, esa convolución ve
# también el fotograma que hay que predecir; aquí no). Su método `step`:
#
# ```python
# x, new_states = frame, []
# for n, conv_lstm in enumerate(self.conv_lstms):
#     x, state = conv_lstm.step(x, states[n])  # (lote, alto, ancho, filtros)
#     new_states.append(state)
#     if n < len(self.norms):
#         x = self.norms[n](x, training=training)
# return self.paint_head(x), new_states
# ```
#
# En `layers` se indican los filtros y el tamaño del kernel de cada capa. Un par más es una capa
# más.

# %%
stack = models.KerasExample(models.Architecture(layers=((64, 5), (64, 3), (64, 1))))
predictions = stack(x[:1])  # el fotograma n predice el n + 1
print("predicciones:", tuple(predictions.shape), f" parámetros: {stack.count_params():,}")

# %% [markdown]
# Todos los modelos de este proyecto son un paso así, que se repite fotograma a fotograma: entran un
# fotograma y los estados; salen el fotograma siguiente y los nuevos estados.
#
# ## 5. El modelo `Forecaster`
#
# Vamos a entrenar el otro modelo del proyecto, `Forecaster`, que se diferencia en tres cosas.
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
# canales se concatenan. Dentro de cada pila, cada capa *suma* su salida a su entrada (una conexión
# residual), y así se pueden entrenar muchas capas.
#
# **Da dos respuestas.** Casi todo el fotograma siguiente es el actual, desplazado. Por eso una de
# ellas dice de dónde viene cada píxel, y los píxeles se desplazan. La otra pinta el fotograma desde
# cero. Una puerta, entre 0 y 1, las mezcla píxel a píxel.
#
# **Recibe una medida de cómo se ha movido todo.** Para cada bloque de 4 × 4 píxeles,
# `motion.block_matching` mide cuánto se ha movido desde el fotograma anterior, como hacen los
# códecs de vídeo. Las medidas anteriores se recuerdan, y ese recuerdo se desplaza junto con los
# objetos. Nada de esto se aprende. De lo que pasará *después* se encargan las capas que sí
# aprenden.
#
# Su paso es, por tanto: medir el movimiento, recorrer la U, pintar, desplazar y mezclar.
#
# ```python
# history, states = self.measure_motion(frame, states)
# x, features, states = self.run_stacks(frame, history, states)
# painted = ops.sigmoid(self.paint_head(features))  # (lote, 64, 64, canales)
# moved, gate, block_motion = self.move(frame, history, x, features)
# next_frame = gate * moved + (1 - gate) * painted
# ```
#
# En `train.PRESETS` hay varios tamaños. Vamos a entrenar `tiny`: tres capas ConvLSTM2D y 1200
# vídeos. El proyecto trae además los pesos de un modelo mayor, entrenado con 260 000 vídeos, la
# mayoría en una GPU; lo llamaremos «el incluido». La pila de la sección 4 se entrena en la
# terminal. Tal como la publica la web de Keras, tarda nueve horas: `python train.py --preset
# keras-example`. Con la cuarta parte de los filtros, y entrenada para predecir varios fotogramas
# seguidos, tarda 13 minutos: `--preset keras-small`.
#
# Cada hiperparámetro es un campo de `train.Config` o, si es de las capas, de `Architecture`, en
# `model.py`, con su explicación debajo. Para cambiar alguno, borra `# ` al principio de una línea;
# uno cada vez, o no sabrás a cuál se debe la diferencia. Después, `python animate.py
# runs/notebook-UNO --beside runs/notebook-OTRO` muestra los dos.

# %%
config = train.PRESETS["tiny"]
# config = replace(config, muon_learning_rate=0.01)  # un hiperparámetro del entrenamiento
# config = replace(config, architecture=replace(config.architecture, filters=32))  # del modelo
if QUICK:
    small = {"frames": 4, "context": 2, "steps_per_epoch": 2, "epochs": 2, "validation_videos": 2}
    config = replace(config, **small)

shipped = runs.load_model(runs.SHIPPED)
for name, model in {"por entrenar": train.build_model(config), "incluido": shipped}.items():
    print(f"{name}: {model.count_params():,} parámetros")

# %% [markdown]
# ## 6. El entrenamiento
#
# El modelo tendrá que continuar a partir de sus propias predicciones. Si al entrenarse solo ve
# fotogramas reales (*teacher forcing*), nunca aprende a convivir con sus errores. Por eso se
# entrena en bucle cerrado, tal como se va a usar: lee unos fotogramas reales (el *contexto*) y
# continúa a partir de lo que él mismo predice. Al principio recibe ayuda: después del contexto
# siguen siendo reales algunos fotogramas más, menos en cada época, hasta que no queda ninguno
# (muestreo programado o *scheduled sampling*, Bengio et al., 2015). Tras el primer fotograma
# predicho de un vídeo, todos los siguientes también lo son. Una máscara dice cuáles son reales, y
# el bucle que recorre los fotogramas la consulta:
#
# ```python
# def next_step(real_frame, is_real, outputs, states):
#     frame = ops.where(is_real[:, None, None, None], real_frame, outputs[0])
#     return step(frame, states)
# ```
#
# Para ir deprisa, `tiny` se entrena con vídeos de 12 fotogramas: lee seis y predice seis. Después
# puede leer y predecir cuantos hagan falta, porque lo único que ha aprendido es a dar un paso.
# Estas son las máscaras de cuatro vídeos a mitad de cada una de las primeras épocas: `#` es un
# fotograma real y `.`, uno predicho. Tienen 11 signos porque el duodécimo fotograma solo es un
# objetivo.

# %%
for epoch in range(config.sampling_epochs + 1):
    batches = train.Batches(config, data.TrainingVideos(frames=config.frames), epoch)
    inputs, targets = batches[config.steps_per_epoch // 2]
    masks = ["".join("#" if real else "." for real in mask) for mask in inputs["real_mask"]]
    print(f"época {epoch + 1}:", *masks, sep="   ")
print("vídeos y objetivos:", targets.shape, " real_mask:", inputs["real_mask"].shape)

# %% [markdown]
# La función de pérdida es el error cuadrático, sumado sobre todos los píxeles de un fotograma.
# `Forecaster` añade otro término, con un factor de 0.1, que compara el movimiento que predice con
# el que se mide después. El optimizador Muon ajusta los kernels de las capas ocultas, y Adam, los
# demás pesos.
#
# En la terminal, `python train.py --preset tiny` llama a esta misma función, `train.train`. La
# función deja una carpeta con los pesos, un registro, imágenes y todo lo necesario para reanudar el
# entrenamiento, e imprime una línea por época: `frames_loss` es el error medio de las 11
# predicciones, incluidas las del contexto; `loss`, esa cifra más la parte del movimiento;
# `val_mse`, el error de las 6 predicciones que siguen al contexto, en vídeos de validación y con
# una media móvil de los pesos.

# %%
run = Path("runs") / time.strftime("notebook-%Y-%m-%d-%H%M%S")
train.train(config, run)


# %%
def curves(lines, horizontal, title):
    """Dibuja una línea por {etiqueta: (valores horizontales, errores)}; cuanto más bajo, mejor."""
    _, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for label, line in lines.items():
        axis.plot(*line, marker=".", label=label)
    axis.set(xlabel=horizontal, ylabel="MSE (suma sobre los píxeles)", title=title, ylim=(0, None))
    axis.locator_params("x", integer=True)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    plt.show()


log = runs.read_log(run)
columns = {"entrenamiento: frames_loss": "frames_loss", "validación: val_mse": "val_mse"}
epochs = [int(row["epoch"]) for row in log]
lines = {label: (epochs, [float(row[column]) for row in log]) for label, column in columns.items()}
curves(lines, "época", "Entrenamiento y validación")

# %% [markdown]
# Ambas líneas son errores cuadráticos de fotogramas predichos. Pero `frames_loss` cuenta también
# las predicciones del contexto, y en las primeras épocas también son reales algunos posteriores.
# Por eso hay que comparar la forma de las líneas y no su altura. El modelo no puede aprender ningún
# vídeo de memoria: ve cada uno una sola vez.
#
# ## 7. Entran diez fotogramas, salen diez
#
# Ahora, unos vídeos de validación al azar (si cambias la semilla, salen otros). El modelo lee diez
# fotogramas y predice diez más sin volver a ver ninguno real. En `models.rollout` una máscara dice
# qué fotogramas son reales, y el último de ellos da ya la primera predicción:
#
# ```python
# real_mask = np.arange(frames + horizon - 1) < frames
# return predictions[:, frames - 1 :]
# ```

# %%
validation = data.EvaluationVideos("validation")
numbers = np.random.default_rng(seed=0).permutation(len(validation))[: 3 if QUICK else 40]
examples = data.to_float(validation[numbers])  # (vídeos, 20, 64, 64, 1)
contexts, truths = examples[:, :10], examples[:, 10:]

trained_here = runs.load_model(run)  # best.keras: los pesos con el menor val_mse
forecasts = {
    "entrenado aquí": models.rollout(trained_here, contexts, horizon=10),
    "incluido": models.rollout(shipped, contexts, horizon=10),
}
ours, better = forecasts["entrenado aquí"], forecasts["incluido"]
print("contextos", contexts.shape, "-> predicciones", ours.shape)
pictures.forecast_strip(contexts[:1], truths[:1], {"predicción": ours[:1]})

# %% [markdown]
# Cuanto más lejano en el tiempo, más borroso. Y tiene su explicación: el error se eleva al
# cuadrado, así que, si un dígito puede estar en dos sitios, lo que menos cuesta es dibujarlo en los
# dos, a media intensidad. Aquí están los dos modelos, cada uno con su error: en naranja, donde la
# predicción es demasiado clara; en azul, donde es demasiado oscura.


# %%
def compare(real, *forecasts):
    """Una tira de lo real y de predicciones (etiqueta, fotogramas), cada una con su error."""
    errors = [("error", pictures.error_map(real, frames)) for _, frames in forecasts]
    rows = [row for pair in zip(forecasts, errors) for row in pair]
    return strip(("real", real), *rows)


compare(truths[0], ("el nuestro", ours[0]), ("el incluido", better[0]))

# %% [markdown]
# Lo mismo en un GIF, con dos vídeos: el real, la predicción del modelo que acabas de entrenar y la
# del incluido. Todos muestran primero el mismo contexto, con borde gris; cuando un borde se vuelve
# naranja, empieza la predicción. El archivo es **`outputs/mi-prediccion.gif`**, en la carpeta del
# proyecto; si repites esta celda, se reemplaza. (`python animate.py runs/notebook-FECHA` crea
# otros).

# %%
rows = []
for context, truth, mine, published in zip(contexts[:2], truths, ours, better):
    predictions = {"entrenado aquí": mine, "incluido": published}
    # cada uno, (fotogramas, alto, ancho, 3)
    rows.append(animate.side_by_side(context, truth, predictions, words=("real", "contexto")))
play("mi-prediccion.gif", np.concatenate(rows, axis=1), "Vídeos reales junto a los predichos")

# %% [markdown]
# ## 8. Cuánto se equivoca y cuándo
#
# Dos vídeos no demuestran nada. `predict.score` compara muchas predicciones con los fotogramas
# reales. El MSE es el error cuadrático, sumado sobre todos los píxeles de un fotograma (la M es de
# *media*, pero los artículos sobre Moving MNIST dan la suma). El SSIM compara estructuras; 1
# significa que las imágenes son iguales. Un modelo que valga algo tiene que equivocarse menos que
# la simple copia del último fotograma. (El SSIM castiga sobre todo el velo gris que `tiny` deja en
# el fondo negro, y en SSIM `tiny` puede quedar por debajo de la copia).

# %%
forecasts = {"copiar el último fotograma": data.copy_last(contexts, 10), **forecasts}
scores = {name: predict.score(truths, forecast) for name, forecast in forecasts.items()}
for name, score in scores.items():
    print(f"{name}: MSE {score['mean']['mse']:.1f}, SSIM {score['mean']['ssim']:.3f}")

ahead = range(1, 11)
lines = {name: (ahead, score["mse"]) for name, score in scores.items()}
curves(lines, "fotograma predicho", "Tres predicciones de los mismos vídeos")

# %% [markdown]
# El error de un modelo crece con cada fotograma: una dirección ligeramente equivocada aleja el
# dígito cada vez más de su sitio. El MSE del modelo entrenado aquí no es su `val_mse`: ahora lee y
# predice diez fotogramas en lugar de seis, y los vídeos son otros.
#
# ## 9. Una imagen que favorece y otra que dice la verdad
#
# Muchas demostraciones enseñan predicciones como las de la segunda fila de la figura siguiente.
# Cada una se hizo a partir de los fotogramas *reales* anteriores (*teacher forcing*): el modelo
# nunca tiene que adelantarse más de un fotograma. En la cuarta fila se predicen los mismos
# fotogramas con los mismos pesos, pero en bucle cerrado, a partir de las propias predicciones.
# Compara las últimas columnas y, ante cualquier imagen de un vídeo predicho, pregúntate cuál de las
# dos estás viendo.

# %%
few = examples[:16]
teacher_forced = shipped.predict_on_batch(few[:, :-1])[:, 9:]  # sin máscara; fotogramas 11 a 20
for name, frames in ("con fotogramas reales", teacher_forced), ("en bucle cerrado", better[:16]):
    print(f"{name}: MSE {predict.score(few[:, 10:], frames)['mean']['mse']:.1f}")
compare(truths[0], ("con reales", teacher_forced[0]), ("en bucle", better[0]))

# %% [markdown]
# ## 10. Una capa ConvLSTM2D por dentro
#
# ¿Qué hacen las puertas cuando pasa un dígito? El modelo incluido ve dos vídeos a la vez: uno con
# un solo dígito y otro completamente negro. Anotamos lo que ocurre en su primera capa ConvLSTM2D,
# que trabaja en una cuadrícula de 16 × 16. Toda diferencia entre los dos se debe al dígito. Las
# puertas se calculan con los pesos de la capa, igual que en las fórmulas de la sección 3.

# %%
single_digits = data.EvaluationVideos("validation", digits_per_video=1)
digit = data.to_float(single_digits[[3]])  # elegido a mano: rebota en el borde izquierdo
digit_and_black = np.concatenate([digit, np.zeros_like(digit)])
layer = shipped.stack_down.conv_lstms[0]
reactions = []


def step_and_note(x, states):
    """Da el paso de la propia capa y anota cuánto difiere su interior entre los dos vídeos."""
    kernel, recurrent_kernel, bias = layer.weights
    gates = ops.conv(x, kernel, padding="same") + bias
    gates = gates + ops.conv(states[0], recurrent_kernel, padding="same")
    input_gate, forget_gate, _, output_gate = ops.split(ops.sigmoid(gates), 4, axis=-1)
    h, (_, c) = type(layer).step(layer, x, states)
    insides = ops.stack([input_gate, forget_gate, output_gate, c, h])
    insides = ops.convert_to_numpy(insides)  # (5, 2 vídeos, 16, 16, filtros)
    reactions.append(np.abs(insides[:, 0] - insides[:, 1]).mean(axis=-1))  # media de los filtros
    return h, [h, c]


layer.step = step_and_note
states = shipped.initial_states(batch=2, height=64, width=64)
for n in range(16):
    _, states = shipped.step(digit_and_black[:, n], states)
del layer.step  # vuelve a valer el de la clase

names = ["puerta i", "puerta f", "puerta o", "memoria c", "salida h"]
rows = [("fotograma", digit[0, :16:2])]
for name, maps in zip(names, np.swapaxes(reactions, 0, 1)):  # maps: (16 fotogramas, 16, 16)
    colours = plt.cm.magma(maps[::2] / maps.max())[..., :3]  # (8 fotogramas, 16, 16, 3)
    rows.append((name, colours.repeat(4, axis=1).repeat(4, axis=2)))
strip(*rows)

# %% [markdown]
# Cuanto más claro, mayor es la diferencia; cada fila tiene su propia escala. Casi todo se mueve con
# el dígito: como los pesos de la capa son los mismos en todas partes, responde igual esté donde
# esté. Nadie le dice a la capa dónde está. Antes del primer fotograma, la memoria $c$ está vacía. A
# partir de ahí contiene lo que la puerta de entrada dejó pasar y la de olvido conservó. Así es como
# la capa, que recibe un solo fotograma cada vez, puede saber qué hubo antes. (En este modelo
# también se lo dice el movimiento medido).
#
# ## 11. Hacia dónde cree el modelo que va todo
#
# Antes de ver el fotograma siguiente, el modelo predice un desplazamiento para cada bloque de 4 × 4
# píxeles, que luego se afina píxel a píxel. No es un único número, sino una probabilidad para cada
# valor entero de −4 a 4 píxeles en cada eje (los dígitos avanzan 3.6 píxeles por fotograma).
# `step_outputs` es un paso que devuelve también sus logits.
#
# Un desplazamiento dice de dónde *viene* un píxel. El movimiento es, por tanto, su opuesto: un +2
# vertical es un píxel que estaba dos píxeles más abajo y que ha subido.

# %%
x, y = data.shift_frames(validation[[49]])  # elegido a mano: los dos dígitos rebotan
radius = shipped.architecture.motion_radius
states = shipped.initial_states(batch=1, height=64, width=64)
figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for n in range(8):
    (predicted, logits), states = shipped.step_outputs(x[:, n], states)
    if n < 4:
        continue
    # Probabilidades de -4 a 4 píxeles, vertical y horizontal: (16, 16, 2, 9)
    expected = ops.softmax(ops.reshape(logits, (16, 16, 2, 2 * radius + 1)))
    measured = ops.reshape(motion.block_matching(y[:, n], x[:, n], radius), expected.shape)
    contrast = ops.convert_to_numpy(motion.contrast(predicted))[0, ..., 0]  # (16, 16)
    rows, columns = np.nonzero(contrast > 0.15)  # los bloques en los que hay algo
    axis = axes[n - 4]
    axis.imshow(x[0, n], cmap="gray")
    for probability, colour, width in (measured, "cyan", 0.02), (expected, "darkorange", 0.008):
        displacement = ops.convert_to_numpy(probability) @ np.arange(-radius, radius + 1)  # media
        down, right = -displacement[rows, columns].T  # píxeles
        start = 4 * columns + 1.5 - right, 4 * rows + 1.5 - down
        scale = {"angles": "xy", "scale_units": "xy", "scale": 1}
        axis.quiver(*start, right, down, color=colour, width=width, **scale)
    axis.set(xlim=(15.5, 57.5), ylim=(63.5, 27.5), xticks=[], yticks=[], title=f"fotograma {n + 1}")
plt.show()

# %% [markdown]
# En naranja, el movimiento que el modelo espera: la media de los movimientos posibles, ponderada
# por sus probabilidades. Cada flecha termina donde deberían estar los píxeles en el fotograma
# siguiente. En cian, lo que mide `block_matching` cuando ese fotograma llega. Fíjate en lo que pasa
# al llegar al borde inferior. Si un desplazamiento reúne casi toda la probabilidad, el modelo está
# seguro, y los píxeles se desplazan tal como son. Si se la reparten varios, los píxeles desplazados
# son una mezcla, y por eso se ven borrosos.
#
# ## 12. Ahora te toca a ti
#
# 1. **Veinte fotogramas.** Toma un vídeo de 30 fotogramas, `data.EvaluationVideos("validation",
#    frames=30)[[0]]`, conviértelo con `data.to_float` y predice 20 de sus fotogramas a partir
#    de los diez primeros con `models.rollout`. ¿Hasta qué fotograma se reconocen los dígitos y
#    están en su sitio? No en todos los vídeos ocurre lo mismo.
# 2. **¿Cuánto necesita ver?** Predice con `shipped` a partir de `contexts[:, -n:]`, con `n` igual a
#    1, 2, 3 y 5. Un fotograma dice cómo son los dígitos, pero no hacia dónde van. ¿Cuántos bastan?
# 3. **Teacher forcing.** Guarda los errores de antes con `before = scores`. Después pon `config =
#    replace(config, teacher_forcing=True)` donde la sección 5 cambia los hiperparámetros y repite
#    las secciones 5 a 8. ¿Qué aporta el bucle cerrado?
# 4. **Sin medir nada.** Quita esa línea y pon en su lugar `config = replace(config,
#    architecture=replace(config.architecture, motion_radius=0))`. Ahora las capas tienen que
#    averiguar por sí solas cómo se mueve todo, y pintar cada píxel. Compara los errores.
# 5. **Un vídeo tuyo.** Pon uno de al menos 24 fotogramas en la carpeta del proyecto. `python
#    prepare.py video.mp4 video.prepared --size 64` lo prepara, `python train.py --data
#    video.prepared --preset tiny --run runs/video` entrena con él y `python animate.py runs/video`
#    deja los GIF en `outputs/`.
#
# Aquí termina la historia. Lo que sigue explica por qué cuesta tanto eliminar la última parte del
# error.
#
# ## 13. Para saber más: fotogramas separados en sprites
#
# Un *sprite* es una imagen pequeña que se mueve entera, sin deformarse, como en los videojuegos.
# Buena parte del error se debe a dígitos que se cruzan. Donde se superponen, parecen un solo
# objeto. Pero cada uno se mueve entero, y eso los delata: si se lleva un dígito a su lugar en otro
# fotograma, ninguno de sus píxeles es más claro que los de ese fotograma. Por eso
# `sprites.decompose` empieza con dos copias del primer fotograma. De un fotograma al siguiente,
# lleva cada copia adonde mejor encaja y le quita todo lo que allí sea más claro que el fotograma,
# pues esa parte no se ha movido con la copia. Esto se mide, no se aprende (Wang y Adelson, 1994;
# Jojic y Frey, 2001).

# %%
crossing = data.to_float(validation[[45]])[:, :10]  # elegido a mano: se cruzan en el fotograma 5
parts, _ = sprites.decompose(crossing, count=2)
print("su máximo es el fotograma:", np.array_equal(parts.max(axis=1), crossing))
strip(("fotograma", crossing[0]), ("sprite 1", parts[0, 0]), ("sprite 2", parts[0, 1]))

# %% [markdown]
# Cada sprite es ahora un vídeo aparte, con un solo dígito. El *mismo* modelo predice cada uno por
# separado, y de las dos predicciones se toma siempre el píxel más claro. (Unos pocos de los vídeos
# con los que se entrenó tenían también un solo dígito: `--single-digit-share`.) En la terminal:
# `python predict.py --sprites 2`. La tira muestra, de nuestros vídeos, aquel en el que más ayudan
# los sprites.

# %%
by_sprites = sprites.rollout(lambda *part: models.rollout(shipped, *part), contexts, 10, count=2)
scores["con sprites"] = predict.score(truths, by_sprites)
gain = np.square(better - truths) - np.square(by_sprites - truths)
helped = gain.sum(axis=(1, 2, 3, 4)).argmax()  # el vídeo que más gana
compare(truths[helped], ("sin ellos", better[helped]), ("con ellos", by_sprites[helped]))

# %% [markdown]
# Los sprites solo sirven si los objetos son claros sobre fondo negro, conservan su forma y se
# mueven enteros. Así está definido Moving MNIST, pero pocos vídeos reales cumplen todo eso. Por eso
# solo se usan si se piden.
#
# ## 14. Para saber más: de dónde viene el error restante
#
# ¿Acertaría siempre un modelo perfecto? No. Antes de dibujar un dígito, su posición se redondea
# hacia abajo a píxeles enteros. Por eso diez fotogramas no dicen cuál es su dirección exacta, y
# direcciones que ahora parecen iguales llevan después a sitios distintos. Generamos al azar 200 000
# dígitos, miramos un solo eje y nos quedamos con los que ocupan los mismos píxeles que `pixels[9]`
# (elegido a mano) en cada uno de los diez primeros fotogramas. Nadie podría distinguirlos.

# %%
rng = np.random.default_rng(0)
starts, directions = rng.random(200_000), 2 * np.pi * rng.random(200_000)
pixels = (36 * data.bounce(starts, data.STEP * np.cos(directions), 20)).astype(int)
same = pixels[(pixels[:, :10] == pixels[9, :10]).all(axis=1)]  # (dígitos, 20 fotogramas)

_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
axis.plot(range(1, 21), np.unique(same, axis=0).T)
axis.axvline(10.5, color="grey", linestyle=":")
axis.locator_params("x", integer=True)
axis.set(xlabel="fotograma", ylabel="posición en píxeles")
axis.set_title(f"{len(same)} dígitos, iguales durante diez fotogramas")
plt.show()

# %% [markdown]
# La media de todos los fotogramas todavía posibles es la predicción con el menor error cuadrático
# esperado. A la larga nadie puede hacerlo mejor, y también ella es borrosa.
#
# `benchmarks/floor.py` calcula esa media para vídeos de dos dígitos, suponiendo conocidas con
# exactitud su forma y sus diez primeras posiciones. Su error es de unos **8.7**: una cota inferior
# para cualquier modelo. Entre esa cota y el modelo incluido está `benchmarks/tracks.py`, con unos
# **11.0** («con la ley aprendida», más abajo). Es una red pequeña que ha aprendido, con un millón
# de trayectorias simuladas, cómo se mueven los dígitos en Moving MNIST. Recibe las posiciones
# medidas de los dos sprites y no ve ni un píxel.

# %%
records = json.loads(Path("benchmarks/logs/records.json").read_text(encoding="utf-8"))
scores |= {"con la ley aprendida": records["tracks"], "cota inferior": records["floor"]}
for name, score in scores.items():
    print(f"{name:27}{score['mean']['mse']:6.1f}")

# %% [markdown]
# El error del modelo incluido tiene, pues, cuatro partes. De «incluido» a «con **sprites**»:
# distinguir dígitos que se cruzan. De ahí a «con la **ley** aprendida»: conocer la velocidad y las
# paredes con toda la precisión que permiten los fotogramas; el modelo tiene que aprender esa ley a
# partir de píxeles, y además sus propias predicciones borrosas se convierten en su entrada. De ahí
# a la **cota inferior**: medir los dígitos y aplicar la ley a la perfección. Y la propia cota: lo
# que el contexto no dice. (Los dos últimos errores, tomados de `benchmarks/logs`, son los de
# 1000 vídeos de prueba; los demás, los de nuestros vídeos de validación).
