"""Values that pass through complex numbers are followed: linear maps by their transpose, others as autograd does."""

from __future__ import annotations

import pytest
import torch

from tests.engine.trace.test_writes import PICTURE, Around, statements
from tests.networks import seeded
from tests.oracles import steered_projections
from vizapp.engine.projection.project import Certificate, project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.trace.sites import Unit, survey

W = "(torch.arange(4) + 1j * torch.arange(4).flip(0)).to(torch.complex128).view(4, 1, 1)"
F2, I2 = "torch.fft.fft2", "torch.fft.ifft2"
# With what deconvnet counts.
CASES = {
    "rfft2": ("x = x + torch.fft.irfft2(torch.fft.rfft2(x) * 0.5j, s=x.shape[-2:])", Certificate()),
    "per channel": (f"x = {I2}({F2}(x) * {W}).imag", Certificate()),
    "divided": (f"x = {I2}({F2}(x) / ({W} + 1)).imag", Certificate()),
    "filter": (
        "f = torch.fft.rfft2(x); p = torch.arange(f[0].numel()).view(f[0].shape).double(); "
        "x = torch.fft.irfft2(f * torch.polar(torch.ones_like(p), p), s=(8, 8))",
        Certificate(),
    ),
    "relu of the parts": (
        "f = torch.fft.rfft2(x); a, b = F.relu(torch.cat([f.real, f.imag], 1)).chunk(2, 1); "
        "x = torch.fft.irfft2(torch.complex(a, b), s=(8, 8))",
        Certificate(paper=1),
    ),
    "view_as_real": (f"y = F.relu(torch.view_as_real({F2}(x))); x = {I2}(torch.view_as_complex(y)).real", Certificate(paper=1)),
    "abs": (f"x = {F2}(x).abs() / 8", Certificate(differentiated=1)),
    "angle": (f"x = {F2}(x).angle()", Certificate(differentiated=1)),
    "product": ("f = torch.fft.rfft2(x); x = torch.fft.irfft2(f * f.flip(1), s=(8, 8))", Certificate(differentiated=1)),
    "conj": (f"f = {F2}(x); x = {I2}(f.conj() * (1 + 2j) + f / (2 - 1j)).imag", Certificate()),
    "gate": (f"f = {F2}(x); x = {I2}(f * f.mean((2, 3), keepdim=True) * 1j).real", Certificate(gates=1)),
    "written": (
        f"f = torch.fft.fftshift({F2}(x), (-2, -1)); f[..., 2:6, 2:6] = 0; "
        f"x = {I2}(torch.fft.ifftshift(f, (-2, -1))).real",
        Certificate(),
    ),
    "axis": ("x = torch.fft.irfft(torch.fft.rfft(x, None, 2) * 1j, 8, 2) + torch.fft.fftn(x, dim=(1, 2)).imag", Certificate()),
    "hermitian": ("x = torch.fft.hfft(torch.complex(x, x.flip(1)), n=8)", Certificate()),
    "einsum": (
        f"f = {F2}(x); x = torch.einsum('bchw,cd->bdhw', f, torch.complex(torch.eye(4), torch.ones(4, 4)).to(f.dtype)).imag",
        Certificate(),
    ),
    "cast": ("x = (x.to(torch.complex128) * (1 + 1j)).imag", Certificate()),
    "single": (f"x = {I2}({F2}(x.float())).real.double()", Certificate()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_complex_values_are_followed(name: str) -> None:
    code, certificate = CASES[name]
    module = seeded(Around(statements(code))).double()
    sites = survey(module, PICTURE)
    units = [Unit(sites[-1].name, channel) for channel in range(3)]
    for rule in ("deconvnet", "guided", "gradient"):
        expected = torch.stack(steered_projections(module, PICTURE, sites[-1].name, [(c,) for c in range(3)], rule))
        (down,) = project(module, PICTURE, units, sites, rule_named(rule), seed="one")
        assert (down.values - expected).abs().max() <= (1e-6 if name == "single" else 1e-12) * expected.abs().max()
        assert expected.abs().max() > 0
        if rule == "deconvnet":
            assert down.certificate == certificate
