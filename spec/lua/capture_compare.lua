-- Runs a function eagerly and captured on the same random inputs and compares everything a caller can see: values to the
-- bit, kind of number, dtypes, number and shape of results, which tensors and tables are the same ones, what became of
-- the arguments and of outside state, random numbers drawn, errors with their lines, gradients. A helper of the capture
-- specs: it returns a module and has no tests of its own.
local check = require "check"
local M = { functions = 0, nodes = 0, inputs = 0, differentiable = 0, gradients = 0 }

function M.show(v, seen)
  if kiln.is_tensor(v) then return (tostring(v):gsub("\n", " ")) end
  if type(v) ~= "table" then return tostring(v) end
  seen = seen or {}
  if seen[v] then return "{again}" end
  seen[v] = true
  local parts = {}
  for k, x in pairs(v) do parts[#parts + 1] = tostring(k) .. " = " .. M.show(x, seen) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

-- ---- inputs ----

-- A stream of our own: capture must not see math.random.
local function stream(seed)
  local state = seed
  return function(a, b)
    state = (state * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
    local x = (state >> 33) / (1 << 30)
    if not a then return x end
    return a + math.floor(x * (b - a + 1))
  end
end

-- Halves from -1 to 1 make ties and zeros likely; every zero has a sign.
local function small(random)
  local v = random(-2, 2) / 2
  return v == 0 and random(1, 2) == 1 and -0.0 or v
end

local rare = { 0 / 0, math.huge, -math.huge }

function M.tensor(random, options)
  local t, size = {}, options.size or 4
  local coarse = random(1, 10) <= 4
  for i = 1, size do t[i] = coarse and small(random) or random() * 4 - 2 end
  if size > 0 and random(1, 20) == 1 then t[random(1, size)] = rare[options.finite and 1 or random(1, 3)] end
  return kiln.tensor(t, { dtype = "float32" })
end

--- A value by its letter: T tensor, F float, I integer, B boolean; anything else stands for itself.
local function value(letter, random, args, options)
  local own = options.value and options.value(letter, random, args)
  if own ~= nil then return own end
  if letter == "T" then return M.tensor(random, options) end
  if letter == "F" then return random(1, 10) <= 4 and small(random) or random() * 4 - 2 end
  if letter == "I" then return random(-3, 6) end
  if letter == "B" then return random(1, 2) == 1 end
  return letter
end

local function arguments(letters, random, options)
  local sizes = options.sizes or { 4 }
  options.size = sizes[random(1, #sizes)]
  local args = { n = #letters }
  for i, letter in ipairs(letters) do args[i] = value(letter, random, args, options) end
  return args
end

-- Values of their own: the same argument twice is one tensor in the copy too.
local function copies(args)
  local of, to = {}, { n = args.n }
  local function copy(v)
    if of[v] then return of[v] end
    if kiln.is_tensor(v) then of[v] = v:detach():clone() return of[v] end
    if type(v) ~= "table" then return v end
    of[v] = setmetatable({}, getmetatable(v))
    for k, x in pairs(v) do of[v][k] = copy(x) end
    return of[v]
  end
  for i = 1, args.n do to[i] = args[i] ~= nil and copy(args[i]) or args[i] end
  return to
end

-- ---- gradients ----

local function leaves(args)
  local out, xs, of = { n = args.n }, {}, {}
  for i = 1, args.n do
    out[i] = args[i]
    if kiln.is_tensor(args[i]) and args[i].dtype:find "float" then
      if not of[args[i]] then
        of[args[i]] = args[i]:detach():clone():requires_grad_()
        xs[#xs + 1] = of[args[i]]
      end
      out[i] = of[args[i]]
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
local function gradients(f, args, run, outside)
  local given, xs = leaves(args)
  for _, x in ipairs(outside) do
    if kiln.is_tensor(x) and x.requires_grad and x.is_leaf then xs[#xs + 1] = x end
  end
  kiln.manual_seed(run)
  local ys = wanting(table.pack(f(table.unpack(given, 1, given.n))), {}, {})
  if #ys == 0 or #xs == 0 then return 0, {}, xs end
  local weights = {}
  for i, y in ipairs(ys) do weights[i] = kiln.full(y.shape, 0.5 + i / 4, { dtype = y.dtype }) end
  return #ys, kiln.grad(ys, xs, { grad_outputs = weights, allow_unused = true }), xs
end

local function near(a, b)
  if not a or not b then return not a and not b end
  return check.identical(a.shape, b.shape) and a:allclose(b, { rtol = 1e-4, atol = 1e-5, equal_nan = true })
end

-- Returns 1 where there were gradients to compare.
local function compare_gradients(pair, args, run, where)
  local fine, n, want = pcall(gradients, pair[1].call, args, run, pair[1].outside())
  if not fine then return 0 end -- a leaf that is written to, say
  local ran, m, got = pcall(gradients, pair[2].call, args, run, pair[2].outside())
  if not ran and tostring(m):find("and the graph overwrites it", 1, true) then return 0 end -- on a path not taken now
  if not ran then error(m, 0) end
  if m < n then error(where() .. ("%d results require grad eager, %d captured"):format(n, m), 0) end
  if m > n then return 0 end -- they do on some path, not on the one taken now
  for i = 1, math.max(#want, #got) do
    if not near(want[i], got[i]) then
      error(where() .. ("the gradient of tensor %d is %s eager, %s captured"):format(i, M.show(want[i]), M.show(got[i])), 0)
    end
  end
  return n > 0 and 1 or 0
end

-- ---- a run ----

-- The one line that calls either of the two: where a function has no lines, messages of ops name this one.
local function call(f, args) return table.pack(pcall(f, table.unpack(args, 1, args.n))) end

-- Eager code that does not end is told, rather than waited for.
local endless = "no end in sight: give this case the option `finite`, or a bound"
local function stop() error(endless, 0) end

local function run_once(side, args, seed, eager)
  kiln.manual_seed(seed)
  if eager then debug.sethook(stop, "", 300000) end
  local results = call(side.call, args)
  if eager then debug.sethook() end
  if results[2] == endless then error(endless, 0) end
  return results, kiln.rand(1):item()
end

local function compare_errors(pair, want, got, own, before, held, options)
  if want[1] ~= got[1] then
    return ("eager %s, captured %s"):format(want[1] and "returns" or "raises " .. tostring(want[2]),
      got[1] and "returns" or "raises " .. tostring(got[2]))
  end
  if options.words ~= false and not check.identical(want[2], got[2], {}) then
    return ("eager raises %s, captured %s"):format(M.show(want[2]), M.show(got[2]))
  end
  for i = 1, own.n do
    if not check.identical(own[i], before[i], {}) then return "a run that failed has changed argument " .. i end
  end
  local now = pair[2].outside()
  for i = 1, now.n do
    if not check.identical(now[i], held[i], {}) then return "a run that failed has changed what is outside: " .. M.show(now[i]) end
  end
  pair[1].put(table.unpack(copies(held), 1, held.n))
end

-- Arguments, results and outside state in this order, with one map: they may be one another.
local function compare_values(pair, want, got, args, own, options)
  if want.n ~= got.n then return ("%d results eager, %d captured"):format(want.n - 1, got.n - 1) end
  local map = { tensors = options.identity ~= false }
  for i = 1, args.n do
    if not check.identical(args[i], own[i], map) then
      return ("argument %d is %s afterwards eager, %s captured"):format(i, M.show(args[i]), M.show(own[i]))
    end
  end
  for i = 2, want.n do
    if not check.identical(want[i], got[i], map) then
      return ("result %d is %s eager, %s captured"):format(i - 1, M.show(want[i]), M.show(got[i]))
    end
  end
  local a, b = pair[1].outside(), pair[2].outside()
  for i = 1, a.n do
    if not check.identical(a[i], b[i], map) then return ("outside, eager %s, captured %s"):format(M.show(a[i]), M.show(b[i])) end
  end
end

-- f alone, or with functions that return its outside state and put it back.
local function side(f)
  if type(f) ~= "table" then f = { f } end
  return {
    call = f[1],
    outside = f[2] and function() return table.pack(f[2]()) end or function() return { n = 0 } end,
    put = f[3] or function() end,
  }
end

--- Runs both n times and raises where they differ; returns how many runs raised, and how many had gradients. f and g are
--- functions, or { function, what returns its outside state, what puts it back }, each with a state of its own. Options:
--- value(letter, random, args) gives arguments of further letters; sizes of tensors (4); finite: no infinite elements
--- (eager would not end); words = false, identity = false, gradients = false: what is not compared.
function M.compare(f, g, letters, n, seed, options)
  options = options or {}
  if type(letters) == "string" then
    local list = {}
    for letter in letters:gmatch "." do list[#list + 1] = letter end
    letters = list
  end
  local random = stream(seed or 1)
  local pair = { side(f), side(g) }
  local raised, differentiable = 0, 0
  for run = 1, n do
    local args = arguments(letters, random, options)
    local own, before, held = copies(args), copies(args), copies(pair[2].outside())
    local function where()
      local shown = {}
      for i = 1, args.n do shown[i] = M.show(before[i]) end
      return ("run %d, arguments %s: "):format(run, table.concat(shown, ", "))
    end
    local want, draw = run_once(pair[1], args, run, true)
    local got, other = run_once(pair[2], own, run)
    local why
    if want[1] and got[1] then
      why = compare_values(pair, want, got, args, own, options)
      if not why and draw ~= other then why = "random numbers drawn differ" end
    else
      raised = raised + 1
      why = compare_errors(pair, want, got, own, before, held, options)
    end
    if why then error(where() .. why, 0) end
    if want[1] and options.gradients ~= false then
      differentiable = differentiable + compare_gradients(pair, before, run, where)
    end
  end
  M.inputs = M.inputs + n
  M.gradients = M.gradients + differentiable
  return raised, differentiable
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

local function bare_side(f)
  if type(f) ~= "table" then return M.stripped(f) end
  return { M.stripped(f[1]), f[2], f[3] }
end

local function captured(f)
  if type(f) ~= "table" then return kiln.script(f) end
  return { kiln.script(f[1]), f[2], f[3] }
end

local function seed_of(name)
  local h = 1
  for i = 1, #name do h = (h * 31 + name:byte(i)) & 0xffffff end
  return h
end

--- What is written in place is a new value in a graph.
local function writes_nothing(g)
  local there, nodes = pcall(function() return (type(g) == "table" and g[1] or g):nodes() end)
  for _, n in ipairs(there and nodes or {}) do
    M.nodes = M.nodes + 1
    check.truth(n.op:sub(-1) ~= "_", n.op)
  end
end

--- A case: one function on options.runs (40) inputs, and once more without names and lines. options.make: f makes the
--- function and what compare() wants beside it, so that eager and captured have a state of their own. A number for the
--- options is how many runs. options.stripped: a look at the stripped function, both ways.
function M.case(name, f, letters, options)
  if type(options) == "number" then options = { runs = options } end
  options = options or {}
  local function make() if options.make then return { f() } end return f end
  M.functions = M.functions + 1
  check.test(name, function()
    local g = captured(make())
    local _, differentiable = M.compare(make(), g, letters, options.runs or 40, seed_of(name), options)
    writes_nothing(g)
    if differentiable > 0 then M.differentiable = M.differentiable + 1 end
  end)
  check.test(name .. ", stripped", function()
    local a, b = bare_side(make()), captured(bare_side(make()))
    if options.stripped then a, b = options.stripped(a), options.stripped(b) end
    M.compare(a, b, letters, options.bare or 10, seed_of(name) + 1, options)
  end)
end

if ... then -- required, not run as one of the files
  check.at_end(function(whole)
    print(("%d functions eager and captured alike on %d inputs; gradients of %d of them %d times"):format(M.functions,
      M.inputs, M.differentiable, M.gradients))
    check.file = "capture_compare.lua"
    check.test("enough of them", function()
      check.truth(not whole or M.functions >= 54 + 150 and M.inputs >= 30 * M.functions, "204 functions, 30 inputs each")
      check.truth(not whole or M.differentiable >= 150, "150 with gradients")
      check.truth(not whole or M.nodes >= 2000, M.nodes .. " nodes, of which none writes in place")
    end)
  end)
end

return M
