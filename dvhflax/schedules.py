"""Learning rate over the updates, dropout over the levels: eqs. (6), (7)."""

import jax
import jax.numpy as jnp
import optax


def inverse_time_decay(initial: float, decay: float) -> optax.Schedule:
  """Learning rate of equation (6): `initial / (1 + decay * iterations)`.

  Args:
    initial: learning rate of the first update.
    decay: decay factor per update.

  Returns:
    A schedule from the number of updates made so far to the learning rate.
  """

  def schedule(iterations: jax.typing.ArrayLike) -> jax.Array:
    return initial / (1 + decay * jnp.asarray(iterations, jnp.float32))

  return schedule


def dropout_rate(level: int, levels: int, initial: float) -> float:
  """Dropout rate of equation (7): `initial * level / levels`.

  Args:
    level: 1 at full size, one more after each pooling; the bottleneck counts
      as the last level.
    levels: number of poolings, 7 for the paper's grid.
    initial: rate of the deepest level.
  """
  return initial * min(level, levels) / levels
