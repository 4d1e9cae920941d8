-- kiln.custom_function{ forward = f, backward = b, name = "…" }: an op of one's own, as a function. forward(ctx, …) gets
-- the arguments and gives the results, off the tape; backward(ctx, g, …) gets a gradient for each result (zeros where
-- none came) and gives one for each argument, nil for none. ctx:save_for_backward(t, …) keeps tensors, which backward
-- finds in ctx.saved_tensors, an error if they were changed in place since; other fields of ctx are free, but a result
-- kept there would keep itself alive. ctx.needs_input_grad[i] tells whether argument i wants a gradient.
-- ctx:mark_non_differentiable(t, …) in forward: no gradient flows to these results. With create_graph, what backward
-- computes is on the tape in turn.
local kiln = require "kiln"
local fail = kiln.fail

local Context = {}
Context.__index = Context

function Context:save_for_backward(...)
  self.to_save = table.pack(...)
  for i = 1, self.to_save.n do
    local t = self.to_save[i]
    if t ~= nil and not kiln.is_tensor(t) then fail("save_for_backward: argument %d is no tensor; keep it in a field", i) end
  end
end

function Context:mark_non_differentiable(...)
  for _, t in ipairs { ... } do self.flat[#self.flat + 1] = t end
end

local function is_among(list, t)
  for _, other in ipairs(list) do
    if rawequal(other, t) then return true end
  end
  return false
end

-- The tensors of a packed list and, for each, which entry it was.
local function tensors_of(list)
  local tensors, places = {}, {}
  for i = 1, list.n or #list do
    if kiln.is_tensor(list[i]) then
      tensors[#tensors + 1] = list[i]
      places[#tensors] = i
    end
  end
  return tensors, places
end

-- What the tape calls: spreads its lists over the arguments that the user's function has.
local function make_run(name, backward, ctx, args, in_places, results, out_places, save_places)
  return function(gradients, saved, needs)
    local given, kept = {}, {}
    for k, i in ipairs(out_places) do given[i] = gradients[k] end
    for k, i in ipairs(save_places) do kept[i] = saved[k] end
    for i = 1, args do ctx.needs_input_grad[i] = false end
    for k, i in ipairs(in_places) do ctx.needs_input_grad[i] = needs[k] end
    ctx.saved_tensors = kept
    local answer = table.pack(backward(ctx, table.unpack(given, 1, results)))
    ctx.saved_tensors = nil
    if answer.n > args then fail("%s: backward gave %d gradients for %d arguments", name, answer.n, args) end
    local wanted, is_input = {}, {}
    for k, i in ipairs(in_places) do
      wanted[k] = answer[i] or false
      is_input[i] = true
    end
    for i = 1, answer.n do
      if answer[i] and not is_input[i] then fail("%s: backward gave a gradient for argument %d, which is no tensor", name, i) end
    end
    return wanted
  end
end

return function(spec)
  if type(spec) ~= "table" or not spec.forward or not spec.backward then
    fail "custom_function: a table with the functions forward and backward is needed"
  end
  for key in pairs(spec) do
    if key ~= "forward" and key ~= "backward" and key ~= "name" then fail("custom_function: there is no option '%s'", key) end
  end
  local forward, backward, name = spec.forward, spec.backward, spec.name or "a custom function"

  return function(...)
    local args = table.pack(...)
    local inputs, in_places = tensors_of(args)
    local ctx = setmetatable({ needs_input_grad = {}, flat = {} }, Context)
    local wanted = false
    for i = 1, args.n do
      ctx.needs_input_grad[i] = kiln.is_tensor(args[i]) and args[i].requires_grad
      wanted = wanted or ctx.needs_input_grad[i]
    end
    local results = table.pack(kiln.no_grad(forward, ctx, ...))
    local outputs, out_places = tensors_of(results)
    local saved, save_places = tensors_of(ctx.to_save or {})
    ctx.to_save = nil
    if not wanted or #outputs == 0 or not kiln.is_grad_enabled() then return table.unpack(results, 1, results.n) end
    local flat = {}
    for k, t in ipairs(outputs) do
      flat[k] = is_among(ctx.flat, t)
      for j = 1, k - 1 do
        if rawequal(outputs[j], t) then outputs[k] = t:detach() end -- two results, two histories
      end
    end
    ctx.flat = {}
    local run = make_run(name, backward, ctx, args.n, in_places, results.n, out_places, save_places)
    kiln.tape_node(name, run, inputs, outputs, saved, flat)
    for k, i in ipairs(out_places) do results[i] = outputs[k] end
    return table.unpack(results, 1, results.n)
  end
end
