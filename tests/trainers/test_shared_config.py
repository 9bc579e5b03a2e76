# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic import CycleMimicTrainingArguments, LatentActionTokenizerTrainingArguments


@pytest.mark.parametrize("kind", [CycleMimicTrainingArguments, LatentActionTokenizerTrainingArguments])
def test_a_process_trains_on_one_gpu(kind, tmp_path, caplog):
    class OfFourGpus(kind):
        @property
        def n_gpu(self):
            return self._n_gpu or 4  # none on a processor

    assert OfFourGpus(output_dir=str(tmp_path), use_cpu=True).n_gpu == 1
    assert caplog.messages == ["training on one of 4 GPUs; `accelerate launch` starts a process each"]
    assert kind(output_dir=str(tmp_path), use_cpu=True).n_gpu == 0 and len(caplog.messages) == 1
