# SPDX-License-Identifier: Apache-2.0
"""
Whether a language model keeps its language when it learns to act: perplexity on a fixed text before and after it was
pretrained on latent actions, through LoRA or in full.

    python measure.py --text_model SmolLM2-135M --data demo_output/data --labels outputs/labels

The language model is put behind a small vision model from scratch (of 64 x 64 pixels and 16 image tokens). A GGUF file is
loaded with `--gguf_file`, as transformers does with the package gguf.
"""

from __future__ import annotations

import argparse
import math
import tempfile

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipImageProcessorPil,
    set_seed,
)

from cyclemimic import (
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    CycleMimicTrainer,
    CycleMimicTrainingArguments,
)
from cyclemimic.data import CycleMimicCollator, DemonstrationDataset, LatentLabels, open_source
from cyclemimic.models.cyclemimic.tiny_vision_cyclemimic import TinyVisionConfig

IMAGE_SIZE, PATCH_SIZE = 64, 16
TEXT = """The harbour lay quiet in the early morning. Two fishermen were mending their nets while a third one sorted the
catch of the night into baskets of ice. A dog slept beside the stairs and took no notice of the gulls. When the first
ferry arrived, the square behind the market filled with people on their way to work, and the baker opened his shutters.
Water boils at a lower temperature on a high mountain, because the air presses on it less. Cooks who live there add a
few minutes to every recipe. The same holds for coffee, which tastes weaker when it is brewed with cooler water. Most
travellers get used to it within a week, and some of them even come to prefer it."""


def load_backbone(
    text_model: str, gguf_file: str | None, labels: LatentLabels
) -> tuple[LlavaForConditionalGeneration, CycleMimicProcessor]:
    """A LLaVA of the language model and a vision model from scratch, and the processor of a policy on it."""
    options = {} if gguf_file is None else {"gguf_file": gguf_file}
    tokenizer = AutoTokenizer.from_pretrained(text_model, **options)
    language_model = AutoModelForCausalLM.from_pretrained(text_model, dtype=torch.float32, **options)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    processor = CycleMimicProcessor(
        image_processor=SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        tokenizer=tokenizer,
        num_image_tokens=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        codebook_size=labels.codebook_size,
        num_latent_tokens=labels.num_latent_tokens,
    )
    config = LlavaConfig(
        text_config=language_model.config,
        vision_config=TinyVisionConfig(image_size=IMAGE_SIZE, patch_size=PATCH_SIZE),
        image_token_id=processor.image_token_id,
        image_seq_length=processor.num_image_tokens,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=language_model.config.tie_word_embeddings,
    )
    backbone = LlavaForConditionalGeneration(config)
    backbone.model.language_model.load_state_dict(language_model.model.state_dict())
    backbone.lm_head.load_state_dict(language_model.lm_head.state_dict())
    return backbone, processor


@torch.inference_mode()
def perplexity(backbone: LlavaForConditionalGeneration, processor: CycleMimicProcessor) -> float:
    """Of the fixed text."""
    inputs = processor.tokenizer(TEXT, return_tensors="pt")
    output = backbone.eval()(input_ids=inputs["input_ids"], labels=inputs["input_ids"])
    return math.exp(output.loss.item())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text_model", required=True, metavar="PATH", help="folder or Hub id of the language model")
    parser.add_argument("--gguf_file", metavar="NAME", help="file in it, where its weights are GGUF")
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="data sets with instructions")
    parser.add_argument("--labels", required=True, metavar="DIR", help="what `cyclemimic label` made of them")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="frames a step (default: %(default)s)")
    parser.add_argument("--learning_rate", type=float, default=2e-4, help="constant (default: %(default)s)")
    parser.add_argument(
        "--backbone_learning_rate", type=float, help="of the adapters, where rows of new tokens get another one"
    )
    parser.add_argument("--lora_rank", type=int, default=32, help="0 trains everything (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    set_seed(arguments.seed)
    labels = LatentLabels.from_folder(arguments.labels)
    sources = [open_source(path) for path in arguments.data]
    backbone, processor = load_backbone(arguments.text_model, arguments.gguf_file, labels)
    before = perplexity(backbone, processor)
    model = CycleMimicForLatentActionPrediction.from_backbone(backbone, processor)
    with tempfile.TemporaryDirectory() as folder:
        training = CycleMimicTrainingArguments(
            output_dir=folder,
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            lr_scheduler_type="constant",
            lora_rank=arguments.lora_rank or None,
            backbone_learning_rate=arguments.backbone_learning_rate,
            logging_steps=max(1, arguments.steps // 10),
            save_strategy="no",
            report_to="none",
            seed=arguments.seed,
        )
        trainer = CycleMimicTrainer(
            model=model,
            args=training,
            train_dataset=DemonstrationDataset(sources, labels, transform=processor.resize_images),
            data_collator=CycleMimicCollator(processor),
            processing_class=processor,
        )
        trainer.train()
        trainer.save_model(folder)
        trained = CycleMimicForLatentActionPrediction.from_pretrained(folder)
    after = perplexity(trained.backbone, processor)
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    print(f"latent action loss, nats a token: {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
    print(f"perplexity of the text: {before:.2f} before, {after:.2f} after ({100 * (after / before - 1):+.1f} %)")


if __name__ == "__main__":
    main()
