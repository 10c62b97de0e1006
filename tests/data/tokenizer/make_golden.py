#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden token ids that models/tokenizer is tested against, from independent implementations.

usage: make_golden.py SHARED
  SHARED  a folder with tokenizers/<name>/tokenizer.json (or tokenizer.model) and stories260K/

Needs: pip install tokenizers sentencepiece. Writes beside itself:
  corpus.json           the texts
  synthetic/*.json      small tokenizers, trained on the corpus, for parts that the real ones lack
  golden/<name>.json    the special tokens that belong around a text, and per text [ids, plain, short, full]:
                        ids with special tokens recognised; plain if it differs without; the ids decoded without
                        special tokens if that is not the text; decoded with them if that differs again.
                        SentencePiece never recognises special tokens: only plain has a meaning there
"""
import json
import pathlib
import sys

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
GPT4_DIGITS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def corpus():
    """Nasty texts: each has hurt some tokenizer."""
    texts = [
        "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\r\n", "\r", "\t\n", " \n", "\n ", " \n \n ", "\r\n\r\n x",
        "a", " a", "a ", " a ", "  a  b   c    d     e", "a\tb\t\tc\t\t\td", "Hello world", " Hello world", "Hello  World!",
        "Hello, y'all! How are you 😁 ?我想在apple工作1314151天～",
        "I'm you're HE'S WE'VE they'll i'd I'D can't CAN'T it''s 's 'S 'ſ 'll'LL x'y",
        "0 00 000 0000 00000 000000 1234567890 3.14159 1,234,567 1e-10 0x1F ½ ² Ⅷ ٣٤٥ １２３ 𝟙𝟚𝟛 ೧೨",
        "ünïcödé naïve café Straße Ærøskøbing ĐặngVănHùng",
        "cafe\u0301 A\u030a \u212b \u1e9b\u0323 q\u0307\u0323 q\u0323\u0307 o\u0302\u0323\u0301 \u0344 \u0958 \u2126",
        "\u1100\u1161\u11a8 각 각\u11a8 한국어 텍스트입니다. 안녕하세요",
        "日本語のテキスト、カタカナ、ひらがな。漢字と仮名まじり文！",
        "中文文本，没有空格。我们测试一下标点符号：《书名》、“引号”……",
        "Русский текст. Українська мова: ї, є, ґ. Ελληνικά κείμενα· ΣΊΣΥΦΟΣ",
        "العربية من اليمين إلى اليسار، ١٢٣ עברית עם ניקוד: שָׁלוֹם",
        "हिन्दी पाठ क्षत्रिय বাংলা লেখা தமிழ் ไทยไม่มีเว้นวรรค ລາວ ភាសាខ្មែរ ကမ္ဘာ",
        "👩‍👩‍👧‍👦 👨🏽‍💻 🏳️‍🌈 🇩🇪🇯🇵 ❤️ 1️⃣ 🤦🏼‍♂️ 😀😃😄", "🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅ 🦙🦙 3 33",
        "\u200b zero\u200bwidth \u200d \ufeffbom\ufeff \u00ad soft \u2060 \u180e mongolian\u180evowel",
        "\u00a0nbsp\u00a0\u00a0two \u2003em \u3000ideographic\u3000 \u2028line\u2029para \u0085nel \u1680ogham \u202f \u205f",
        "\x00nul\x00 \x01\x02\x1b[31mred\x1b[0m \x7f \x0b\x0c", "\ufffd \ufffe \uffff \U0010ffff \ud7ff \ue000",
        "x\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308 z\u0335\u0321\u0322\u0331a\u0337l\u0338g\u0336o",
        "for (int i = 0; i < n; ++i) {\n\tif (a[i] != b[i])  return -1;  // no\n}\n\n\n#include <x.h>\r\n    x = {'k': [1, 2]}",
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "!!!???...,,,;;;:::---___===+++***///\\\\\\", "a.b,c;d:e!f?g(h)i[j]k{l}m",
        "http://www.example.com/path?query=1&x=%20#frag user@mail.example.org C:\\Windows\\System32",
        "ALLCAPS CamelCase snake_case kebab-case mixedCASEWord iPhone15ProMax", "$100 €5 £3.50 ¥1000 ₿1 50% 5‰ 10°C ±2 ×3",
        "“curly” ‘quotes’ – — … « guillemets » ‹x› ¿qué? ¡sí!", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β → ∑ ∫ √2 ≠ ∞ ⊂ ⊆",
        "x" * 70, "ab" * 60, " " * 300, "\n" * 40, "0" * 200, "=" * 130, "é" * 60, "我" * 60, "😀" * 20, "a " * 60,
        " \t" * 20, "\u0301" * 20, "the quick brown fox jumps over the lazy dog " * 8, "supercalifragilisticexpialidocious",
        "<s>", "</s>", "<unk>", "<s>a</s>", "<s> a </s> b", "<0x0A>", "<0x41><0xFF>", "a<0x0A>b", "▁", "▁▁a", "a▁b", " ▁ ",
        "Ġ", "ĠtheĊ", "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<|endoftext|><|endoftext|>",
        "<|im_start|>user\nHi <|im_end|>\n<|im_start|>assistant\n", "<|im_start|", "<|im_start|<|im_start|>|>", "<|IM_START|>",
        "<think>\nhm\n</think>\n\n", "<tool_call>{\"name\": \"f\"}</tool_call>", "<|user|>\nHello<|end|>\n<|assistant|>\n  ok",
        "<｜begin▁of▁sentence｜>x<｜User｜>你好<｜Assistant｜>", "[INST] hello [/INST] world </s>", "[INST][/INST]",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "word<word>word <word> <word>word",
        "left  <left>  right <right>  \n x", "<lower><LOWER> x", "<file_sep><repo_name>r\n<issue_start>", "<|endoftext",
        "e\u0301<|im_end|>e\u0301", "o\u0323\u0302<x \u1ed9< o\u0302\u0323<", "  leading", "trailing  ", " \u3000mixed\u00a0 ", "tab\tspace newline\n.", "ﬁ ﬂ ﬀ ﷺ ㎏ Ⅻ ①",
        "ÀÈ \u0130i\u0131I ß ẞ ǅ ŉ", "\U0001d54f \U00020000\U0002a6d6 \U0001f1e6 \U000e0041", "lorem ipsum dolor sit amet, " * 4,
    ]
    return texts


def synthetic(texts):
    """Small trained tokenizers with parts that the real ones at hand do not have."""

    def train(name, tokenizer, alphabet, added, special, size=700):
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet,
                                      show_progress=False)
        tokenizer.train_from_iterator(texts * 3, trainer)
        tokenizer.add_tokens(added)
        tokenizer.save(str(HERE / "synthetic" / f"{name}.json"))

    byte_alphabet = pre_tokenizers.ByteLevel.alphabet()
    flags = [AddedToken("<word>", single_word=True, normalized=False), AddedToken("<left>", lstrip=True, normalized=False),
             AddedToken("<right>", rstrip=True, normalized=False), AddedToken("ộ<", normalized=True)]

    llama3 = Tokenizer(models.BPE(ignore_merges=True))
    llama3.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(GPT4_DIGITS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    llama3.decoder = decoders.ByteLevel()
    train("llama3", llama3, byte_alphabet, [], ["<|begin_of_text|>", "<|eot_id|>"])
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A <|eot_id|>",
                                      special_tokens=[("<|begin_of_text|>", 0), ("<|eot_id|>", 1)])])
    # A token that no merge makes: only ignore_merges finds it.
    data = json.loads(llama3.to_str())
    for token in ("ĠjumpsĠover", "dolor"):
        data["model"]["vocab"][token] = len(data["model"]["vocab"])
    llama3 = Tokenizer.from_str(json.dumps(data))
    llama3.add_tokens(flags)
    llama3.save(str(HERE / "synthetic" / "llama3.json"))

    # Qwen's order: normalize, then split; and added tokens that are looked for in the normalized text.
    qwen = Tokenizer(models.BPE())
    qwen.normalizer = normalizers.NFC()
    qwen.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    qwen.decoder = decoders.ByteLevel()
    train("nfc", qwen, byte_alphabet, flags, ["<|endoftext|>"])

    # Mistral's way (Metaspace at the start only, nothing split) and Llama 2's newer one.
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    for name, scheme, split in [("metaspace_first", "first", False), ("metaspace_always", "always", True)]:
        spaced = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=name == "metaspace_first"))
        spaced.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
        if name == "metaspace_first":
            spaced.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                                decoders.Strip(" ", 1, 0)])
        else:
            spaced.decoder = decoders.Metaspace(prepend_scheme=scheme)
        # The alphabet is limited, so that unknown characters occur.
        trainer = trainers.BpeTrainer(vocab_size=700, limit_alphabet=120, special_tokens=["<unk>", "<s>", "</s>"] + bytes_,
                                      show_progress=False)
        spaced.train_from_iterator(texts * 3, trainer)
        data = json.loads(spaced.to_str())
        data["pre_tokenizer"]["split"] = split
        # Byte tokens are plain tokens of the model, not added ones.
        data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
        (HERE / "synthetic" / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False))

    # All ways to split and to join the splits.
    split = Tokenizer(models.BPE())
    split.normalizer = normalizers.Sequence([normalizers.Replace("dolor", "pain"), normalizers.Replace(Regex(r"\s{3,}"), "~"),
                                             normalizers.Prepend("_")])
    split.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("\t", "removed"), pre_tokenizers.Split(Regex(r"[.,;]+"), "merged_with_previous"),
        pre_tokenizers.Split(Regex("<"), "merged_with_next"), pre_tokenizers.Split(Regex(r"[!?]"), "contiguous"),
        pre_tokenizers.Split(Regex(r"\w+|[^\w\s]+"), "removed", invert=True), pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    split.decoder = decoders.ByteLevel()
    train("splits", split, byte_alphabet, flags, ["<|endoftext|>"])


def save(name, before, after, texts, encode, encode_plain, decode):
    # One text a line; ids are not spaced, to keep the files small.
    lines = []
    for text in texts:
        ids, plain = encode(text), encode_plain(text)
        short, full = decode(ids, True), decode(ids, False)
        case = [ids, None if plain == ids else plain, None if short == text else short, None if full == short else full]
        lines.append(json.dumps(case, ensure_ascii=False, separators=(",", ":")))
    around = f'{{"before": {before}, "after": {after}, "cases": [\n'
    (HERE / "golden" / f"{name}.json").write_text(around + ",\n".join(lines) + "\n]}\n")


def hugging_face(name, folder, texts):
    tokenizer = Tokenizer.from_file(str(folder if folder.suffix == ".json" else folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # What a template adds to "a"; tokenizer_config.json may add more.
    around, bare = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
    place = next(i for i in range(len(around)) if around[i:i + len(bare)] == bare)
    before, after = around[:place], around[place + len(bare):]
    config = folder / "tokenizer_config.json"
    if config.exists() and json.loads(config.read_text()).get("add_bos_token"):
        before = [tokenizer.token_to_id(json.loads(config.read_text())["bos_token"]["content"])]

    def encode(text, plain=False):
        tokenizer.encode_special_tokens = plain
        return tokenizer.encode(text, add_special_tokens=False).ids

    save(name, before, after, texts, encode, lambda text: encode(text, plain=True),
         lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip))


def sentence_piece(name, model, texts):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    save(name, [processor.bos_id()], [], texts, processor.encode, processor.encode, lambda ids, skip: processor.decode(ids))


def main():
    shared = pathlib.Path(sys.argv[1])
    texts = corpus()
    for folder in ("synthetic", "golden"):
        (HERE / folder).mkdir(exist_ok=True)
    (HERE / "corpus.json").write_text(json.dumps(texts, ensure_ascii=False, indent=0) + "\n")
    synthetic(texts)
    for path in sorted((HERE / "synthetic").glob("*.json")):
        hugging_face(path.stem, path, texts)
    for name, folder in [("smollm2", "smollm2"), ("qwen3", "qwen3-npm"), ("gpt2", "gpt2"), ("phi3", "phi3"),
                         ("deepseek_v3", "deepseek_v3-npm")]:
        hugging_face(name, shared / "tokenizers" / folder, texts)
    sentence_piece("mistral_v3", (shared / "tokenizers" / "mistral-v3" / "tokenizer.model").read_bytes(), texts)
    stories = (shared / "stories260K" / "tok512.model").read_bytes()
    sentence_piece("stories260k", stories, texts)
    # A GGUF file does not carry remove_extra_whitespaces (field 4 of normalizer_spec, which ends the model).
    spec = b"\x0a\x08identity\x12\x00\x18\x01\x20"
    assert stories.count(spec + b"\x01") == 1
    sentence_piece("stories260k_gguf", stories.replace(spec + b"\x01", spec + b"\x00"), texts)


if __name__ == "__main__":
    main()
