-- Runs a function eagerly and captured on the same random inputs and compares everything a caller can see: values,
-- kind of number, number and shape of results, aliasing of result tables, what became of the arguments, errors. A helper of the capture specs;
-- returns a module and has no tests of its own.
local values = require "same"
local same, show = values.same, values.show
local M = {}

-- Halves from -1 to 1 make ties and zeros likely.
local function small(random) return random(-2, 2) / 2 end

function M.tensor(random)
  local t = {}
  local coarse = random(1, 10) <= 4
  for i = 1, 4 do t[i] = coarse and small(random) or random() * 4 - 2 end
  if random(1, 40) == 1 then t[random(1, 4)] = 0 / 0 end
  return kiln.tensor(t)
end

--- A value by its letter: T tensor, F float, I integer, B boolean; anything else stands for itself.
function M.value(letter, random)
  if letter == "T" then return M.tensor(random) end
  if letter == "F" then return random(1, 10) <= 4 and small(random) or random() * 4 - 2 end
  if letter == "I" then return random(-3, 6) end
  if letter == "B" then return random(1, 2) == 1 end
  return letter
end

-- ---- gradients ----

local function leaves(args)
  local out, xs = { n = args.n }, {}
  for i = 1, args.n do
    out[i] = args[i]
    if kiln.is_tensor(args[i]) and args[i].dtype:find "float" then
      out[i] = args[i]:detach():clone():requires_grad_()
      xs[#xs + 1] = out[i]
    end
  end
  return out, xs
end

-- Tensors among the results that require grad, in an order that both runs share.
local function wanting(v, list, seen)
  if kiln.is_tensor(v) then
    if v.requires_grad then list[#list + 1] = v end
  elseif type(v) == "table" and not seen[v] then
    seen[v] = true
    local keys = {}
    for k in pairs(v) do keys[#keys + 1] = k end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, k in ipairs(keys) do wanting(v[k], list, seen) end
  end
  return list
end

-- What f gives for leaves with the values of args: the gradients of all results together, and how many there were.
local function gradients(f, args, run)
  local given, xs = leaves(args)
  kiln.manual_seed(run)
  local ys = wanting(table.pack(f(table.unpack(given, 1, given.n))), {}, {})
  if #ys == 0 or #xs == 0 then return 0, {}, xs end
  local weights = {}
  for i, y in ipairs(ys) do weights[i] = kiln.full(y.shape, 0.5 + i / 4, { dtype = y.dtype }) end
  return #ys, kiln.grad(ys, xs, { grad_outputs = weights, allow_unused = true }), xs
end

local function near(a, b)
  if not a or not b then return not a and not b end
  return same(a.shape, b.shape) and a:allclose(b, { rtol = 1e-4, atol = 1e-5, equal_nan = true })
end

local function compare_gradients(f, g, args, run, where)
  local fine, n, want = pcall(gradients, f, args, run)
  if not fine then return end -- a leaf that is written to, say
  local ran, m, got = pcall(gradients, g, args, run)
  if not ran and tostring(m):find("and the graph overwrites it", 1, true) then return end -- on a path not taken now
  if not ran then error(m, 0) end
  if m < n then error(where() .. ("%d results require grad eager, %d captured"):format(n, m), 3) end
  if m > n then return end -- they do on some path, not on the one taken now
  for i = 1, math.max(#want, #got) do
    if not near(want[i], got[i]) then
      error(where() .. ("the gradient of tensor %d is %s eager, %s captured"):format(i, show(want[i]), show(got[i])), 3)
    end
  end
end

-- Tensors of their own for each of the two: the same argument twice is one tensor in both.
local function copies(args)
  local of, to = {}, { n = args.n }
  local function copy(v)
    if of[v] then return of[v] end
    if kiln.is_tensor(v) then of[v] = v:clone() return of[v] end
    if type(v) ~= "table" then return v end
    of[v] = {}
    for k, x in pairs(v) do of[v][k] = copy(x) end
    return of[v]
  end
  for i = 1, args.n do to[i] = args[i] ~= nil and copy(args[i]) or args[i] end
  return to
end

--- Runs both n times; raises where they differ, in error messages too when `messages`. Returns how many
--- raised.
function M.compare(f, g, letters, n, seed, messages, options)
  options = options or {}
  local state = seed or 1
  local function random(a, b) -- a stream of our own: capture must not see math.random
    state = (state * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
    local x = (state >> 33) / (1 << 30)
    if not a then return x end
    return a + math.floor(x * (b - a + 1))
  end
  local raised = 0
  for run = 1, n do
    local args = { n = #letters }
    for i, letter in ipairs(letters) do
      args[i] = options.value and options.value(letter, random, args) or M.value(letter, random)
    end
    local own, before = copies(args), copies(args)
    kiln.manual_seed(run)
    local want = table.pack(pcall(f, table.unpack(args, 1, args.n)))
    local draw = kiln.rand(1):item()
    kiln.manual_seed(run)
    local got = table.pack(pcall(g, table.unpack(own, 1, own.n)))
    local function where()
      local shown = {}
      for i = 1, args.n do shown[i] = show(before[i]) end
      return ("run %d, arguments %s: "):format(run, table.concat(shown, ", "))
    end
    if want[1] ~= got[1] then
      error(where() .. ("eager %s, captured %s"):format(want[1] and "returns" or "raises " .. tostring(want[2]),
        got[1] and "returns" or "raises " .. tostring(got[2])), 2)
    end
    if not want[1] then
      raised = raised + 1
      for i = 1, own.n do
        if not same(own[i], before[i]) then error(where() .. "a run that failed has changed argument " .. i, 2) end
      end
      if messages and tostring(want[2]) ~= tostring(got[2]) then
        error(where() .. ("eager raises %q, captured %q"):format(tostring(want[2]), tostring(got[2])), 2)
      end
    else
      if want.n ~= got.n then error(where() .. ("%d results eager, %d captured"):format(want.n - 1, got.n - 1), 2) end
      local map = {} -- of arguments and results together: which are the same must agree
      for i = 1, args.n do
        if not same(args[i], own[i], map) then
          error(where() .. ("argument %d is %s afterwards eager, %s captured"):format(i, show(args[i]), show(own[i])), 2)
        end
      end
      for i = 2, want.n do
        if not same(want[i], got[i], map) then
          error(where() .. ("result %d is %s eager, %s captured"):format(i - 1, show(want[i]), show(got[i])), 2)
        end
      end
      if kiln.rand(1):item() ~= draw then error(where() .. "random numbers drawn differ", 2) end
      if not M.no_gradients then compare_gradients(f, g, args, run, where) end
    end
  end
  return raised
end

--- The same function without names and lines; its upvalues are shared, so that both see the same.
function M.stripped(f)
  local bare = load(string.dump(f, true))
  for i = 1, 255 do
    if not debug.getupvalue(f, i) then break end
    debug.upvaluejoin(bare, i, f, i)
  end
  return bare
end

return M
