-- Models of text against what transformers gave for the same weights, in eager code and captured; generation.
local check = require "check"
local test, equal, truth, raises, near = check.test, check.equal, check.truth, check.raises, check.near
local models = kiln.text.models
local json = require "kiln.text.json"
local golden = (os.getenv "KILN_SOURCE" or arg[0]:match "^(.*)/spec/lua/[^/]*$" or ".") .. "/spec/golden/"

-- A recorded file as { options =, state =, name = tensor … }.
local files = {}
local function recorded(name)
  if not files[name] then
    local tensors, metadata = kiln.from_safetensors(golden .. name .. ".safetensors")
    local out = { state = {}, options = json.decode(metadata.options) }
    for key, t in pairs(tensors) do
      local parameter = key:match "^state%.(.*)"
      if parameter then out.state[parameter] = t else out[key] = t end
    end
    files[name] = out
  end
  return files[name]
end

-- Within 1e-4 of the largest value.
local function alike(got, wanted, what)
  equal(got.shape, wanted.shape)
  local apart, largest = (got - wanted):abs():amax():item(), wanted:abs():amax():item()
  truth(apart <= 1e-4 * largest, ("%s: %g apart, the largest is %g"):format(what, apart, largest))
end

local function check_gradients(net, from)
  local count, own = 0, net:state_dict()
  for key, wanted in pairs(from) do
    local name = type(key) == "string" and key:match "^grad%.(.*)"
    if name then
      count = count + 1
      alike(own[name].grad, wanted, name)
    end
  end
  equal(count, 7)
end

-- ---- GPT-2 ---------------------------------------------------------------------------------------------------------

local function gpt2()
  local g = recorded "gpt2"
  local net = models.GPT2LMHeadModel(g.options):eval()
  net:load_state_dict(g.state)
  return net, g
end

test("GPT-2: logits, hidden states, with a mask too", function()
  local net, g = gpt2()
  alike((net(g.ids)), g.logits, "logits")
  alike((net.transformer(g.ids)), g.hidden, "hidden")
  alike((net(g.ids, nil, g.mask))[{ {}, { 1, 6 } }], g.masked_logits, "masked logits")
  alike((net(g.ids[1])), g.logits[{ { 1, 1 } }], "a batch of one")
end)

test("GPT-2: loss and gradients", function()
  local net, g = gpt2()
  local loss = net:loss(g.ids, g.labels)
  alike(loss, g.loss, "loss")
  loss:backward()
  check_gradients(net, g)
end)

test("GPT-2: captured it gives what eager gives, gradients too", function()
  local net, g = gpt2()
  alike(kiln.script(function(ids) return (net(ids)) end)(g.ids), g.logits, "logits")
  local loss = kiln.script(function(ids, labels) return net:loss(ids, labels) end)(g.ids, g.labels)
  alike(loss, g.loss, "loss")
  loss:backward()
  check_gradients(net, g)
end)

test("GPT-2: tokens one by one, remembered, are the same as all at once, eager and captured", function()
  local net, g = gpt2()
  local step = kiln.script(function(ids, past) return net(ids, past) end)
  for name, f in pairs { eager = net, captured = step } do
    kiln.no_grad(function()
      local logits, past = f(g.ids[{ {}, { 1, 3 } }])
      local parts = { logits }
      for i = 4, 6 do parts[#parts + 1], past = f(g.ids[{ {}, { i, i } }], past) end
      parts[#parts + 1], past = f(g.ids[{ {}, { 7, 9 } }], past) -- several after others
      alike(kiln.cat(parts, 2), g.logits, name)
      equal(net:remembered(past), 9)
    end)
  end
end)

test("GPT-2: captured once it takes any batch, length and past", function()
  local net, g = gpt2()
  local spec = kiln.spec
  local function check_pieces(f)
    for _, n in ipairs { 9, 4, 1 } do
      local ids = g.ids[{ { 1, n % 2 + 1 }, { 1, n } }]
      alike((f(ids)), g.logits[{ { 1, n % 2 + 1 }, { 1, n } }], n .. " ids")
    end
  end
  check_pieces(kiln.script(function(ids) return (net(ids)) end, { inputs = { spec("int64", { "N", "T" }) } }))
  local one = spec("float32", { "N", 4, "P", 6 })
  local step = kiln.script(function(ids, past) return net(ids, past) end,
    { inputs = { spec("int64", { "N", "T" }), { { one, one }, { one, one }, { one, one } } } })
  kiln.no_grad(function()
    local _, past = net(g.ids[{ {}, { 1, 3 } }])
    local logits
    for i = 4, 9 do
      logits, past = step(g.ids[{ {}, { i, i } }], past)
      alike(logits, g.logits[{ {}, { i, i } }], "token " .. i)
    end
  end)
end)

test("GPT-2: greedy generation gives transformers' tokens", function()
  local net, g = gpt2()
  net:train()
  local out = net:generate(g.ids[{ {}, { 1, 4 } }], { max_new_tokens = 16 })
  equal(out:totable(), g.greedy:totable())
  truth(net.training, "it is back in training")
  equal(net:generate(g.ids[{ 1, { 1, 4 } }]:totable(), { max_new_tokens = 16 }), g.greedy[1]:totable())
  equal(net:generate(g.ids[{ 1, { 1, 4 } }], { max_new_tokens = 16 }):totable(), g.greedy[1]:totable())
end)

test("GPT-2: names of files without the prefix, old buffers, a tied head; another head is told", function()
  local _, g = gpt2()
  local plain = { ["h.0.attn.bias"] = kiln.ones(1, 1, 24, 24), ["h.0.attn.masked_bias"] = kiln.ones(1) }
  for name, t in pairs(g.state) do plain[name:gsub("^transformer%.", "")] = t end
  local net = models.GPT2LMHeadModel(g.options):eval()
  net:load_state_dict(plain)
  alike((net(g.ids)), g.logits, "logits")
  local bare = models.GPT2Model(g.options):eval()
  bare:load_state_dict(g.state)
  alike((bare(g.ids)), g.hidden, "hidden")
  plain["lm_head.weight"] = g.state["transformer.wte.weight"]:clone()
  net:load_state_dict(plain)
  plain["lm_head.weight"] = plain["lm_head.weight"] + 1
  raises(function() net:load_state_dict(plain) end, "lm_head.weight differs from the embedding", "text_models.lua:")
  local options = { tie_word_embeddings = false }
  for key, value in pairs(g.options) do options[key] = value end
  local untied = models.GPT2LMHeadModel(options):eval()
  untied:load_state_dict(plain)
  alike((untied(g.ids)), kiln.linear((bare(g.ids)), plain["lm_head.weight"]), "a head of its own")
  raises(function() untied:load_state_dict(g.state) end, "missing", "lm_head.weight")
end)

test("GPT-2's state has transformers' names and can be loaded back", function()
  local net, g = gpt2()
  local names, wanted = {}, {}
  for name in pairs(net:state_dict()) do names[#names + 1] = name end
  for name in pairs(g.state) do wanted[#wanted + 1] = name end
  table.sort(names)
  table.sort(wanted)
  equal(names, wanted)
  local other = models.GPT2LMHeadModel(g.options):eval()
  other:load_state_dict(net:state_dict())
  truth((other(g.ids)):equal((net(g.ids))), "the same model")
end)

-- ---- generation ------------------------------------------------------------------------------------------------------

-- A model whose logits do not depend on the ids: what is drawn is known.
local function fixed(list)
  local logits = kiln.tensor(list)
  return setmetatable({ training = false }, { __call = function(_, ids) return logits:expand(ids:size(1), ids:size(2), #list), {} end })
end
local generate = require "kiln.text.generate".generate

local function frequencies(logits, options)
  local counts = {}
  for i = 1, #logits do counts[i] = 0 end
  options.do_sample, options.max_new_tokens = true, 1
  for _, row in ipairs(generate(fixed(logits), kiln.ones(4000, 1, { dtype = "int64" }), options):totable()) do
    counts[row[2]] = counts[row[2]] + 1 / 4000
  end
  return counts
end

test("sampling: temperature, top_k and top_p draw as often as they should", function()
  kiln.manual_seed(5)
  local logits = { math.log(0.1), math.log(0.4), math.log(0.2), math.log(0.3) }
  near(frequencies(logits, {}), { 0.1, 0.4, 0.2, 0.3 }, 0.04)
  near(frequencies(logits, { temperature = 0.5 }), { 0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3 }, 0.04)
  near(frequencies(logits, { top_k = 2 }), { 0, 4 / 7, 0, 3 / 7 }, 0.04)
  near(frequencies(logits, { top_p = 0.65 }), { 0, 4 / 7, 0, 3 / 7 }, 0.04)
  near(frequencies(logits, { top_p = 0.75 }), { 0, 4 / 9, 2 / 9, 3 / 9 }, 0.04)
  near(frequencies(logits, { top_p = 0.01 }), { 0, 1, 0, 0 }, 1e-9)
  equal(frequencies(logits, { top_k = 2 })[1], 0)
end)

test("sampling is seeded", function()
  local net = gpt2()
  local function draw(seed)
    kiln.manual_seed(seed)
    return net:generate({ 1, 2, 3 }, { max_new_tokens = 12, do_sample = true })
  end
  equal(draw(1), draw(1))
  truth(not pcall(equal, draw(1), draw(2)), "another seed, other tokens")
end)

test("generation ends at eos and pads what ended before", function()
  local net, g = gpt2()
  local greedy = g.greedy
  local eos = greedy[{ 1, 7 }]:item()
  local out = net:generate(g.ids[{ {}, { 1, 4 } }], { max_new_tokens = 16, eos_token_id = eos, pad_token_id = 60 })
  for row = 1, 2 do
    local ended = false
    for i = 5, out:size(2) do
      local got = out[{ row, i }]:item()
      equal(got, ended and 60 or greedy[{ row, i }]:item())
      ended = ended or got == eos
    end
  end
  local alone = net:generate(g.ids[{ { 1, 1 }, { 1, 4 } }], { max_new_tokens = 16, eos_token_id = eos })
  truth(alone:size(2) <= 7, "it stops at the end")
end)

test("positions: too many are an error, or the earlier are forgotten", function()
  local net, g = gpt2()
  raises(function() net:generate({ 1, 2 }, { max_new_tokens = 30 }) end, "slide = true", "24 positions", "text_models.lua:")
  raises(function() net(kiln.ones(1, 25, { dtype = "int64" })) end, "25 tokens are more than the 24 positions")
  equal(#net:generate({ 1, 2 }, { max_new_tokens = 60, slide = true }), 62)
  equal(#net:generate({ 1, 2 }, { max_new_tokens = 23 }), 25) -- the last needs no position
  -- the first tokens after the limit are those of the later half alone
  local long = net:generate(g.ids[{ 1, { 1, 4 } }]:totable(), { max_new_tokens = 23, slide = true })
  local half = { table.unpack(long, 25 - 11, 25) }
  local after = net:generate(half, { max_new_tokens = 2 })
  equal({ table.unpack(long, 26, 27) }, { table.unpack(after, 13, 14) })
end)

test("misuse of models is told", function()
  local net = gpt2()
  raises(function() models.GPT2LMHeadModel { n_heads = 3 } end, "there is no option 'n_heads'", "text_models.lua:")
  raises(function() models.GPT2LMHeadModel { n_embd = 10, n_head = 3 } end, "n_embd 10 must be divisible by n_head 3")
  raises(function() models.GPT2LMHeadModel { n_layer = "two" } end, "'n_layer' must be of type integer, got string")
  raises(function() models.GPT2LMHeadModel { n_embd = 8, n_head = 2, n_layer = 1, vocab_size = 9, activation_function = "x" } end,
    "there is no activation 'x'")
  raises(function() net:generate({ 1 }, { temperature = 0.5 }) end, "only with do_sample = true")
  raises(function() net:generate({ 1 }, { do_sample = true, temperature = 0 }) end, "temperature must be above 0")
  raises(function() net:generate({ 1 }, { do_sample = true, top_p = 2 }) end, "top_p must be in (0, 1]")
  raises(function() net:generate {} end, "at least one id")
  raises(function() net(kiln.tensor { 0 }) end, "embedding", "0")
  raises(function() net(kiln.tensor { 62 }) end, "embedding", "62")
  raises(function() net(kiln.ones(1, 1, 1, { dtype = "int64" })) end, "ids must have the sizes [batch, length]")
  raises(function() models.BertModel { hidden_size = 10, num_attention_heads = 3 } end, "must be divisible")
  raises(function() models.CharRNN { cell = "LSTN" } end, "cell must be 'LSTM', 'GRU' or 'RNN'")
end)

-- ---- BERT ------------------------------------------------------------------------------------------------------------

local function bert()
  local g = recorded "bert"
  local net = models.BertModel(g.options):eval()
  net:load_state_dict(g.state)
  return net, g
end

test("BERT: hidden states, pooled, with mask and types or without, eager and captured", function()
  local net, g = bert()
  local captured = kiln.script(function(ids, mask, types) return net(ids, mask, types) end)
  for name, f in pairs { eager = net, captured = captured } do
    local hidden, pooled = f(g.ids, g.mask, g.types)
    alike(hidden, g.hidden, name)
    alike(pooled, g.pooled, name)
    hidden, pooled = f(g.ids)
    alike(hidden, g.plain_hidden, name)
    alike(pooled, g.plain_pooled, name)
  end
end)

test("BERT: captured once it takes any batch and length", function()
  local net, g = bert()
  local ids = kiln.spec("int64", { "N", "T" })
  local f = kiln.script(function(x, mask) return net(x, mask) end, { inputs = { ids, ids } })
  for n = 1, 2 do
    local x, mask = g.ids[{ { 1, n }, { 1, 9 - n } }], g.mask[{ { 1, n }, { 1, 9 - n } }]
    alike((f(x, mask)), (net(x, mask)), "length " .. 9 - n)
  end
end)

test("BERT: gradients, eager and captured", function()
  local net, g = bert()
  local function loss_of(ids, mask, types, factors)
    local hidden, pooled = net(ids, mask, types)
    return (hidden * factors):sum() + pooled:pow(2):sum()
  end
  for _, f in ipairs { loss_of, kiln.script(loss_of) } do
    net:zero_grad()
    local loss = f(g.ids, g.mask, g.types, g.factors)
    alike(loss, g.loss, "loss")
    loss:backward()
    check_gradients(net, g)
    equal(net.embeddings.word_embeddings.weight.grad[1]:abs():sum():item(), 0.0) -- the ids hold padding
  end
  equal(models.BertModel(g.options).embeddings.word_embeddings.weight[1]:abs():sum():item(), 0.0)
end)

test("BERT: sentences as vectors", function()
  local net, g = bert()
  alike(net:embed(g.ids, g.mask), g.embedding, "masked")
  near(net:embed(g.ids):pow(2):sum(2):totable(), { 1, 1 }, 1e-5)
  alike(kiln.script(function(ids, mask) return net:embed(ids, mask) end)(g.ids, g.mask), g.embedding, "captured")
end)

test("BERT: names of models with heads, of old files, without the pooler", function()
  local _, g = bert()
  local state = { ["cls.predictions.bias"] = kiln.ones(61), ["bert.embeddings.position_ids"] = kiln.ones(1, 24) }
  for name, t in pairs(g.state) do state["bert." .. name:gsub("LayerNorm%.weight$", "LayerNorm.gamma")] = t end
  local options = { add_pooling_layer = false }
  for key, value in pairs(g.options) do options[key] = value end
  local net = models.BertModel(options):eval()
  net:load_state_dict(state)
  local hidden, pooled = net(g.ids)
  alike(hidden, g.plain_hidden, "hidden")
  equal(pooled, nil)
  state["bert.encoder.layer.0.output.dense.bias"] = nil
  raises(function() net:load_state_dict(state) end, "missing encoder.layer.0.output.dense.bias")
end)

-- ---- the recurrent model -----------------------------------------------------------------------------------------------

test("CharRNN learns a short text, eager and captured; it goes on from its state", function()
  for _, cell in ipairs { "LSTM", "GRU", "RNN" } do
    kiln.manual_seed(3)
    local tokenizer = kiln.text.CharTokenizer "abcdefgh"
    local net = models.CharRNN { vocab_size = 8, embedding_size = 8, hidden_size = 16, cell = cell }
    local opt = kiln.optim.Adam(net:parameters(), { lr = 0.03 })
    local ids = tokenizer:encode(("abcdefgh"):rep(4), { tensor = true })
    local step = kiln.script(function(x)
      opt:zero_grad()
      local loss = net:loss(x)
      loss:backward()
      opt:step()
      return loss
    end)
    local first = net:loss(ids):item()
    near(step(ids):item(), first, 1e-5)
    for _ = 1, 60 do step(ids) end
    truth(net:loss(ids):item() < first / 4, cell .. " learns")
    equal(tokenizer:decode(net:generate(tokenizer:encode "abc", { max_new_tokens = 10 })), "abcdefghabcde")
    local whole = net(ids[{ { 1, 12 } }])
    local left, state = net(ids[{ { 1, 5 } }])
    alike(kiln.cat({ left, (net(ids[{ { 6, 12 } }], state)) }, 2), whole, cell)
  end
end)
