"""Data parallelism: the mapped axis, and what runs or is stored on it.

The training state is replicated but never stacked: `in_axes=None` hands it
to every device of every host, so one device and many share their code and
their checkpoints.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dvhflax import errors
from dvhflax.training import partners

AXIS = 'batch'

pmap = functools.partial(jax.pmap, axis_name=AXIS)
pmean = functools.partial(jax.lax.pmean, axis_name=AXIS)
pmax = functools.partial(jax.lax.pmax, axis_name=AXIS)
psum = functools.partial(jax.lax.psum, axis_name=AXIS)


def initialize(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins the processes of several hosts; must be the first use of JAX.

  Args:
    coordinator: `host:port` of process 0. None lets JAX read the cluster's
      environment (Slurm, Open MPI, Kubernetes, Cloud TPU).
    num_processes: number of processes, None as above.
    process_id: this process, from 0, None as above.
  """
  partners.initialize(coordinator, num_processes, process_id)


def replicate(create: Callable[..., Any], *args: Any) -> Any:
  """Runs `create(*args)` jitted, its result replicated on local devices."""
  return jax.jit(create, out_shardings=replicated())(*args)


def place(tree: Any) -> Any:
  """Copies host arrays to every local device."""
  return jax.device_put(tree, replicated())


def replicated() -> jax.sharding.NamedSharding:
  """A copy on every local device."""
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def shard(batch: Any) -> Any:
  """Splits `[B, ...]` arrays of this host to `[devices, B/devices, ...]`."""
  devices = jax.local_device_count()
  return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)


def local_slice(batch: int) -> slice:
  """The share of a global batch of `batch` samples this process feeds."""
  share = batch // jax.process_count()
  return slice(share * jax.process_index(), share * (jax.process_index() + 1))


def check_batch_size(batch: int, parts: int = 1) -> None:
  """Raises a ConfigError unless a batch splits over all devices and parts."""
  devices = jax.device_count()
  unit = devices * parts
  if batch % unit:
    below, above = batch // unit * unit, -(-batch // unit) * unit
    fitting = ' or '.join(str(b) for b in (below, above) if b)
    raise errors.ConfigError(
      f'batch_size={batch} does not split over {devices} devices'
      + (f' and batch_parts={parts}' if parts > 1 else '')
      + f'; use {fitting} (any multiple of {unit})'
    )


def assert_replicated(tree: Any) -> None:
  """Raises AssertionError if the local devices hold different values.

  `pmap(out_axes=None)` takes one device's word for all: a gradient that was
  not averaged would pass unseen.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    if not isinstance(leaf, jax.Array):
      continue
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    first, *others = [np.asarray(s.data) for s in leaf.addressable_shards]
    if not all(np.array_equal(first, o, equal_nan=True) for o in others):
      raise AssertionError(
        f'{jax.tree_util.keystr(path)} differs between devices'
      )
