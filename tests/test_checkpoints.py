# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from cyclemimic.checkpoints import choose_device


@pytest.mark.parametrize("name", [None, "cuda"])
def test_processes_of_a_machine_take_a_gpu_each(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose_device(name) == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert choose_device(name) == torch.device("cuda", 2)


def test_a_device_that_is_not_there():
    assert choose_device(None) == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "gpu"):
        with pytest.raises(ValueError, match=f"`device` must be one that torch can use here, such as cpu, got {name}"):
            choose_device(name)
