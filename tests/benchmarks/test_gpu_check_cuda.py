"""The complete system of gpu_check on the CUDA platform, over the fake driver."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cuda_dub_parts import tensorrt_stands_in
from fake_cuda.control import FakeCuda
from fake_cuda.fixture import over_fake_cuda
from toy_half_networks import publish_half_toys

from dubstream.benchmarks.gpu_check import full_quality
from dubstream.benchmarks.gpu_check.journal import Journal
from dubstream.benchmarks.gpu_check.setting import Setting


@over_fake_cuda()
def test_the_complete_system_on_cuda_is_like_the_hosts(fake: FakeCuda, kernels: str) -> None:
    fake.policy("eager")
    journal = Journal({})
    with TemporaryDirectory() as name, fake.nothing_left(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_quality, "require_package", lambda name, why: None)
        publish_half_toys(Path(name))
        with tensorrt_stands_in(kernels, Path(name)), journal.part("full"):
            full_quality.check(Setting("cuda:0", Path(name), quick=True), journal)
    assert [row["status"] for row in journal.rows] == ["passed"] * 4, journal.summary()
    # Levels that rounded the other way at a tie, among thousands of equal ones.
    assert min(row["psnr_db"] for row in journal.rows[::2]) > 70
