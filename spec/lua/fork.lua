-- kiln.fork and kiln.wait: results, errors, random streams, captured and saved too, and races that are refused.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth

local x = kiln.tensor { 1.0, 2, 3 }

-- The same results and the same place in the random stream: eager, captured, parsed from its text, saved and loaded.
local function agrees(f, ...)
  local function run(g, ...)
    kiln.manual_seed(7)
    local y = g(...)
    return { y:totable(), kiln.rand(2):totable() }
  end
  local want, g = run(f, ...), kiln.script(f)
  equal(run(g, ...), want)
  equal(run(g, ...), want)
  equal(run(kiln.parse(tostring(g)), ...), want)
  local path = os.tmpname()
  g:save(path)
  equal(run(kiln.load(path), ...), want)
  os.remove(path)
  return g, want
end

test("a future gives the results, as often as it is asked", function()
  local f = kiln.fork(function(a, b) return a + b, nil, "text", a, nil end, 1, 2)
  equal(table.pack(kiln.wait(f)), { 3, nil, "text", 1, nil, n = 5 })
  equal(table.pack(kiln.wait(f)), { 3, nil, "text", 1, nil, n = 5 })
  equal(select("#", kiln.wait(kiln.fork(function() end))), 0)
  equal(tostring(f), "future of 5 results")
  equal(kiln.wait(kiln.fork(kiln.add, x, 1)):totable(), { 2.0, 3.0, 4.0 })
end)

test("errors are raised by wait", function()
  local function bad() error("no luck") end
  local f = kiln.fork(bad)
  equal(tostring(f), "future of an error")
  for _ = 1, 2 do
    local ok, message = pcall(kiln.wait, f)
    truth(not ok and message:find "fork.lua:%d+: no luck")
  end
  local what = {}
  local ok, message = pcall(kiln.wait, kiln.fork(function() error(what) end))
  truth(not ok and message == what)
  kiln.manual_seed(1)
  kiln.fork(function() kiln.rand(5) error "lost" end)
  local after = kiln.rand(3)
  kiln.manual_seed(1)
  kiln.fork(function() end)
  truth(after:equal(kiln.rand(3))) -- the stream is where it would have been
end)

test("what cannot be forked or waited for", function()
  raises(function() kiln.fork(nil) end, "fork: a function to run is needed, got nil")
  raises(function() kiln.fork("f") end, "fork: a function to run is needed, got string")
  raises(function() kiln.wait(nil) end, "wait: a future is needed, as kiln.fork gives it, got nil")
  raises(function() kiln.wait(x) end, "wait: a future is needed, as kiln.fork gives it, got a tensor")
  raises(function() kiln.wait { ok = true } end, "wait: a future is needed, as kiln.fork gives it, got table")
  raises(function() kiln.join_random(x) end, "the state of a random stream is int64 [2]")
  raises(function() kiln.join_random(kiln.zeros(3, { dtype = "int64" })) end, "the state of a random stream is int64 [2]")
end)

test("a part draws from its own stream", function()
  local function draws(n, m)
    kiln.manual_seed(3)
    local a = kiln.fork(kiln.rand, n)
    local b = kiln.fork(function() return kiln.rand(m), kiln.rand(2) end)
    return kiln.wait(a), kiln.wait(b), kiln.rand(4)
  end
  local a, b, c = draws(2, 3)
  local a2, b2, c2 = draws(50, 3)
  truth(b:equal(b2) and c:equal(c2) and a:equal(a2[{ { 1, 2 } }])) -- how much another part draws changes nothing
  truth(not a:equal(b[{ { 1, 2 } }]) and not a:equal(c[{ { 1, 2 } }]))
  kiln.manual_seed(4)
  truth(not kiln.wait(kiln.fork(kiln.rand, 2)):equal(a))
end)

test("captured it is the same", function()
  local g = agrees(function(t)
    local a = kiln.fork(function(u) return u * kiln.rand(3), kiln.randn(3) end, t)
    local b = kiln.fork(function(u)
      if u:sum():item() > 3 then return u + kiln.rand(3) end
      return u - 1
    end, t)
    local c = kiln.rand(3)
    local p, q = kiln.wait(a)
    return p + q + kiln.wait(b) + c + kiln.wait(a)
  end, x)
  truth(tostring(g):find "fork_random" and tostring(g):find "join_random")
  local h = kiln.script(function(t)
    local f = kiln.fork(function() return t:sum(), t:mean() end)
    return kiln.wait(f)
  end)
  local s, m = h(x)
  equal({ s:item(), m:item() }, { 6.0, 2.0 })
end)

test("nested, in loops, and never waited for", function()
  agrees(function(t)
    local outer = kiln.fork(function()
      local inner = kiln.fork(function() return kiln.rand(3) end)
      return kiln.rand(3) + kiln.wait(inner)
    end)
    kiln.fork(function() return kiln.rand(3) end)
    return t * kiln.wait(outer)
  end, x)
  agrees(function(t)
    local fs = {}
    for i = 1, 4 do fs[i] = kiln.fork(function(k) return kiln.rand(3) * k end, i) end
    for i = 1, 4 do t = t + kiln.wait(fs[i]) end
    return t
  end, x)
  agrees(function(t)
    while t:sum():item() < 40 do
      local a = kiln.fork(function() return t + kiln.rand(3) end)
      local b = kiln.fork(function() return t * 0.5 end)
      t = kiln.wait(a) + kiln.wait(b)
    end
    return t
  end, x)
end)

test("a future that is one of several, of a size that only a run knows", function()
  local held = { n = 0 }
  local function f(t)
    local a
    if t:sum():item() > 0 then
      a = kiln.fork(function() held.n = held.n + 1 return t + kiln.rand(t:size(1)) end)
    else
      a = kiln.fork(function() return t - kiln.rand(t:size(1)) end)
    end
    local r = kiln.wait(a)
    held.n = held.n + 2
    return r
  end
  local g = kiln.script(f, { inputs = { kiln.spec("float32", { "N" }) } })
  for _, t in ipairs { x, -x, kiln.ones(5) } do
    kiln.manual_seed(1)
    local want, n = f(t), held.n
    held.n = 0
    kiln.manual_seed(1)
    truth(g(t):equal(want))
    equal(held.n, n)
    held.n = 0
  end
end)

test("captured errors are raised by wait", function()
  local function f(t, wait)
    local a = kiln.fork(function()
      local r = kiln.rand(3)
      if t:sum():item() > 5 then error "too much" end
      return r
    end)
    local c = kiln.rand(3)
    if wait then return kiln.wait(a) + c end
    return c
  end
  for _, wait in ipairs { false, true } do
    local g = kiln.script(f)
    for _, t in ipairs { x, -x } do
      kiln.manual_seed(2)
      local ok, want = pcall(f, t, wait)
      local state = kiln.get_rng_state()
      kiln.manual_seed(2)
      local ok2, got = pcall(g, t, wait)
      equal(ok2, ok)
      if ok then truth(want:equal(got)) equal(kiln.get_rng_state(), state)
      else equal(got, want) truth(want:find "fork.lua:%d+: too much") end
    end
  end
end)

test("a part that writes before it may raise is run, and raises, at its fork when captured", function()
  local held = { n = 0 }
  local function f(t)
    local a = kiln.fork(function()
      held.n = held.n + 1
      if t:sum():item() > 5 then error "too much" end
      return t
    end)
    return kiln.wait(a)
  end
  local g = kiln.script(f)
  truth(g(-x):equal(-x))
  equal(held.n, 1)
  raises(function() g(x) end, "too much")
  equal(held.n, 1) -- a run that raises has changed nothing
end)

test("gradients flow through", function()
  local w = kiln.tensor({ 2.0, 3, 4 }, { requires_grad = true })
  local function f(t)
    local a = kiln.fork(function() return (t * w):sum() end)
    local b = kiln.fork(function() return (t * w * w):sum() end) -- both read w
    return kiln.wait(a) + kiln.wait(b)
  end
  local want = kiln.grad(f(x), w)
  truth(kiln.grad(kiln.script(f)(x), w):equal(want))
end)

test("a step with its backward inside is the same", function()
  local function after(captured)
    local p = kiln.ones(3, { requires_grad = true })
    local opt = kiln.optim.SGD({ p }, { lr = 0.1 })
    local function step(t)
      opt:zero_grad()
      local a = kiln.fork(function() return (p * t):sum() end)
      local b = kiln.fork(function() return (p * p * kiln.rand(3)):sum() end)
      local loss = kiln.wait(a) + kiln.wait(b)
      loss:backward()
      opt:step()
      return loss:item()
    end
    if captured then step = kiln.script(step) end
    kiln.manual_seed(1)
    return { step(x), step(x), p:totable() }
  end
  equal(after(true), after(false))
end)

test("traced and built by hand it is run at once", function()
  local function f(t)
    local a = kiln.fork(function(u) return u + kiln.rand(3) end, t)
    return kiln.wait(a) * kiln.rand(3)
  end
  kiln.manual_seed(9)
  local want = f(x)
  local g = kiln.trace(f, { x })
  kiln.manual_seed(9)
  truth(g(x):equal(want))
  kiln.manual_seed(9) -- a builder computes at once what takes no symbol: its draws are constants
  local b = kiln.builder()
  local y = f(b:input("x", kiln.spec("float32", { 3 })))
  local h = b:build { y = y }
  truth(h({ x = x }).y:equal(want))
end)

-- Refused, and the sentence names two lines that are `gap` apart.
local function race(f, what, gap, ...)
  local ok, message = pcall(kiln.script(f), ...)
  truth(not ok, "not refused")
  local a, b = message:match "forked parts: %S-fork%.lua:(%d+) .* %S-fork%.lua:(%d+) "
  truth(a, message)
  truth(message:find(what, 1, true), message)
  equal(b - a, gap)
end

local state = { n = 0, t = kiln.zeros(3) }

test("parts that touch what another writes are refused", function()
  race(function(t)
    local a = kiln.fork(function() state.n = state.n + 1 return t end)
    local b = kiln.fork(function() state.n = state.n + 2 return t end)
    return kiln.wait(a) + kiln.wait(b)
  end, "writes a field 'n'", 1, x)
  race(function(t)
    local a = kiln.fork(function() return t * state.n end)
    state.n = 3
    return kiln.wait(a)
  end, "reads a field 'n'", 1, x)
  race(function(t)
    local sum = t
    local a = kiln.fork(function() sum = sum + 1 end)
    local y = sum * 2
    kiln.wait(a)
    return y
  end, "writes a variable", 1, x)
  race(function(t)
    local a = kiln.fork(function() state.t:add_(t) return t end)

    local b = kiln.fork(function() return state.t * 2 end)
    return kiln.wait(a) + kiln.wait(b)
  end, "writes a tensor", 2, x)
  race(function(t)
    local list = {}
    local a = kiln.fork(function() list[1] = t end)
    local n = #list
    kiln.wait(a)
    return t + n
  end, "writes a field [1]", 1, x)
  race(function(t)
    local a = kiln.fork(function()
      local deep = kiln.fork(function() state.n = 5 end)
      return t
    end)
    kiln.wait(a)
    return t + state.n -- the inner part is waited for by nobody
  end, "writes a field 'n'", 4, x)
  race(function(t)
    local a = kiln.fork(function() state.n = 5 end)
    if t:sum():item() > 100 then kiln.wait(a) end
    return t + state.n
  end, "writes a field 'n'", 2, x)
  race(function(t)
    while t:sum():item() < 100 do
      t = t * 2
      kiln.fork(function() state.n = state.n + 1 end)
    end
    return t
  end, "field 'n'", 0, x)
end)

test("what is waited for, or only read, or another place is fine", function()
  state.n = 0
  local function each(t)
    local a = kiln.fork(function() state.n = state.n + 1 return t * state.t end)
    local y = kiln.wait(a)
    local b = kiln.fork(function() state.n = state.n + 1 return t * state.t end)
    y = y + kiln.wait(b)
    state.n = state.n + 1
    return y
  end
  local g = kiln.script(each)
  g(x)
  g(x)
  equal(state.n, 6)
  local h = kiln.script(function(t)
    local out = {}
    local a = kiln.fork(function() out.a = t + 1 end)
    local b = kiln.fork(function() out.b = t * 2 end)
    kiln.wait(a)
    kiln.wait(b)
    if t:sum():item() > 0 then state.n = 1 else state.n = 2 end
    return out.a + out.b
  end)
  equal(h(x):totable(), { 4.0, 7.0, 10.0 })
  local w = kiln.script(function(t)
    while t:sum():item() < 100 do
      t = t * 2
      kiln.wait(kiln.fork(function() state.n = state.n + 1 end))
    end
    return t
  end)
  state.n = 0
  w(x)
  equal(state.n, 5)
end)

-- The lines of a random function of x: forks in forks, waited for or not, twice or late; draws, branches, errors.
local function random_body(roll, depth, values, names)
  local lines, futures = {}, {}
  values = { table.unpack(values) }
  local function name() names.n = names.n + 1 return "v" .. names.n end
  local function add(text, new)
    lines[#lines + 1] = text
    values[#values + 1] = new
  end
  for _ = 1, roll(2, 4) do
    local kind, v, new = roll(6), values[roll(#values)], name()
    if kind <= 2 and depth < 3 then
      add(("local %s = kiln.fork(function() %s end)"):format(new, random_body(roll, depth + 1, values, names)))
      futures[#futures + 1] = new
    elseif kind == 3 then
      add(("local %s = %s + kiln.rand(3)"):format(new, v), new)
    elseif kind == 4 then
      add(("local %s = %s - 1 if %s:sum():item() > %d then %s = %s + kiln.rand(3) end"):format(new, v, v, roll(-3, 3), new, v),
        new)
    elseif kind == 5 and #futures > 0 then
      add(("local %s = kiln.wait(%s)"):format(new, futures[roll(#futures)]), new)
    elseif kind == 6 and roll(3) == 1 then
      add(("if %s:sum():item() > 4 then error 'e%d' end"):format(v, roll(9)))
    end
  end
  for _, f in ipairs(futures) do
    local new = name()
    if roll(4) > 1 then add(("local %s = kiln.wait(%s)"):format(new, f), new) end
  end
  add(("return %s + %s"):format(values[#values], values[roll(#values)]))
  return table.concat(lines, " ")
end

test("random functions of forks are the same captured", function()
  local seed = 1
  local function roll(low, high)
    if not high then low, high = 1, low end
    seed = (seed * 1103515245 + 12345) & 0x7fffffff
    return low + (seed >> 8) % (high - low + 1)
  end
  local raised, drew = 0, 0
  for case = 1, 200 do
    local source = "return function(x) " .. random_body(roll, 1, { "x" }, { n = 0 }) .. " end"
    local f = load(source, "=random", "t", { kiln = kiln, error = error })()
    local g = kiln.script(f)
    for _, t in ipairs { x, -x } do
      kiln.manual_seed(case)
      local ok, want = pcall(f, t)
      local state = kiln.get_rng_state()
      kiln.manual_seed(case)
      local ok2, got = pcall(g, t)
      truth(ok == ok2 and (ok and want:equal(got) or not ok and want == got), source)
      if ok then equal(kiln.get_rng_state(), state) else raised = raised + 1 end
      drew = drew + state.offset
    end
  end
  truth(raised > 10 and raised < 200 and drew > 300, "the functions do what they are for")
end)

test("an error of a part that has written outside is raised where it is waited for", function()
  local function f(x, k)
    local seen = { n = x }
    local part = kiln.fork(function()
      seen.m = x + 1
      return x:index_select(1, k)
    end)
    local y = x * 2
    if y:sum() > 100 then error "first" end
    return kiln.wait(part), y, seen.m
  end
  local g = kiln.script(f)
  for _, k in ipairs { 1, 2, 9 } do
    for _, x in ipairs { kiln.ones(2), kiln.ones(2) * 99 } do
      local at = kiln.tensor { k }
      local ok, a, b, c = pcall(f, x, at)
      local ok2, a2, b2, c2 = pcall(g, x, at)
      equal(ok2, ok)
      if ok then truth(a:equal(a2) and b:equal(b2) and c:equal(c2)) else equal(a2, a) end
    end
  end
end)

test("what such a part wrote must not be missed", function()
  local seen = {}
  local function writes(x, k) return function() seen.n = 1 return x:index_select(1, k) end end
  local x, k = kiln.ones(2), kiln.tensor { 9 }
  raises(function() kiln.script(function(x, k) kiln.fork(writes(x, k)) return x end)(x, k) end,
    "fork.lua:", "the function does not wait on each path for a forked part that may raise an error at ", "let the part return the value")
  raises(function()
    kiln.script(function(x, k)
      local part = kiln.fork(writes(x, k))
      if x:sum() > 5 then return kiln.wait(part) end
      return x
    end)(x, k)
  end, "does not wait on each path")
  raises(function()
    kiln.script(function(x, k)
      local part = kiln.fork(writes(x, k))
      return pcall(kiln.wait, part)
    end)(x, k)
  end, "fork.lua:", "a protected call waits for a forked part that may raise an error at ")
end)
