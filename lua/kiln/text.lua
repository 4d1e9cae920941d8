-- kiln.text: tokenizers and models of text. This file only gathers: each tokenizer and each model has a file of its own in
-- text/. Ids count from 1, as all indices do: an id is the row of the embedding.
local text = { models = {} }

local function gather(into, folder, names)
  for _, name in ipairs(names) do
    for key, value in pairs(require("kiln.text." .. folder .. name)) do into[key] = value end
  end
end

gather(text, "", {
  "tokenizer",
  "byte",
  "char",
  "bpe",
  "sentencepiece",
})
gather(text.models, "models.", {
  "char_rnn",
  "gpt2",
  "bert",
  "llama",
  "llama2c",
})

return text
