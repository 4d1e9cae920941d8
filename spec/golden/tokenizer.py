# What transformers' GPT2Tokenizer, made from GPT-2's own two files, says of some texts; and of two whole texts, how many
# ids there are and a checksum of them. Ids count from 0 here.
#   python3 spec/golden/tokenizer.py DATA > spec/golden/tokenizer.json
# DATA has tokenizers/gpt2_encoder.json, tokenizers/gpt2_vocab.bpe, text/names.txt and text/tinyshakespeare.txt.
import json
import random
import sys

from transformers import GPT2Tokenizer

data = sys.argv[1]
vocab = json.load(open(data + "/tokenizers/gpt2_encoder.json", encoding="utf-8"))
lines = open(data + "/tokenizers/gpt2_vocab.bpe", encoding="utf-8").read().split("\n")
merges = [tuple(line.split(" ")) for line in lines[1:] if line]
tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges)


def ids(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


names = open(data + "/text/names.txt", encoding="utf-8").read()
shakespeare = open(data + "/text/tinyshakespeare.txt", encoding="utf-8").read()

texts = [
    "",
    "Hello world",
    " Hello  world ",
    "Hello, world! It's 2024 and they're, we'd, I'll, you've; I'm CAN'T 'S 'tis ''s '''ll 're've",
    "a\nb\n\nc\n\n\nd\t\te \t f \n g\r\nh \u00a0i\u3000\u3000j\u2003 \u2028k\u0085l\u200bm\u1680n\ufeff",
    "   ",
    "\n",
    " \n \n x",
    "x   \n",
    "x \t\n\t y",
    "0 1 12 123 1234 12345678901234567890 3.14159 1e-10 0x7f ½ ² ٣٤٥ १२३ Ⅷ ㊿ 𝟙𝟚 𐄇",
    "for i = 1, #list do list[i] = list[i] // 2 ~= 0x1F end -- comment == ===== ---------- ((((()))))",
    "naïve café Übergröße œuvre Ångström Ελληνικά Русский язык עברית العربية हिन्दी ไทย 日本語テキスト 中文字符 한국어",
    "e\u0301 a\u0308 n\u0303 \u0301x q\u0323\u0307 ﬁ ǅ ʰ ª º ꙮ ꭰ 𐐷 𝒳 𞤀",
    "🙂 😀😃😄 👨‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ❤️ ☃ ✈️x🚀1 ⌘ ≠ ∑ ∫ → ₿ €5 £6",
    "\x00\x01\x02 \x1b[31m \x1c\x1d\x1e\x1f\x7f a\x00b",
    "<|endoftext|>start<|endoftext|> middle <|endoftext|><|endoftext|>",
    "<|endoftext |> <|endoftex",
    "supercalifragilisticexpialidocious antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 300,
    "ab" * 100 + "=" * 200 + " " * 130 + "z",
    "https://example.org/path?q=1&r=%20#frag user.name+tag@example.com C:\\dir\\file.txt",
    "''''''' ' ' 's s's 'd'd'm",
    names[:1500],
    shakespeare[:3000],
]
chosen = random.Random(1)
kinds = [(32, 126), (9, 13), (0xA0, 0x24F), (0x370, 0x52F), (0x5D0, 0x6FF), (0x900, 0xDFF), (0x2000, 0x2BFF),
         (0x3000, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF), (0x10000, 0x10FFF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF)]
for _ in range(12):
    text = ""
    for _ in range(40):
        low, high = chosen.choice(kinds if chosen.random() < 0.6 else kinds[:2])
        text += "".join(chr(chosen.randint(low, high)) for _ in range(chosen.randint(1, 3)))
        if chosen.random() < 0.3:
            text += " " * chosen.randint(1, 3)
    texts.append(text)


def whole(text):
    all_ids = ids(text)
    checksum = 0
    for i, each in enumerate(all_ids):
        checksum = (checksum * 31 + each + i) % (1 << 40)
    return {"count": len(all_ids), "checksum": checksum}


out = {
    "texts": [{"text": text, "ids": ids(text)} for text in texts],
    "words": [{"text": text, "words": [text[a:b] for _, (a, b) in
              tokenizer._tokenizer.pre_tokenizer.pre_tokenize_str(text)]} for text in texts[:12]],
    "whole": {"names.txt": whole(names), "tinyshakespeare.txt": whole(shakespeare)},
}
print("{")
for key in ("texts", "words"):
    print('"%s": [' % key)
    print(",\n".join(json.dumps(entry, separators=(",", ":")) for entry in out[key]))
    print("],")
print('"whole": %s' % json.dumps(out["whole"]))
print("}")
