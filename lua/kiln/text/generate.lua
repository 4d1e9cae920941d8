-- Text from a model, one token after the other. It works with any model whose call with ids [N, T] and what it remembers of
-- the tokens before (nil at first) gives logits [N, T, vocabulary] and what to remember next.
local kiln = require "kiln"
local read = require "kiln.text.options".read
local fail, no_grad = kiln.fail, kiln.no_grad

local defaults = { max_new_tokens = 20, do_sample = false, temperature = 1.0, top_k = 0, top_p = 1.0, eos_token_id = 0,
  pad_token_id = 0, slide = false }

local function check(options, name)
  if not (options.temperature > 0) then fail("%s: temperature must be above 0, got %g", name, options.temperature) end
  if not (options.top_p > 0 and options.top_p <= 1) then fail("%s: top_p must be in (0, 1], got %g", name, options.top_p) end
  for _, key in ipairs { "temperature", "top_k", "top_p" } do
    if options[key] ~= defaults[key] and not options.do_sample then
      fail("%s: %s has an effect only with do_sample = true; without it the likeliest token is taken", name, key)
    end
  end
end

-- Logits with -inf where a token may not be drawn: below the top_k-th, or after the likeliest that together reach top_p.
local function restrict(logits, options)
  local size = logits:size(2)
  if options.top_k > 0 and options.top_k < size then
    local kept = kiln.topk(logits, options.top_k)
    logits = logits:masked_fill(logits:lt(kept[{ {}, { options.top_k, options.top_k } }]), -math.huge)
  end
  if options.top_p < 1 then
    local sorted, places = kiln.sort(logits, { dim = 2, descending = true })
    local chances = sorted:softmax(2)
    local before = chances:cumsum(2) - chances -- what the likelier ones have together; the first is always kept
    local kept = sorted:masked_fill(before:ge(options.top_p), -math.huge)
    logits = kiln.full_like(logits, -math.huge):scatter(2, places, kept)
  end
  return logits
end

--- The next tokens [N, 1] from logits [N, vocabulary].
local function pick(logits, options)
  if not options.do_sample then return logits:argmax(2, true) end
  if options.temperature ~= 1 then logits = logits / options.temperature end
  return kiln.multinomial(restrict(logits, options):softmax(2), 1)
end

-- Rows that have ended go on with the padding.
local function end_rows(next_ids, done, options)
  if options.eos_token_id == 0 then return next_ids, done end
  if done then next_ids = next_ids:masked_fill(done, options.pad_token_id) end
  local ended = next_ids:eq(options.eos_token_id)
  return next_ids, done and done | ended or ended
end

local function run(model, ids, options, most)
  local past, done, feed
  feed = ids
  for _ = 1, options.max_new_tokens do
    if most and past and ids:size(2) > most and model:remembered(past) >= most then
      past, feed = nil, ids[{ {}, { -(most // 2), -1 } }] -- start anew from the later half
    end
    local logits
    logits, past = model(feed, past)
    feed, done = end_rows(pick(logits[{ {}, -1 }], options), done, options)
    ids = kiln.cat({ ids, feed }, 2)
    if done and done:all():item() then break end
  end
  return ids
end

-- Where a model is: of its first parameter.
local function device_of(model)
  local list = type(model) == "table" and type(model.parameters) == "function" and model:parameters()
  return list and list[1] and list[1].device or "cpu"
end

--- generate(model, ids [, { max_new_tokens = 20, do_sample = false, temperature = 1, top_k =, top_p =, eos_token_id =,
--- pad_token_id =, slide = false }]): ids with what follows them, of the same kind (a list, [T], [N, T]). The likeliest
--- token is taken unless do_sample; draws come from kiln's stream, which kiln.manual_seed starts. With `slide` a model that
--- has seen all it has positions for forgets the earlier half and goes on; without, that is an error.
local function generate(model, ids, given)
  local options = read("generate", given, defaults)
  check(options, "generate")
  if options.pad_token_id == 0 then options.pad_token_id = options.eos_token_id end
  local as_list, rank = type(ids) == "table", 2
  if as_list then ids = kiln.tensor(ids, { dtype = "int64", device = device_of(model) }) end
  if not kiln.is_tensor(ids) or ids:dim() > 2 or ids:numel() == 0 then
    fail("generate: ids must be a list or a tensor [T] or [N, T] with at least one id")
  end
  rank = ids:dim()
  if rank == 1 then ids = ids:unsqueeze(1) end
  local most = model.positions
  if most and not options.slide and ids:size(2) + options.max_new_tokens > most + 1 then
    fail("generate: %d ids and %d new ones are more than the %d positions of the model; slide = true forgets the earlier ones",
      ids:size(2), options.max_new_tokens, most)
  end
  if most and ids:size(2) > most then fail("generate: %d ids are more than the %d positions of the model", ids:size(2), most) end
  local was_training = model.training
  if was_training then model:eval() end
  local ok, out = pcall(no_grad, run, model, ids, options, most)
  if was_training then model:train() end
  if not ok then error(out, 0) end
  if rank == 1 then out = out:squeeze(1) end
  return as_list and out:totable() or out
end

return { generate = generate, pick = pick }
