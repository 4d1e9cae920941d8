-- A small Llama model that tells stories. It reads the weights and the tokenizer that llama2.c uses, and always takes the
-- most likely token. The whole decoding, a loop over the model with its caches, is captured as one graph. Standard output
-- is the story and nothing else.
--
--   kiln samples/stories.lua [--data DIR] [--steps N] [--prompt TEXT] [--eager] [--time] [--runs N]
--                          [--device cuda]
--
-- The files are llama2c/stories260K.bin and llama2c/tok512.bin (https://huggingface.co/karpathy/tinyllamas). --eager runs
-- without a graph. --time says on standard error how many tokens a second were made, --runs of how many runs it is the best.
local kiln = kiln or require "kiln"
local data = kiln.data
local sentencepiece, llama2c = kiln.text.sentencepiece, kiln.text.models.llama2c

local options = kiln.options({ steps = 200, prompt = "", runs = 1, eager = false, time = false, device = "cpu" }, { "data" })

local model = llama2c(data.find("llama2c/stories260K.bin", options.data))
local tokenizer = sentencepiece(data.find("llama2c/tok512.bin", options.data))
model:eval():to(options.device)

local prompt = tokenizer:encode(options.prompt)
-- Steps count the tokens of the prompt behind the first, as llama2.c counts them.
local count = math.max(math.min(options.steps, model.config.max_position_embeddings) - #prompt + 1, 0)

local function tell(tokens, n) return model:generate(tokens, n, tokenizer.bos) end
if not options.eager then tell = kiln.script(tell) end

kiln.no_grad(function()
  local start = kiln.tensor({ prompt }, { device = options.device })
  local made, best = tell(start, count), nil
  if options.time then
    for _ = 1, options.runs do
      local before = kiln.clock()
      made = tell(start, count)
      local taken = kiln.clock() - before
      best = math.min(best or taken, taken)
    end
    io.stderr:write(("%.0f tokens a second\n"):format(#made / best))
  end
  local ids = made:totable()
  table.move(ids, 1, #ids, #prompt + 1, prompt)
  io.write(tokenizer:decode(prompt))
end)
