-- What modules are asked for inside captured functions: parameters, states, parts. The module is an outside value whose
-- structure is burnt in under guards. Also table.sort and table.move, and tensors as keys of tables.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises
local nn = kiln.nn

local function net()
  kiln.manual_seed(1)
  local n = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2))
  n.tied = n[4]
  return n
end

local function shown(v)
  if kiln.is_tensor(v) then return v:totable() end
  if type(v) ~= "table" then return v end
  local out = {}
  for k, x in pairs(v) do out[k] = shown(x) end
  return out
end

-- f(net, x) on a module of its own, eager and captured, twice each.
local function same(name, f)
  test(name, function()
    local x = kiln.randn(5, 3)
    local function twice(n, captured)
      local g = function(x) return f(n, x) end
      if captured then g = kiln.script(g) end
      local a = table.pack(g(x))
      local b = table.pack(g(x + 1))
      return shown { a, b, n:state_dict(), n.training }
    end
    equal(twice(net(), true), twice(net(), false))
  end)
end

same("parameters", function(n, x)
  local s = x:sum()
  for i, p in ipairs(n:parameters()) do s = s + p:sum() * i end
  return s, #n:parameters(), n:num_parameters(), #n:buffers()
end)
same("names", function(n)
  local names, sums = {}, {}
  for name, p in n:named_parameters() do
    names[#names + 1] = name
    sums[name] = p:sum()
  end
  for name in n:named_buffers() do names[#names + 1] = name end
  for name, part in n:named_modules() do names[#names + 1] = name .. ":" .. part.name end
  for name in n:named_children() do names[#names + 1] = name end
  return names, sums
end)
same("state_dict", function(n, x)
  local state = n:state_dict()
  return x:sum() + state["0.weight"]:sum(), state["2.running_mean"] * 2, state["3.bias"] + 0
end)
same("get_parameter and get_submodule", function(n)
  return n:get_parameter "0.weight" + 1, n:get_submodule("2").eps, n:get_buffer("2.running_var"):sum()
end)
same("load_state_dict", function(n, x)
  local state = {}
  for name, t in pairs(n:state_dict()) do state[name] = t:detach() * 0.5 end
  n:load_state_dict(state)
  return n(x)
end)
same("train and eval", function(n, x)
  n:eval()
  local y = n(x)
  n:train()
  return y, n(x)
end)
same("apply", function(n, x)
  n:apply(function(m)
    if m.weight then kiln.no_grad(function() m.weight:mul_(0.5) end) end
  end)
  return n(x)
end)
same("a step with what the module has", function(n, x)
  n:zero_grad()
  local loss = n(x):square():mean()
  loss:backward()
  local norm = nn.utils.clip_grad_norm_(n:parameters(), 0.1)
  kiln.no_grad(function()
    for _, p in ipairs(n:parameters()) do p:sub_(p.grad * 0.1) end
  end)
  return loss, norm
end)
same("parameters as a vector", function(n)
  return nn.utils.parameters_to_vector(n:parameters())
end)

test("a module that changes is captured again", function()
  local n, x = net(), kiln.randn(5, 3)
  local function f(x)
    local s = x:sum()
    for i, p in ipairs(n:parameters()) do s = s + p:sum() * i end
    return s, #n:parameters()
  end
  local g = kiln.script(f)
  local function agree()
    local s, count = g(x)
    local t, other = f(x)
    equal(s:item(), t:item())
    equal(count, other)
    return count
  end
  equal(agree(), 6)
  n[5] = nn.Linear(2, 2)
  equal(agree(), 8)
  n[5] = nil
  equal(agree(), 6)
  n[1].weight = nn.Parameter(kiln.randn(4, 3))
  equal(agree(), 6)
  n[1].bias = n[3].bias -- now one tensor at two places
  equal(agree(), 5)
  n[1].extra = nn.Parameter(kiln.randn(2))
  equal(agree(), 6)
  kiln.no_grad(function() n[1].weight:add_(1) end)
  equal(agree(), 6)
end)

test("tensors as keys", function()
  local a, b = kiln.ones(2), kiln.ones(2)
  local known, box = { [a] = 3 }, { a = a, b = b, c = a }
  local function f(x)
    local seen, n = {}, 0
    for _, name in ipairs { "a", "b", "c" } do
      local t = box[name]
      if not seen[t] then n = n + 1 end
      seen[t] = name
    end
    return x * n, seen[a], seen[b], known[box.a], known[box.b], rawget(known, a)
  end
  local g = kiln.script(f)
  for step = 1, 3 do
    equal(shown(table.pack(g(kiln.ones(1)))), shown(table.pack(f(kiln.ones(1)))))
    if step == 1 then box.b = a else box.c = kiln.ones(2) end
  end
  raises(function() kiln.script(function(x) return ({ [x] = 1 })[x] end)(a) end, "used as a table key")
  raises(function() kiln.script(function(x) local y = x + 1 return ({ [y] = 1 })[y] end)(a) end, "used as a table key")
  raises(function()
    kiln.script(function(x)
      for t in pairs(known) do x = x + t end
      return x
    end)(a)
  end, "whose keys are tensors")
end)

test("table.sort", function()
  local function agree(f, ...)
    equal(shown(table.pack(kiln.script(f)(...))), shown(table.pack(f(...))))
  end
  local x = kiln.tensor { 1.5, -2 }
  agree(function(x)
    local names, numbers = { "b", "a", "B", "", "ab", "a\0c" }, { 3, -1, 2.5, 1 / 0, 0, 2, 2 }
    table.sort(names)
    table.sort(numbers)
    return x * numbers[1], names, numbers
  end, x)
  agree(function(x)
    local list = { { n = 2, t = x }, { n = 1, t = x * 2 }, { n = 3, t = x - 1 } }
    table.sort(list, function(a, b) return a.n > b.n end)
    local none = {}
    table.sort(none)
    return list[1].t, list[2].t, list[3].n, #none
  end, x)
  agree(function(x, n)
    local list = { 3, n, 1 }
    table.sort(list, function(a, b) return a > b end)
    table.sort(list)
    return x * list[2]
  end, x, 2)
  agree(function(x)
    local t = table.move({ 1, 2, 3, x }, 2, 4, 1)
    local u = table.move({ 1, 2, 3 }, 1, 3, 2)
    return t, u, table.move({ 7, 8 }, 1, 2, 3, { 5, 6 }), table.move({ 1 }, 2, 1, 1)
  end, x)
  local function refused(f, why) raises(function() kiln.script(f)(x) end, why) end
  refused(function(x) local t = { x:sum():item(), 2 } table.sort(t) return t[1] end, "kiln.sort")
  refused(function(x)
    local t = { 1, 2 }
    table.sort(t, function(a, b) return x:sum() * a < x:sum() * b end)
    return t[1]
  end, "the order of this table depends on tensor data")
  refused(function() local t = { { 1 }, { 1 } } table.sort(t, function(a, b) return a[1] < b[1] end) end, "which comes first")
  refused(function(x) local t = { 1, "a" } table.sort(t) return x end, "attempt to compare")
  refused(function(x) local t = { 1, 2 } table.sort(t, 3) return x end, "function expected")
end)
