-- A model that makes up names: a recurrent network reads a name letter by letter and tells how likely each next letter is.
-- It learns from a list of names, a line each; the training step is captured as one graph.
--
--   kiln samples/names.lua [--data DIR] [--steps N] [--seed N] [--names N] [--validate NAMES]
--                        [--device cuda]
local kiln = kiln or require "kiln"
local nn, optim, data, text = kiln.nn, kiln.optim, kiln.data, kiln.text

local options = kiln.options({ steps = 2000, seed = 1, names = 20, validate = 1 << 20, device = "cpu" }, { "data" })

-- ---- the data: a tenth is held out -----------------------------------------------------------------------------

local path = data.find("text/names.txt", options.data)
kiln.manual_seed(options.seed)
local names, longest = {}, 0
for name in io.lines(path) do
  names[#names + 1] = name
  longest = math.max(longest, #name)
end

-- A row for each name: the end mark, its letters, the end mark again; what comes after is left out of the loss.
local tokenizer = text.CharTokenizer(table.concat(names), { special_tokens = { "\n" } })
local mark, rows = tokenizer:token_to_id "\n", {}
for i, name in ipairs(names) do
  local row = tokenizer:encode("\n" .. name .. "\n")
  for j = #row + 1, longest + 2 do row[j] = -100 end
  rows[i] = row
end
local all = kiln.tensor(rows, { dtype = "int64", device = options.device })
local order, held_out = kiln.randperm(#names, { device = options.device }), math.min(#names // 10, options.validate)
local validation, training = all[order[{ { 1, held_out } }]], all[order[{ { held_out + 1, #names } }]]
local taken = {}
for _, name in ipairs(names) do taken[name] = true end
print(("%d names of up to %d letters: %d to learn from, %d to validate"):format(#names, longest, #training, #validation))

-- ---- the model and its training step ---------------------------------------------------------------------------

local net = text.models.CharRNN { vocab_size = tokenizer.vocab_size, embedding_size = 32, hidden_size = 128, cell = "GRU" }
net:to(options.device)
print(net)
local opt = optim.Adam(net:parameters(), { lr = 0.005 })

-- The mean over all letters of rows of ids, given those before.
local function loss_of(ids)
  local n = ids:size(2)
  local logits = net(ids[{ {}, { 1, n - 1 } }]:clamp(1)) -- what is left out of the loss may be any letter
  return kiln.cross_entropy(logits:reshape(-1, logits:size(3)), ids[{ {}, { 2, n } }]:reshape(-1))
end

local step = kiln.script(function(ids)
  opt:zero_grad()
  local loss = loss_of(ids)
  loss:backward()
  opt:step()
  return loss
end)

local function validate() return kiln.no_grad(loss_of, validation):item() end

-- Steps this small leave a second thread little to do but wait.
if not os.getenv "KILN_NUM_THREADS" then kiln.set_num_threads(1) end
local started, batch = kiln.clock(), 128
local slower = { [options.steps * 6 // 10] = 0.0015, [options.steps * 9 // 10] = 0.0005 }
local function shuffle() return kiln.randperm(#training, { device = options.device }) end
local place, shuffled, sum, count = 0, shuffle(), 0, 0
local every = math.max(1, (options.steps + 5) // 6)
for i = 1, options.steps do
  if place + batch > #training then place, shuffled = 0, shuffle() end
  sum, count = sum + step(training[shuffled[{ { place + 1, place + batch } }]]):item(), count + 1
  place = place + batch
  opt.param_groups[1].lr = slower[i] or opt.param_groups[1].lr
  if i % every == 0 or i == options.steps then
    print(("step %5d   training loss %.3f   validation loss %.3f   %5.1f s"):format(i, sum / count, validate(),
      kiln.clock() - started))
    sum, count = 0, 0
  end
end

-- ---- names it makes up -----------------------------------------------------------------------------------------

print "made up (a star: not in the list):"
local starts = kiln.full({ options.names, 1 }, mark, { dtype = "int64", device = options.device })
local drawn = net:generate(starts, { max_new_tokens = longest + 1, do_sample = true, eos_token_id = mark })
for i = 1, options.names do
  local name = tokenizer:decode(drawn[i]):match "^\n([^\n]*)"
  print(("  %s%s"):format(name, taken[name] and "" or " *"))
end
