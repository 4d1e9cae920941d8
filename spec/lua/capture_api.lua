-- What is promised of graphs: each name is there, says what it is, and says what is wrong when it is used wrongly.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local x = kiln.ones(2)

test("each promised name is there, and has a help text", function()
  for _, name in ipairs { "script", "trace", "builder", "cond", "while_loop", "fork", "wait", "ignore", "unused",
    "is_capturing", "lint", "explain", "parse", "save", "load", "spec" } do
    truth(kiln[name], name)
    truth(kiln.help(name):find("^" .. name .. "%("), kiln.help(name))
  end
  truth(kiln.help "trace":find("sum of the diagonal", 1, true) and kiln.help "cond":find("enlarges errors", 1, true))
  check.raises(function() kiln.help "nothing" end, "capture_api.lua:", "help: there is no op, function, class or part 'nothing'")
end)

test("methods of Graphs: there, owed, misspelt", function()
  local g = kiln.script(function(t) return t * 2 end)
  g(x)
  for _, name in ipairs { "code", "nodes", "profile", "inputs", "outputs", "parameters", "guards", "memory", "prepare", "verify", "save" } do
    equal(type(g[name]), "function")
  end
  for _, name in ipairs { "dot", "html", "debug", "quantize_dynamic" } do
    check.raises(function() g[name](g) end, "capture_api.lua:", name .. ": this method of Graphs is not there yet; until then, ")
  end
  check.raises(function() g:cod() end, "capture_api.lua:", "Graph has no method 'cod'; did you mean 'code'?")
  equal(g.cod, nil)
end)

local function refused(name, text, f, ...)
  local args = table.pack(...)
  test(name, function()
    check.raises(function() local r = f(table.unpack(args, 1, args.n)) return r end, "capture_api.lua:", text)
  end)
end

refused("script of a C function", "script: a C function has no bytecode to capture; give a Lua function that calls it", kiln.script, print)
refused("script of an op", "script: a C function has no bytecode to capture", kiln.script, kiln.relu)
refused("script of a coroutine", "script: a function or module is needed, got a coroutine", kiln.script, coroutine.create(print))
refused("script of what coroutine.wrap gives", "script: a C function", kiln.script, coroutine.wrap(print))
refused("script of a table", "script: a function or module is needed, got a table", kiln.script, {})
refused("script of nothing", "script: a function or module is needed, got nil", kiln.script)
refused("lint of a C function", "lint: a Lua function or module is needed, got a C function", kiln.lint, print)
refused("explain of a number", "explain: a function, module or Graph is needed, got a number", kiln.explain, 5)
refused("while_loop without a condition", "while_loop: the condition must be a function, got nil", kiln.while_loop)
refused("while_loop without a body", "while_loop: the body must be a function, got number", kiln.while_loop, print, 2)
refused("cond with one side", "cond: the second side must be a function, got nil", kiln.cond, true, print)
refused("cond with no function", "cond: the first side must be a function, got a boolean", kiln.cond, true, true, print)
refused("fork of nothing", "fork: a function to run is needed, got nil", kiln.fork)
refused("wait for a number", "wait: a future is needed, as kiln.fork gives it, got number", kiln.wait, 5)
refused("unused of nothing", "unused: a function or module is needed, got nil", kiln.unused)

test("what unused gives raises when it is reached, at the line that calls it", function()
  local dead = kiln.unused(function(t) return t end)
  local function f(t)
    if t:sum() > 2 then
      local y = dead(t)
      return y
    end
    return t
  end
  local g = kiln.script(f)
  truth(g(x):equal(x))
  local big = kiln.ones(3)
  local ok, why = pcall(f, big)
  local ok2, why2 = pcall(g, big)
  truth(not ok and not ok2)
  equal(why2, why)
  truth(why:find("^[^:]*capture_api%.lua:%d+: this function was marked kiln%.unused, and is called$"), why)
end)

test("a limit on captures says which function, why, and what to do", function()
  local g = kiln.script(function(t, s) return t, s end, { cache_limit = 2 })
  local here = debug.getinfo(1, "l").currentline - 1
  g(x, "a")
  g(x, "b")
  check.raises(function() g(x, "c") end, "capture_api.lua:",
    ("capture_api.lua:%d was captured 2 times already (cache_limit)"):format(here), "or raise cache_limit",
    [[argument 's' was "a", is "b"]], [[argument 's' was "b", is "c"]])
end)

test("a stored tensor keeps its sizes, or the place is named", function()
  local state = { h = kiln.zeros(2) }
  local function always(t)
    state.h = kiln.cat { state.h, t }
    return state.h
  end
  local function sometimes(t)
    if t:sum() > 0 then state.h = kiln.cat { state.h, t } end
    return state.h
  end
  check.raises(function() kiln.script(always)(kiln.ones(1)) end, "capture_api.lua:", "'state.h' is float32[2] and would become float32[3]",
    "return it, and store it outside")
  check.raises(function() kiln.script(sometimes)(kiln.ones(1)) end,
    ("capture_api.lua:%d: "):format(debug.getinfo(sometimes, "S").linedefined + 1), "'state.h' is float32[2] and would become float32[3]")
  equal(state.h.shape, { 2 })
end)

test("what the verifier refuses of a text has its line and column", function()
  check.raises(function() kiln.parse "graph f(%x: float32[2], %b: boolean) {\n  update %b, %x\n  return %x\n}" end,
    "capture_api.lua:", "parse: 2:3: ")
  check.raises(function() kiln.parse "graph f(%x: float32[2]) {\n  %c = const 1\n  %y: float32[2] = if %c {\n    yield %x\n  } else {\n    yield %x\n  }\n  return %y\n}" end,
    "parse: 3:3: if takes a boolean")
end)
