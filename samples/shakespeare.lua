-- A small GPT learns to write like Shakespeare, character by character. It is GPT-2 in small, with the parameter names of
-- transformers. With --captured the whole training step (forward, backward, AdamW) is one graph, the rate its argument, and
-- takes a tenth less time.
--
--   kiln samples/shakespeare.lua [--data DIR] [--steps N] [--seed N] [--characters N] [--prompt TEXT] [--captured]
--                              [--validate PIECES] [--device cuda]
local kiln = kiln or require "kiln"
local optim, data, text = kiln.optim, kiln.data, kiln.text

local options = kiln.options(
  { steps = 2000, seed = 1, characters = 500, validate = 1 << 20, prompt = "ROMEO:\n", captured = false, device = "cpu" }, { "data" })

-- ---- the data: the last tenth is held out ----------------------------------------------------------------------

local path = data.find("text/tinyshakespeare.txt", options.data)
kiln.manual_seed(options.seed)
local file = assert(io.open(path, "rb"))
local whole = file:read "a"
file:close()
local tokenizer = text.CharTokenizer(whole)
local all = tokenizer:encode(whole, { tensor = true }):to(options.device)
local held_out = #all // 10
local training, validation = all[{ { 1, #all - held_out } }], all[{ { #all - held_out + 1, #all } }]
print(("%d characters, %d different: %d to learn from, %d to validate"):format(#all, tokenizer.vocab_size, #training, held_out))

-- ---- the model and its training step ---------------------------------------------------------------------------

local BLOCK, BATCH = 64, 12
local net = text.models.GPT2LMHeadModel { vocab_size = tokenizer.vocab_size, n_positions = BLOCK, n_embd = 128, n_layer = 4,
  n_head = 4, embd_pdrop = 0, resid_pdrop = 0, attn_pdrop = 0 }
net:to(options.device)
print(net)
local opt = optim.AdamW(net:parameters(), { lr = 0.001, weight_decay = 0.1 })

-- Pieces of the text, BLOCK + 1 characters each, from the places given.
local on = { device = options.device }
local within = kiln.arange(0, BLOCK + 1, on)
local function pieces(from, places) return from[(places:unsqueeze(2) + within):reshape(-1)]:reshape(#places, BLOCK + 1) end

local function loss_of(ids)
  local logits = net(ids[{ {}, { 1, BLOCK } }])
  return kiln.cross_entropy(logits:reshape(-1, tokenizer.vocab_size), ids[{ {}, { 2, BLOCK + 1 } }]:reshape(-1))
end

local function step(ids, lr)
  opt.param_groups[1].lr = lr
  opt:zero_grad()
  local loss = loss_of(ids)
  loss:backward()
  opt:step()
  return loss
end
if options.captured then step = kiln.script(step) end

-- The mean over the whole held-out text (or its first pieces), cut into pieces that follow each other.
local function validate()
  net:eval()
  local sum, count, size = 0, math.min((held_out - 1) // BLOCK, options.validate), 64
  for first = 1, count, size do
    local n = math.min(size, count - first + 1)
    local places = kiln.arange(first - 1, first - 1 + n, on) * BLOCK + 1
    sum = sum + kiln.no_grad(loss_of, pieces(validation, places)):item() * n
  end
  net:train()
  return sum / count
end

local PEAK, LAST = 0.003, 0.0002
local warm = math.min(100, options.steps // 5 + 1)
local function rate(i) -- a short way up, then down along a cosine
  if i <= warm then return PEAK * i / warm end
  return LAST + 0.5 * (PEAK - LAST) * (1 + math.cos(math.pi * (i - warm) / math.max(1, options.steps - warm)))
end

local started, sum, count = kiln.clock(), 0, 0
local every = math.max(1, options.steps // 5)
for i = 1, options.steps do
  local places = kiln.randint(1, #training - BLOCK + 1, { BATCH }, on)
  sum, count = sum + step(pieces(training, places), rate(i)):item(), count + 1
  if i % every == 0 or i == options.steps then
    print(("step %5d   training loss %.3f   validation loss %.3f   %5.1f s"):format(i, sum / count, validate(),
      kiln.clock() - started))
    sum, count = 0, 0
  end
end

-- ---- what it writes --------------------------------------------------------------------------------------------

local written = net:generate(tokenizer:encode(options.prompt), { max_new_tokens = options.characters, do_sample = true,
  temperature = 0.8, slide = true })
print("----\n" .. tokenizer:decode(written))
