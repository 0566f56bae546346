"""The paper's network in PyTorch, channels last; see run.py.

python benchmarks/network_torch.py train-HOW|predict-HOW B X Y Z
python benchmarks/network_torch.py convolution-eager|gradient-eager \
  B X Y Z C F

HOW is `eager` or `compiled`, and for a GPU its precision, as in
`eager-bfloat16`. Needs an environment with torch.
"""

import contextlib
import functools

from cases import PRECISIONS
from measuring import answer
import torch
from torch import nn
import torch.nn.functional as F

STRUCTURES, WISH = 4, 128
CHANNELS = (16, 32, 64, 128, 128, 128, 128)
LAST = torch.channels_last_3d
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


class Layer(nn.Module):
  """Convolution, batch norm, ReLU."""

  def __init__(self, channels, features, size):
    super().__init__()
    self.convolution = nn.Conv3d(channels, features, size, padding=size // 2)
    self.norm = nn.BatchNorm3d(features)

  def forward(self, x):
    x = self.convolution(x)
    if self.training and x.numel() == x.shape[1]:
      # PyTorch refuses one value a channel: batch 1 at the bottleneck.
      norm = self.norm
      mean, variance = norm.running_mean, norm.running_var
      x = F.batch_norm(x, mean, variance, norm.weight, norm.bias, False)
    else:
      x = self.norm(x)
    return F.relu(x, inplace=True)


class Net(nn.Module):
  """Figure 3 of Ma et al. 2021 for a grid of powers of two."""

  def __init__(self, grid):
    super().__init__()
    self.windows = []
    while max(grid) > 1:
      self.windows.append(tuple(min(n, 2) for n in grid))
      grid = tuple(max(n // 2, 1) for n in grid)
    channels = CHANNELS[: len(self.windows)]
    sizes = [3] * (len(channels) - 1) + [1]

    def block(inputs, features, size):
      return nn.Sequential(
        Layer(inputs, features, size), Layer(features, features, size)
      )

    self.encoder = nn.ModuleList(
      block(i, c, k)
      for i, c, k in zip((STRUCTURES, *channels), channels, sizes)
    )
    self.bottleneck = block(channels[-1], 128, 1)
    above = (*channels[1:], 128 + WISH)
    self.decoder = nn.ModuleList(
      block(a + c, c, k) for a, c, k in zip(above, channels, sizes)
    )
    self.dose = nn.Conv3d(channels[0], 1, 1)

  def forward(self, x, wish):
    copies = []
    for layers, window in zip(self.encoder, self.windows):
      x = layers(x)
      copies.append(x)
      x = F.max_pool3d(x, window)
    x = self.bottleneck(x)
    x = torch.cat([x, wish[:, :, None, None, None]], 1)
    for layers, copy in zip(reversed(self.decoder), reversed(copies)):
      x = F.interpolate(x, size=copy.shape[2:], mode='nearest')
      x = layers(torch.cat([x, copy], 1))
    return self.dose(x)


def _wait():
  if DEVICE == 'cuda':
    torch.cuda.synchronize()


def _precision(name):
  """A context in which products have a precision."""
  torch.backends.cudnn.benchmark = True
  torch.backends.cudnn.allow_tf32 = name == 'tf32'
  torch.set_float32_matmul_precision('high' if name == 'tf32' else 'highest')
  if name == 'bfloat16':
    return torch.autocast(DEVICE, torch.bfloat16)
  return contextlib.nullcontext()


def _network(how, batch, grid):
  torch.manual_seed(0)
  net = Net(grid).to(DEVICE, memory_format=LAST)
  x = (torch.rand(batch, STRUCTURES, *grid, device=DEVICE) < 0.3).float()
  dose = torch.rand(batch, 1, *grid, device=DEVICE).to(memory_format=LAST)
  form, _, precision = how.partition('-')
  apply = torch.compile(net) if form == 'compiled' else net
  wish = torch.rand(batch, WISH, device=DEVICE)
  return net, apply, x.to(memory_format=LAST), wish, dose, _precision(precision)


def train(how, batch, *grid):
  """A whole update: loss, gradient, Adam."""
  net, apply, x, wish, dose, precision = _network(how, batch, grid)
  net.train()
  optimizer = torch.optim.Adam(net.parameters(), 1e-3)

  def call():
    optimizer.zero_grad(set_to_none=True)
    with precision:
      loss = F.mse_loss(apply(x, wish).float(), dose)
    loss.backward()
    optimizer.step()
    _wait()

  return call


def predict(how, batch, *grid):
  """Masks and a wish to a dose."""
  net, apply, x, wish, _, precision = _network(how, batch, grid)
  net.eval()

  def call():
    with torch.inference_mode(), precision:
      apply(x, wish)
    _wait()

  return call


def _layer(batch, x, y, z, channels, features):
  layer = nn.Conv3d(channels, features, 3, padding=1, bias=False)
  inputs = torch.randn(batch, channels, x, y, z).to(memory_format=LAST)
  return layer.to(memory_format=LAST), inputs


def convolution(*shape):
  """One 3x3x3 layer."""
  layer, x = _layer(*shape)

  def call():
    with torch.inference_mode():
      layer(x)

  return call


def gradient(*shape):
  """One 3x3x3 layer's gradients to its input and its kernel."""
  layer, x = _layer(*shape)
  y = layer(x.requires_grad_())
  weight = torch.randn_like(y)
  wanted = (x, layer.weight)
  return lambda: torch.autograd.grad(y, wanted, weight, retain_graph=True)


if __name__ == '__main__':
  hows = [
    form + end
    for form in ('eager', 'compiled')
    for end in ('', *(f'-{precision}' for precision in PRECISIONS))
  ]
  of_network = {
    f'{case.__name__}-{how}': functools.partial(case, how)
    for case in (train, predict)
    for how in hows
  }
  of_layer = {
    'convolution-eager': convolution,
    'gradient-eager': gradient,
  }
  answer({**of_network, **of_layer})
