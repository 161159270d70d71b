"""The whole job on the CUDA platform, over the fake driver, against the same on the host."""

from __future__ import annotations

from cuda_dub_parts import assert_close, host_and_cuda
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda

FRAMES = 14


@over_fake_cuda()
def test_a_dub_with_uint8_pictures_equals_the_hosts(fake: FakeCuda, kernels: str) -> None:
    check(fake, kernels, "fp16")


@over_fake_cuda()
def test_a_dub_with_float_planes_equals_the_hosts(fake: FakeCuda, kernels: str) -> None:
    check(fake, kernels, "fp32")


def check(fake: FakeCuda, kernels: str, precision: str) -> None:
    (host, expected), (cuda, found) = host_and_cuda(fake, kernels, precision, FRAMES)
    assert host.busy_s.keys() == cuda.busy_s.keys() >= {"prepare/recon", "prepare/dnet", "synthesise/crop"}
    assert_close(found, expected)
