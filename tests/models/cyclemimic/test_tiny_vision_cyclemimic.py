# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from transformers import AutoConfig, AutoModel

from cyclemimic.models.cyclemimic.tiny_vision_cyclemimic import TinyVisionConfig, TinyVisionModel

SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 32}


def test_one_feature_a_patch_rows_first():
    torch.manual_seed(0)
    model = TinyVisionModel(TinyVisionConfig(**SIZES)).eval()
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    output = model(image)
    assert output.last_hidden_state.shape == (1, 16, 32)
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    output.last_hidden_state[0, 1 * 4 + 2, 0].backward()
    # Three convolutions of stride 2 centre the feature of row 1, column 2 on pixel (8, 16).
    influence = image.grad[0].square().sum(0)
    row = (influence.sum(1) * torch.arange(32)).sum() / influence.sum()
    column = (influence.sum(0) * torch.arange(32)).sum() / influence.sum()
    assert abs(row - 8) < 2 and abs(column - 16) < 2


def test_every_image_is_seen_alone():
    torch.manual_seed(0)
    model = TinyVisionModel(TinyVisionConfig(**SIZES)).train()
    images = torch.randn(3, 3, 32, 32)
    together = model(images).last_hidden_state
    alone = torch.cat([model(image[None]).last_hidden_state for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_save_and_load_through_the_auto_classes(tmp_path):
    model = TinyVisionModel(TinyVisionConfig(**SIZES)).eval()
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).patch_size == 8
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(
            AutoModel.from_pretrained(tmp_path)(images).last_hidden_state, model(images).last_hidden_state
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 12}, "`patch_size` must be a power of two that divides `image_size`"),
        ({"patch_size": 64}, "got 64"),
        ({"hidden_size": 40}, "`hidden_size` must be a multiple of 32, got 40"),
    ],
)
def test_sizes_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        TinyVisionConfig(**{**SIZES, **change})
