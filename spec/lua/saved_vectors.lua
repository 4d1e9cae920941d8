-- What is saved beside a graph: test vectors that are checked when asked for, notes, where it came from; nothing of the machine.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises
local T = kiln.tensor

local path = os.tmpname()
local function bytes() local f = assert(io.open(path, "rb")) local s = f:read "a" f:close() return s end
local function info(options)
  local p = assert(io.popen(("'%s/kiln-run' '%s' %s 2>&1"):format(os.getenv "KILN_BUILD" or "build", path, options or "--info")))
  local text = p:read "a"
  local _, _, code = p:close()
  return text, code
end

local function model()
  local net = kiln.nn.Linear(3, 2)
  local g = kiln.script(function(x, k)
    local y = net(x)
    if y:sum():item() > k then return y:relu(), { sum = y:sum():item() } end
    return y * 2, { sum = 0.5 }
  end)
  g(kiln.ones(2, 3), 0.5)
  return g, net
end

test("recorded as it is saved, checked as it is loaded", function()
  local g = model()
  g:save(path, { vectors = { { kiln.randn(2, 3), 0.5 }, { kiln.randn(2, 3), 100.0 } } })
  local h = kiln.load(path, { verify = true })
  local x = kiln.randn(4, 3)
  equal(h(x, 1.0):totable(), g(x, 1.0):totable())
  truth(info():find("test vectors 2\n", 1, true), info())
  local said, code = info "--verify"
  truth(code == 0 and said:find("2 test vectors of graph .- agree"), said)
  g:save(path)
  raises(function() kiln.load(path, { verify = true }) end, "holds no test vectors to verify")
  kiln.load(path, { verify = false })
end)

test("a story: state goes on from call to call, random numbers begin anew", function()
  local count = T(0.0)
  local g = kiln.script(function(x) count:add_(x:sum()) return count * 1 + kiln.dropout(x, 0.5, true):sum() end)
  g(kiln.ones(4))
  count:fill_(5)
  g:save(path, { vectors = { { kiln.ones(4) }, { kiln.ones(4) * 10 } } })
  equal(count:item(), 5.0)
  local h = kiln.load(path, { verify = true })
  equal(h(kiln.zeros(4)):item(), 5.0) -- the check has left nothing
end)

test("arguments that are overwritten, tables, functions of the host", function()
  local twice = kiln.ignore(function(x) return x * 2 end, { name = "twice", results = { kiln.spec("float32", { "N" }) } })
  local g = kiln.script(function(t) local y = twice(t.x * 1) t.x:add_(1) return { y, n = t.n + 1 } end)
  local x = kiln.ones(3)
  g { x = x, n = 1 }
  g:save(path, { vectors = { { { x = x, n = 3 } } } })
  equal(x:totable(), { 2.0, 2.0, 2.0 })
  kiln.load(path, { verify = true })
  local said, code = info "--verify"
  truth(code == 1 and said:find "host function 'twice' is not bound", said)
  truth(info():find("host twice(float32[?])", 1, true) or info():find("host twice(float32[", 1, true), info())
end)

test("several graphs", function()
  local f = kiln.script(function(x) return x + 1 end)
  local g = kiln.script(function(x) return x:relu() end)
  f(T { 1.0, 2 }) g(T { 1.0, 2 })
  kiln.save(path, { f = f, g = g }, { vectors = { g = { { T { -1.0, 2 } } } }, notes = { a = 1 } })
  local all, notes = kiln.load(path, { verify = true })
  equal(all.g(T { -3.0, 4 }):totable(), { 0.0, 4.0 })
  equal(notes, { a = "1" })
  raises(function() kiln.save(path, { f = f }, { vectors = { g = { { T { 1.0 } } } } }) end, "by the names of the Graphs")
  raises(function() kiln.save(path, { f = f }, { vectors = { { T { 1.0 } } } }) end, "by the names of the Graphs")
end)

test("a difference is told with the place and both values", function()
  local g = kiln.script(function(x) return x + 1 end)
  local x = T { 1.0, 2, 1234.5 }
  g(x)
  for _, tolerance in ipairs { 1e-7, 0.5 } do
    g:save(path, { vectors = { { x } }, tolerance = tolerance })
    local all = bytes()
    local at = all:find(string.pack("<f", 1235.5), 1, true)
    truth(at, "the result is in the file")
    -- as a machine would find it that computes something else
    local f = assert(io.open(path, "wb"))
    f:write(all:sub(1, at - 1), string.pack("<f", 1240.5), all:sub(at + 4))
    f:close()
    raises(function() kiln.load(path, { verify = true }) end, "is damaged")
  end
end)

test("notes", function()
  local g = model()
  g:save(path, { notes = { licence = "MIT", classes = 10, frozen = false, text = "a\nb \"c\" é" } })
  local _, notes = kiln.load(path)
  equal(notes, { licence = "MIT", classes = "10", frozen = "false", text = "a\nb \"c\" é" })
  truth(info():find("note licence: MIT\n", 1, true) and info():find("note text: a\\010b", 1, true), info())
  raises(function() g:save(path, { notes = { x = {} } }) end, "note x must be a string, number or boolean, got a table")
  raises(function() g:save(path, { notes = { "x" } }) end, "a table of notes by name is needed")
  raises(function() g:save(path, { notes = { x = "\xff" } }) end, "note x is not valid UTF-8")
  raises(function() g:save(path, { notes = { x = "a\0b" } }) end, "note x holds a zero byte")
  raises(function() g:save(path, { notes = { ["\1"] = "a" } }) end, "names of notes")
  raises(function() g:save(path, { note = {} }) end, "there is no option 'note'; there are notes, paths, tolerance, vectors")
  raises(function() g:save(path, 3) end, "a table of options is needed, got an integer")
  raises(function() g:save(path, { tolerance = -1 }) end, "tolerance must be a number that is not negative")
  local _, same = kiln.load(path)
  equal(same, notes)
end)

test("calls that do not fit", function()
  local g = model()
  local x = kiln.ones(2, 3)
  g:save(path)
  local before = bytes()
  for says, vectors in pairs {
    ["test vector 1 must be a table of arguments, got a tensor"] = { x },
    ["argument 2 (k): a number is needed, got nil"] = { { x } },
    ["test vector 2: .*inner sizes differ"] = { { x, 1.0 }, { kiln.ones(2, 4), 1.0 } },
    ["takes 2 arguments, got 3"] = { { x, 1.0, 2 } },
    ["vectors must be a list"] = {},
    ["vectors must be a table, got a string"] = "x",
  } do
    local ok, why = pcall(g.save, g, path, { vectors = vectors })
    truth(not ok and tostring(why):find(says:gsub("[()]", "%%%0")), why)
    equal(bytes(), before)
  end
end)

test("where it came from, without folders", function()
  local folder = os.tmpname()
  os.remove(folder)
  local script = folder .. "_model.lua"
  local f = assert(io.open(script, "w"))
  f:write "return function(x) error_if = nil\n return x:relu() end"
  f:close()
  local g = kiln.script(dofile(script))
  g(T { 1.0 })
  g:save(path)
  os.remove(script)
  local name = script:match "[^/]*$"
  local all = bytes()
  truth(not all:find(script, 1, true), all)
  truth(all:find("function at " .. name .. ":1", 1, true) and all:find("; " .. name .. ":2", 1, true), all)
  for _, key in ipairs { "HOME", "USER", "HOSTNAME", "PWD" } do
    local v = os.getenv(key)
    truth(not v or #v < 4 or not all:find(v, 1, true), key .. " is in the file")
  end
  kiln.load(path):save(path) -- keeps it
  truth(bytes():find("function at " .. name .. ":1", 1, true))
  g:save(path, { paths = true })
  truth(bytes():find("; " .. script .. ":2", 1, true))
end)

test("names of scripts that no file can hold", function()
  for _, name in ipairs { ("x"):rep(250) .. ".lua", "caf\xe9.lua", "a\nb.lua" } do
    local g = kiln.script(load("return function(x) return x:relu() end", "@" .. name)(), { inputs = { kiln.spec("float32", { 3 }) } })
    g:save(path)
    truth(not bytes():find("kiln.origin", 1, true))
    equal(kiln.load(path)(T { -1.0, 0, 2 }):totable(), { 0.0, 0.0, 2.0 })
  end
end)

os.remove(path)
