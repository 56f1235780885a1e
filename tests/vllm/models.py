"""Two tiny models with random weights, made on the spot: `.venv-vllm/bin/python tests/vllm/models.py FOLDER`.

They speak nonsense, in the real formats: a server loads them as it loads the real ones, reads pictures, counts tokens,
and obeys schemas.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

CONTEXT = 32768
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>
{%- else %}{{ part.text }}{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TEXT = """\
A man in a red jacket walks from the left side of the kitchen to the table and puts down a blue cup.
The camera pans slowly across a green field; two dogs run towards the water, then a child throws a yellow ball.
At first the car is parked beside the house. Later it is driven away, and the street is empty.
What does the woman do after she has closed the window? Which of these events happens first, and how long does it take?
{"reference": "k3f9x2a1", "summary": "Outside, near the river, at night", "events": [{"title": "Dinner"}]}
{"questions": [{"question": "Where is the bicycle?", "answer": "Behind the door", "evidence": ["c0002", "c0010"]}]}
"""
PICTURES = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "rescale_factor": 1 / 255,
    "resample": 3,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 512 * 28 * 28},
    "processor_class": "Qwen2VLProcessor",
}


def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT.splitlines(), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
        model_max_length=CONTEXT,
    )
    made.chat_template = TEMPLATE
    return made


def _lean(model: Qwen2ForCausalLM | Qwen2VLForConditionalGeneration, vocabulary: dict[str, int]) -> None:
    """Let a quote come about once in six tokens, else every text runs to its bound; and lists rather go on than end.

    One feature is made the same for all tokens, and so reaches the head as a constant: a bias, which the head lacks.
    """
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = 0.2
        head = model.get_output_embeddings().weight
        for token, number in vocabulary.items():
            if token == '"':
                head[number, 0] = 0.65
            elif token[-1] in "{," or token.endswith('{"'):
                head[number, 0] = 0.45


def main(folder: Path) -> None:
    words = tokenizer()
    size = -(-len(words) // 64) * 64
    token = {name: words.convert_tokens_to_ids(name) for name in SPECIAL}
    text = {
        "vocab_size": size,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "bos_token_id": token["<|endoftext|>"],
        "eos_token_id": token["<|im_end|>"],
        "pad_token_id": token["<|endoftext|>"],
    }
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 128, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    torch.manual_seed(0)
    writer = Qwen2ForCausalLM(Qwen2Config(**text))
    captioner = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config={
                **text,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
            },
            vision_config=vision,
            image_token_id=token["<|image_pad|>"],
            video_token_id=token["<|video_pad|>"],
            vision_start_token_id=token["<|vision_start|>"],
            vision_end_token_id=token["<|vision_end|>"],
        )
    )
    for name, model in (("writer", writer), ("captioner", captioner)):
        _lean(model, words.get_vocab())
        model.generation_config = GenerationConfig(
            bos_token_id=text["bos_token_id"], eos_token_id=text["eos_token_id"], pad_token_id=text["pad_token_id"]
        )
        model.to(torch.bfloat16).save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    images = {**PICTURES, "image_processor_type": "Qwen2VLImageProcessor"}
    videos = {**PICTURES, "video_processor_type": "Qwen2VLVideoProcessor", "do_sample_frames": False}
    both = {"processor_class": "Qwen2VLProcessor", "image_processor": images, "video_processor": videos}
    for file, settings in (
        ("preprocessor_config.json", images),
        ("video_preprocessor_config.json", videos),
        ("processor_config.json", both),
    ):
        (folder / "captioner" / file).write_text(json.dumps(settings, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
