"""Keras 3 on TensorFlow: models with a ``train_step``, trained by ``fit``: compiled as Keras chooses, or by XLA."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.speed.channel import Channel, Job, run, timed

HIDDEN, CHANNELS, WIDTH, DEPTH, HEADS, PATCH = 256, (32, 64, 128), 64, 3, 4, 4


def activation(gan: bool) -> Any:
    return layers.LeakyReLU(0.2) if gan else layers.Activation("silu")


def encoder(net: str, side: int, out: int, gan: bool) -> keras.Model:
    """Pictures ``(B, side, side, 1)`` to ``(B, out)``."""
    x = h = keras.Input((side, side, 1))
    if net == "mlp":
        h = layers.Dense(512, "relu")(layers.Flatten()(h))
    elif net == "conv":
        for channels in CHANNELS:
            h = activation(gan)(layers.Conv2D(channels, 3, strides=2, padding="same")(h))
        h = activation(gan)(layers.Dense(HIDDEN)(layers.Flatten()(h)))
    else:
        n = side // PATCH
        h = layers.Permute((1, 3, 2, 4))(layers.Reshape((n, PATCH, n, PATCH))(h))
        h = layers.Dense(WIDTH)(layers.Reshape((n * n, PATCH * PATCH))(h))
        h = layers.GlobalAveragePooling1D()(trunk(h))
    return keras.Model(x, layers.Dense(out)(h))


def decoder(net: str, latent: int, side: int, gan: bool) -> keras.Model:
    """Codes ``(B, latent)`` to logits ``(B, side, side, 1)``."""
    z = keras.Input((latent,))
    if net == "mlp":
        h = layers.Reshape((side, side, 1))(layers.Dense(side * side)(layers.Dense(512, "relu")(z)))
    elif net == "conv":
        sides = [side]
        for _ in CHANNELS:
            sides.append(math.ceil(sides[-1] / 2))
        h = activation(gan)(layers.Dense(HIDDEN)(z))
        h = layers.Dense(sides[-1] ** 2 * CHANNELS[-1])(h)
        h = activation(gan)(layers.Reshape((sides[-1], sides[-1], CHANNELS[-1]))(h))
        for channels, size in zip((*CHANNELS[-2::-1], CHANNELS[0] // 2), sides[-2::-1], strict=True):
            h = layers.Conv2DTranspose(channels, 4, strides=2, padding="same")(h)
            if h.shape[1] > size:
                h = layers.Cropping2D(((0, h.shape[1] - size), (0, h.shape[2] - size)))(h)
            h = activation(gan)(h)
        h = layers.Conv2D(1, 3, padding="same")(h)
    else:
        n = side // PATCH
        h = layers.Reshape((n * n, WIDTH))(layers.Dense(n * n * WIDTH)(z))
        h = layers.Dense(PATCH * PATCH)(trunk(layers.Dense(WIDTH)(h)))
        h = layers.Permute((1, 3, 2, 4))(layers.Reshape((n, n, PATCH, PATCH))(h))
        h = layers.Reshape((side, side, 1))(h)
    return keras.Model(z, h)


class Positions(layers.Layer):
    """Adds learned positions to tokens."""

    def build(self, shape: tuple[int, ...]) -> None:
        spread = keras.initializers.RandomNormal(stddev=0.5)
        self.positions = self.add_weight(shape=shape[1:], initializer=spread, name="positions")

    def call(self, tokens: Any) -> Any:
        return tokens + self.positions


def trunk(h: Any) -> Any:
    """Positions, transformer blocks and the last normalisation."""
    h = Positions()(h)
    for _ in range(DEPTH):
        n = layers.LayerNormalization(epsilon=1e-5)(h)
        h = h + layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(n, n)
        n = layers.Dense(4 * WIDTH, "gelu")(layers.LayerNormalization(epsilon=1e-5)(h))
        h = h + layers.Dense(WIDTH)(n)
    return layers.LayerNormalization(epsilon=1e-5)(h)


class VAE(keras.Model):
    def __init__(self, net: str, latent: int, side: int) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder(net, side, 2 * latent, False), decoder(net, latent, side, False)

    def each(self, x: Any) -> Any:
        """The negative bound of every picture, in nats."""
        mean, log_variance = tf.split(self.encoder(x), 2, 1)
        z = mean + tf.random.normal(tf.shape(mean)) * tf.exp(0.5 * log_variance)
        distortion = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=self.decoder(z))
        rate = -0.5 * tf.reduce_sum(1 + log_variance - mean**2 - tf.exp(log_variance), 1)
        return tf.reduce_sum(distortion, (1, 2, 3)) + rate

    def call(self, x: Any) -> Any:
        return self.each(x)

    def train_step(self, x: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.each(x))
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


class GAN(keras.Model):
    def __init__(self, net: str, latent: int, side: int, rate: float, betas: tuple[float, float]) -> None:
        super().__init__()
        self.critic, self.decoder, self.latent = encoder(net, side, 1, True), decoder(net, latent, side, True), latent
        self.of_critic = keras.optimizers.Adam(rate, *betas, epsilon=1e-8)

    def made(self, x: Any) -> Any:
        return tf.sigmoid(self.decoder(tf.random.normal((tf.shape(x)[0], self.latent))))

    def train_step(self, x: Any) -> dict[str, Any]:
        made = self.made(x)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.softplus(-self.critic(x)) + tf.nn.softplus(self.critic(made)))
        weights = self.critic.trainable_variables
        self.of_critic.apply(tape.gradient(loss, weights), weights)
        weights = self.decoder.trainable_variables
        with tf.GradientTape() as tape:
            own = tf.reduce_mean(tf.nn.softplus(-self.critic(self.made(x))))
        self.optimizer.apply(tape.gradient(own, weights), weights)
        return {"loss": loss}


class Paced(keras.callbacks.Callback):
    """Holds the training at the end of every epoch."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.worker = worker

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.worker.channel.lap(self.worker)


class Worker:
    """Trains one workload, and uses the model."""

    def __init__(self, channel: Channel, job: Job) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(job.threads)
        keras.utils.set_random_seed(0)
        workload = job.workload
        self.channel, self.folder, self.epochs, self.batch = channel, job.folder, job.epochs, workload["batch"]
        self.x = np.load(job.data).transpose(0, 2, 3, 1).astype("float32") / 255
        net, self.latent, side = workload["net"], workload["latent"], workload["side"]
        rate, betas = workload["rate"], tuple(workload["betas"])
        vae = workload["model"] == "vae"
        self.model = VAE(net, self.latent, side) if vae else GAN(net, self.latent, side, rate, betas)
        self.model.compile(optimizer=keras.optimizers.Adam(rate, *betas, epsilon=1e-8), jit_compile=job.options["jit"])

    def parts(self) -> list[keras.Model]:
        """Encoder and decoder, or critic and generator."""
        first = self.model.encoder if isinstance(self.model, VAE) else self.model.critic
        return [first, self.model.decoder]

    def about(self) -> dict[str, Any]:
        versions = {"keras": keras.__version__, "tensorflow": tf.__version__}
        return {
            "parameters": sum(part.count_params() for part in self.parts()),
            "versions": versions,
            "precision": "fp32",
            "note": f"jit_compile={self.model.jit_compile}",
        }

    def fit(self) -> None:
        self.channel.wait(self)
        self.model.fit(
            self.x, batch_size=self.batch, epochs=self.epochs, shuffle=True, verbose=0, callbacks=[Paced(self)]
        )

    def generate(self, n: int) -> float:
        z = np.random.default_rng(0).normal(size=(n, self.latent)).astype("float32")
        return timed(lambda: tf.sigmoid(self.model.decoder.predict(z, batch_size=512, verbose=0)).numpy())

    def encode(self, n: int) -> float:
        return timed(lambda: self.model.encoder.predict(self.x[:n], batch_size=512, verbose=0)[:, : self.latent])

    def score(self, n: int) -> float:
        return timed(lambda: self.model.predict(self.x[:n], batch_size=512, verbose=0))

    def save(self) -> float:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            return timed(lambda: self.model.save_weights(Path(folder) / "checkpoint.weights.h5"))

    def weights(self, path: str) -> None:
        """Saves the weights of dense layers in their order, as PyTorch has them."""
        np.savez(path, *[w.T for part in self.parts() for w in part.get_weights()])


if __name__ == "__main__":
    run(Worker)
