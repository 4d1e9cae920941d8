-- print, io.write, io.stdout:write, warn inside captured functions: what the program prints, run eagerly, captured,
-- captured of a stripped function, and from a file, is the same to the byte.
local check = require "check"
local test, equal, truth = check.test, check.equal, check.truth

local program, read, write = check.program(), check.read, check.write

-- The functions; each is called with every one of the arguments below. They stand in a program of their own.
local source = [==[
local functions = {}
local function case(f) functions[#functions + 1] = f end
local T = kiln.tensor

case(function(x, n) print("x is", x, n, 1.0, nil, true, "100%", "a\0b", -0.0, 1e15, 2^53, 1/0) return x end)
case(function(x, n) print() print(x:sum() > 0) print(x:gt(0)) print(x:sum():item()) end)
case(function(x, n) io.write("s = ", x:sum():item(), " ", 1.0, " ", n, 2^53, "\n") end)
case(function(x, n) io.stdout:write("n ", n, "\n"):write("again\n") io.write("a", "b"):write("c\n") end)
case(function(x, n)
  local s = x:sum():item()
  if s > 0 then print(string.format("+ %5.2f|%-8s|%08.3e|%+d|%x", s, n, s, n * 3, math.floor(n))) else print("- " .. s) end
  return s
end)
case(function(x, n)
  local k = 0
  while x:sum() < 10 do
    x = x + 1
    k = k + 1
    print("k = " .. k, x:sum():item())
    if k == 3 then print "three" end
  end
  return k
end)
case(function(x, n) for i = 1, 3 do for j = i, 3 do io.write(i, ",", j, ":", x[1]:item(), " ") end end print "" end)
case(function(x, n)
  local s = x:sum():item()
  local name = s > 0 and "pos" or "neg"
  print("it is " .. name .. " " .. tostring(s), #name, name:upper())
  local m = s > 0 and ("%.1f up"):format(s) or "down"
  print(m, type(m), m ~= nil)
end)
case(function(x, n)
  local s, t = x:sum():item()
  if s > 0 then t = "sum " .. s elseif s < -2 then t = "sum " .. n end
  print(t)
end)
case(function(x, n) warn("off ", n) warn "@on" warn("sum ", x:sum():item(), "") warn "@off" warn "no" warn "@on" end)
case(function(x, n) io.stderr:write("err ", n, "\n") end)
case(function(x, n)
  local p = setmetatable({ v = x:sum():item() }, { __tostring = function(p) return "<" .. p.v .. ">" end })
  print(p, tostring(p), ("%s!"):format(p))
end)
case(function(x, n)
  if x:sum() > 100 then error("too large: " .. x:sum():item()) end
  if x:sum() < -100 then error(("%g is too small"):format(x:sum():item()), 0) end
  assert(n < 7, "n is " .. n)
  assert(n < 3)
  return n
end)
case(function(x, n) print(string.format("%d", x[1]:item())) end)
case(function(x, n) print(table.concat({ "a", n, x:sum():item(), 1.5 }, ", ")) end)
case(function(x, n) print(#x, x.shape[1], x:dim(), x.dtype) end)
case(function(x, n) print(print == print, math.pi, ("x"):rep(3), nil) end)
case(function(x, n) io.write(x:sum():item() > 0 and "yes" or n, "\n") end)
case(function(x, n) local a, b = tostring(n), n .. "" print(a, b, #a, a == b, ("%5s"):format(a), ({ [a] = 1 })["3"]) end)

local arguments = {
  { T { 1.0, 2.0 }, 3 }, { T { -1.5, 0.25 }, 7 }, { T { 0.0, 0.0 }, 1 }, { T { 1e6, 1.0 }, 2 },
  { T { -1000.0, 1 }, 2 }, { T { 0 / 0, 1 / 0 }, 1 }, { T { 5, 6 }, 2.5 },
}
local mode = ...
for i, f in ipairs(functions) do
  if mode == "stripped" then
    local bare = load(string.dump(f, true))
    if debug.getupvalue(bare, 1) then debug.upvaluejoin(bare, 1, f, 1) end
    f = bare
  end
  local g = kiln.script(f, { cache_limit = 100 })
  for _, a in ipairs(arguments) do
    warn "@off"
    local ok, why = pcall(g, table.unpack(a))
    io.flush()
    print(i, ok, ok and "" or mode == "stripped" and tostring(why):gsub("^[^ ]*:[-?%d]*: ", "") or why)
  end
end
]==]

local path, out, err = os.tmpname(), os.tmpname(), os.tmpname()
local function run(env, mode)
  os.execute(("env -u LUA_INIT %s '%s' '%s' %s >'%s' 2>'%s'"):format(env, program, path, mode or "", out, err))
  return read(out), read(err)
end

test("prints as the eager program", function()
  write(path, source)
  local want, warned = run "KILN_CAPTURE=0"
  local got, also = run ""
  truth(#want > 2000 and want:find("k = 3", 1, true), want .. warned)
  truth(warned:find("Lua warning: sum 3.0\n", 1, true) and not warned:find("off", 1, true), warned)
  local at, line = 1, 0 -- the first line that differs says more than all
  for shown in want:gmatch "[^\n]*\n" do
    line = line + 1
    equal(got:sub(at, at + #shown - 1), shown)
    at = at + #shown
  end
  equal(got, want)
  equal(also, warned)
end)

test("stripped functions print the same", function()
  local want = run("KILN_CAPTURE=0", "stripped")
  equal(run("", "stripped"), want)
end)

test("a saved graph prints without its function, and from kiln-run", function()
  local model = os.tmpname()
  write(path, ([[
    kiln.script(function(a, n)
      local x = kiln.stack { kiln.tensor(1.5), kiln.tensor(2.0) } * a
      for i = 1, 2 do print(i, x, n) end
      local s = x:sum():item()
      warn "@on"
      warn("sum ", s)
      io.write("sum ", s, "\n")
      if s > 0 then io.stderr:write("positive ", ("%%.2f"):format(s), "\n") end
      return x
    end, { inputs = { "float", "integer" } }):save("%s")
    local g = kiln.load("%s")
    g(1.0, 4)
  ]]):format(model, model))
  local said, complained = run ""
  equal(said, "1\t{1.5000, 2.0000}\nfloat32[2]\t4\n2\t{1.5000, 2.0000}\nfloat32[2]\t4\nsum 3.5\n")
  equal(complained, "Lua warning: sum 3.5\npositive 3.50\n")
  local runner = program:gsub("kiln$", "kiln-run")
  local file = io.open(runner, "rb")
  if not file then return check.skip "kiln-run is not beside kiln" end
  file:close()
  os.execute(("'%s' '%s' --input a=1 --input n=4 >'%s' 2>'%s'"):format(runner, model, out, err))
  local again, complaints = read(out), read(err)
  os.remove(model)
  equal(complaints, complained)
  equal(again:sub(1, #said), said)
end)

test("the text form", function()
  local g = kiln.parse [[
    graph g(%x: float32[2], %n: integer, %b: boolean) {
      print %x, %n "%s has %5d%%\n"
      assert %b, %n "n is %d"
      write %n "%w\n"
      warn "@on"
      write_error "%z\n"
      return %n
    }]]
  local again = kiln.parse(tostring(g))
  equal(tostring(again), tostring(g))
  local bad = {
    { [[print %x "%d"]], "needs a number" }, { [[print %n "%d %d"]], "more directives" },
    { [[print %n "x"]], "fewer directives" }, { [[print %n "%q"]], "a directive that there is not" },
    { [[print %n "%123d"]], "malformed" }, { [[print "%"]], "malformed" }, { [[assert %n "x"]], "a boolean is needed" },
    { [[raise %n "%n"]], "a directive that there is not" }, { [[print %n "%*d"]], "a directive that there is not" },
  }
  for _, case in ipairs(bad) do
    local ok, why = pcall(kiln.parse, ("graph g(%%x: float32[2], %%n: integer) {\n  %s\n  return %%n\n}"):format(case[1]))
    truth(not ok and why:find(case[2], 1, true), case[1] .. ": " .. tostring(why))
  end
end)

for _, file in ipairs { path, out, err } do os.remove(file) end
