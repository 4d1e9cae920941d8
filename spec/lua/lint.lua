-- kiln.lint: what capture would refuse, burn in or keep as state, read off the bytecode; kiln.unused, kiln.is_capturing.
local check = require "check"
local test, equal, raises, truth = check.test, check.equal, check.raises, check.truth

local n, name, flag, w, count = 3, "relu", true, kiln.ones(2), 0
local cfg = { scale = 2.5, deep = { p = "x" }, act = function(x) return x * n end }
GLOBAL_OF_LINT = 7

local function helper(x) return x * cfg.scale + math.random() end
local function f(x)
  local y = helper(x) + n + w
  if flag and name == "relu" then y = y:relu() end
  count = count + 1
  cfg.last = y
  LINT_SET = 1
  local inner = function() return os.time() + GLOBAL_OF_LINT end
  return coroutine.wrap(inner), kiln.exp(y), math.floor(2.5), table.concat({}), cfg.act(x), pcall(inner)
end
local base = debug.getinfo(f, "S").linedefined

test("findings have a kind, a line and a sentence", function()
  local found = kiln.lint(f)
  local got = {}
  for _, e in ipairs(found) do got[#got + 1] = ("%d %s %s"):format(e.line - base, e.kind, e.what) end
  table.sort(got)
  local wanted = {
    "-1 burn burns in 'cfg.scale' = 2.5",
    "-1 refuse calls the C function 'math.random', which cannot be captured; it would be drawn once, while capturing; use kiln.rand or kiln.randint",
    "1 burn burns in 'n' = 3",
    "2 burn burns in 'flag' = true",
    "2 burn burns in 'name' = \"relu\"",
    "3 burn burns in 'count' = 0",
    "3 state writes 'count', which exists outside: it becomes state of the graph",
    "4 state writes 'cfg.last', which exists outside: it becomes state of the graph",
    "5 state writes the global 'LINT_SET': it becomes state of the graph",
    "6 burn burns in 'GLOBAL_OF_LINT' = 7",
    "6 refuse calls the C function 'os.time', which cannot be captured; pass the time as an argument",
    "7 refuse calls the C function 'coroutine.wrap', which cannot be captured; coroutines cannot be captured; write a loop",
  }
  local have = {}
  for _, text in ipairs(got) do have[text] = true end
  for _, text in ipairs(wanted) do truth(have[text], text) end
  truth(tostring(found):find("lint.lua:" .. base + 1 .. ": burns in 'n' = 3\n", 1, true))
  for _, e in ipairs(found) do truth(e.text:find("lint.lua:" .. e.line .. ": ", 1, true) and not e.what:find "kiln%.exp" and not e.what:find "math%.floor") end
  equal(count, 0) -- nothing ran
end)

test("what it refuses capture refuses; what it does not, capture takes", function()
  local function good(x) if x:sum():item() > 0 then return x * n end return cfg.act(x) end
  for _, e in ipairs(kiln.lint(good)) do equal(e.kind, "burn") end
  kiln.script(good)(kiln.ones(2))
  local function bad(x) return x * os.clock() end
  equal(kiln.lint(bad)[1].kind, "refuse")
  raises(function() kiln.script(bad)(kiln.ones(2)) end, kiln.lint(bad)[1].what)
  equal(#kiln.lint(function(x) return x + 1 end), 0)
  local net = kiln.nn.Sequential(kiln.nn.Linear(2, 2))
  truth(type(kiln.lint(net)) == "table")
  raises(function() kiln.lint(3) end, "lint: a Lua function or module is needed, got an integer")
  raises(function() kiln.lint(print) end, "lint: a Lua function or module is needed")
end)

test("stripped code is read as well", function()
  local bare = load(string.dump(function(x) return x * os.clock() end, true))
  equal(kiln.lint(bare)[1].line, 0)
end)

test("unused and is_capturing", function()
  local never = kiln.unused(function() end)
  raises(function() local _ = never() end, "lint.lua:", "this function was marked kiln.unused, and is called")
  local g = kiln.script(function(x) if x:sum():item() > 0 then return x end return never(x) end)
  equal(g(kiln.ones(2)):totable(), { 1.0, 1.0 })
  raises(function() g(kiln.zeros(2)) end, "this function was marked kiln.unused, and is called")
  raises(function() kiln.unused(3) end, "unused: a function or module is needed, got number")
  equal(kiln.is_capturing(), false)
  truth(kiln.script(function(x) return kiln.is_capturing() end)(kiln.ones(1)))
end)
