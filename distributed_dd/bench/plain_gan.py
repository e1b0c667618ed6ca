"""The usual generator step with a pool, as it is commonly written: the slow side of a comparison."""

from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from distributed_dd.learning.networks.batch_norm import BatchNorm
from distributed_dd.learning.networks.generator import conditioned


class Pictures(Dataset):
    """Images one by one, converted and normalised when they are asked for."""

    def __init__(self, bytes_nCHW: Tensor, targets: Tensor) -> None:
        self.bytes_nCHW, self.targets = bytes_nCHW, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return (self.bytes_nCHW[index].float() / 255 - 0.5) / 0.5, self.targets[index]


def with_torchs_norm(layers: nn.Module) -> nn.Module:
    """The generator's layers with torch's own batch norm."""
    changed: list[nn.Module] = []
    for number, layer in enumerate(layers.children()):
        if isinstance(layer, BatchNorm):
            size = len(layer.weight)
            layer = nn.BatchNorm1d(size) if number == 1 else nn.BatchNorm2d(size)
        changed.append(layer)
    return nn.Sequential(*changed)


class PlainLoop:
    """Modules, optimisers and data loaders; a new loader for the judge's batches at every step."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        judge: nn.Module,
        data: Dataset,
        batch_size: int,
        net_steps: int,
        noise_size: int,
        num_classes: int,
        loader_workers: int,
    ) -> None:
        self.generator, self.discriminator, self.judge = generator, discriminator, judge
        self.data, self.batch_size, self.net_steps = data, batch_size, net_steps
        self.noise_size, self.num_classes, self.loader_workers = noise_size, num_classes, loader_workers
        self.optimizers = [
            torch.optim.Adam(network.parameters(), 5e-6, (0.0, 0.9)) for network in (generator, discriminator)
        ]
        self.judges = torch.optim.SGD(judge.parameters(), 0.01, 0.9, weight_decay=5e-4)
        self.real = iter(self._loader())

    def _loader(self) -> DataLoader:
        return DataLoader(self.data, self.batch_size, shuffle=True, drop_last=True, num_workers=self.loader_workers)

    def step(self) -> None:
        """One update of the judge's ``net_steps``, of the generator, and of the discriminator."""
        try:
            real, classes = next(self.real)
        except StopIteration:
            self.real = iter(self._loader())
            real, classes = next(self.real)
        for images, targets in islice(self._loader(), self.net_steps):
            self.judges.zero_grad()
            F.cross_entropy(self.judge(images), targets).backward()
            self.judges.step()
        self._generator_step(real, classes)
        self._discriminator_step(real, classes)

    def _generated(self, classes: Tensor) -> Tensor:
        noise = torch.randn(len(classes), self.noise_size)
        return self.generator(conditioned(noise, classes, self.num_classes))

    def _generator_step(self, real: Tensor, classes: Tensor) -> None:
        fake = self._generated(classes)
        out = self.discriminator(fake)
        loss = F.cross_entropy(out[:, 1:], classes) - out[:, 0].mean()
        with torch.no_grad():
            target = F.log_softmax(self.judge(real), 1)
        loss = loss + 0.01 * (F.log_softmax(self.judge(fake), 1) - target).square().mean()
        self.optimizers[0].zero_grad()
        loss.backward()
        self.optimizers[0].step()

    def _discriminator_step(self, real: Tensor, classes: Tensor) -> None:
        asked = torch.randint(self.num_classes, classes.shape)
        fake = self._generated(asked).detach()
        ours, theirs = self.discriminator(fake), self.discriminator(real)
        share = torch.rand(len(real), 1, 1, 1)
        between = (share * real + (1 - share) * fake).requires_grad_()
        source = self.discriminator(between)[:, 0]
        (slope,) = torch.autograd.grad(source, between, torch.ones_like(source), create_graph=True)
        loss = ours[:, 0].mean() - theirs[:, 0].mean()
        loss = loss + F.cross_entropy(ours[:, 1:], asked) + F.cross_entropy(theirs[:, 1:], classes)
        loss = loss + 10 * (slope.flatten(1).norm(2, 1) - 1).square().mean()
        self.optimizers[1].zero_grad()
        loss.backward()
        self.optimizers[1].step()
