"""The networks of ``training_cases.py`` written by hand, with torch alone."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 43


class LocalContrast(nn.Module):
    """Local contrast normalisation (see ``stnbench.nn.layers.ContrastiveNorm``) with band matrices."""

    def __init__(self, kernel: list[float], side: int) -> None:
        super().__init__()
        half = len(kernel) // 2
        band = torch.zeros(side, side, dtype=torch.float64)
        for row in range(side):
            for column in range(max(0, row - half), min(side, row + half + 1)):
                band[row, column] = kernel[column - row + half] / sum(kernel)
        self.register_buffer("rows", band.float())
        self.register_buffer("columns", band.T.float().contiguous())
        self.register_buffer("coef", (band.sum(1)[:, None] * band.sum(1)).float())

    def forward(self, x: Tensor) -> Tensor:
        """The normalised maps."""
        v = x - self.mean(x) / self.coef
        deviation = self.mean(v.square()).clamp(min=(1e-4 * self.coef).square()).sqrt() / self.coef
        return v * deviation.reciprocal()

    def mean(self, x: Tensor) -> Tensor:
        """Over the window and all channels."""
        return self.rows @ x.mean(1, keepdim=True) @ self.columns


def gaussian() -> list[float]:
    """The kernel of the preprocessing."""
    return [math.exp(-(((i - 3) / 1.75) ** 2) / 2) for i in range(7)]


class Network(nn.Module):
    """Localisation network, affine sampling, features, head."""

    def __init__(
        self, locnet: tuple[int, int, int], side: int, output: int, features: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
        a, b, c = locnet
        self.locnet = nn.Sequential(
            nn.MaxPool2d(2),
            *(nn.Conv2d(3, a, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(a, b, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()),
            nn.Flatten(),
            *(nn.Linear(b * (side // 8) ** 2, c), nn.ReLU(), nn.Linear(c, 6)),
        )
        self.output = output
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        theta = self.locnet(x).view(-1, 2, 3)
        grid = functional.affine_grid(theta, [len(x), 3, self.output, self.output], align_corners=True)
        return self.head(self.features(functional.grid_sample(x, grid, align_corners=True)))


def lecun(sizes: tuple[int, int, int], locnet: tuple[int, int, int], side: int) -> Network:
    """Two stages of conv 5x5, pooled before ReLU, with local contrast normalisation by a 9x9 box."""
    first, second, hidden = sizes
    features = nn.Sequential(
        *(nn.Conv2d(3, first, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), LocalContrast([1.0] * 9, side // 2)),
        *(nn.Conv2d(first, second, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), LocalContrast([1.0] * 9, side // 4)),
        nn.Flatten(),
    )
    head = nn.Sequential(nn.Linear(second * (side // 4) ** 2, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))
    return Network(locnet, side, side, features, head)


def modern(sizes: tuple[int, ...], locnet: tuple[int, int, int], side: int, output: int) -> Network:
    """Stages of conv 3x3, pooling, conv 3x3, all with batch norm and ReLU; then every channel's average."""
    layers: list[nn.Module] = []
    for before, size in zip((3, *sizes), sizes, strict=False):
        layers += [nn.Conv2d(before, size, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(size), nn.ReLU()]
        layers += [nn.Conv2d(size, size, 3, padding=1, bias=False), nn.BatchNorm2d(size), nn.ReLU()]
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(locnet, side, output, features, nn.Linear(sizes[-1], CLASSES))


def take_weights(network: Network, source: nn.Module) -> None:
    """Start with the weights of stnbench's network of the same layers, which come in the same order."""
    with torch.no_grad():
        for own, other in zip(network.parameters(), source.parameters(), strict=True):
            own.copy_(other)
