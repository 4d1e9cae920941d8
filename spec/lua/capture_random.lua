-- Makes random Lua functions from a seed: branches, early returns, every loop kind, closures, records with aliases and
-- optional fields, varargs, errors, random draws. A helper of capture_fuzz.lua; no tests of its own.
local M = {}

local function stream(seed)
  local state = seed * 2654435761 + 12345
  return function(n)
    state = (state * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
    return (state >> 33) % n + 1
  end
end

local function generator(seed)
  local pick = stream(seed)
  local out, indent, depth, fresh, loops = {}, 1, 0, 0, 0
  local g = { features = {} }
  local texpr, nexpr, cond, block

  local function use(feature) g.features[feature] = true end
  local function emit(format, ...) out[#out + 1] = ("  "):rep(indent) .. format:format(...) end
  local function one(list) return list[pick(#list)] end
  local function name(prefix) fresh = fresh + 1 return prefix .. fresh end
  local function tvar() return one { "t1", "t2", "t3" } end
  local function nvar() return one { "n1", "n2", "n3" } end
  local function rvar() return one { "r1", "r2" } end
  local function const() return one { "0", "1", "2", "-1", "0.5", "-0.5", "3" } end

  function texpr(d)
    local k = pick(d > 2 and 4 or 16)
    if k <= 3 then return tvar() end
    if k == 4 then return rvar() .. ".t" end
    if k <= 6 then return ("(%s %s %s)"):format(texpr(d + 1), one { "+", "-", "*" }, texpr(d + 1)) end
    if k <= 8 then return ("(%s %s %s)"):format(texpr(d + 1), one { "+", "-", "*" }, const()) end
    if k == 9 then return ("(%s * %s)"):format(texpr(d + 1), nvar()) end
    if k == 10 then return ("%s:relu()"):format(texpr(d + 1)) end
    if k == 11 then return ("%s:tanh()"):format(texpr(d + 1)) end
    if k == 12 then return ("(-%s)"):format(texpr(d + 1)) end
    if k == 13 then return ("(%s and %s or %s)"):format(cond(d + 1), texpr(d + 1), texpr(d + 1)) end
    if k == 14 then use "calls" return ("f1(%s)"):format(texpr(d + 1)) end
    if k == 15 then use "varargs" return ("(f2(%s, %s))"):format(texpr(d + 1), texpr(d + 1)) end
    return ("(%s * 0.5)"):format(texpr(d + 1))
  end

  function nexpr(d)
    local k = pick(d > 2 and 3 or 12)
    if k <= 2 then return nvar() end
    if k == 3 then return const() end
    if k <= 5 then return ("(%s %s %s)"):format(nexpr(d + 1), one { "+", "-", "*" }, nexpr(d + 1)) end
    if k == 6 then return ("(%s // %s)"):format(nexpr(d + 1), one { "2", "3", "0.5" }) end
    if k == 7 then return ("(%s %% 3)"):format(nexpr(d + 1)) end
    if k == 8 then return ("%s:sum():item()"):format(texpr(d + 1)) end
    if k == 9 then return rvar() .. ".n" end
    if k == 10 then return ("math.%s(%s, %s)"):format(one { "max", "min" }, nexpr(d + 1), nexpr(d + 1)) end
    if k == 11 then return ("(%s and %s or %s)"):format(cond(d + 1), nexpr(d + 1), nexpr(d + 1)) end
    return ("math.%s(%s)"):format(one { "floor", "abs", "ceil" }, nexpr(d + 1))
  end

  function cond(d)
    local k = pick(d > 2 and 6 or 13)
    if k <= 3 then return ("%s:sum() %s %s"):format(texpr(d + 1), one { ">", "<", ">=", "<=" }, const()) end
    if k == 4 then return ("%s %s %s"):format(nexpr(d + 1), one { ">", "<", ">=", "<=", "==", "~=" }, nexpr(d + 1)) end
    if k == 5 then return one { "b1", "b2" } end
    if k == 6 then return ("not %s"):format(one { "b1", "b2" }) end
    if k <= 8 then return ("(%s and %s)"):format(cond(d + 1), cond(d + 1)) end
    if k <= 10 then return ("(%s or %s)"):format(cond(d + 1), cond(d + 1)) end
    if k == 11 then return ("not (%s)"):format(cond(d + 1)) end
    if k == 12 then return rvar() .. ".o " .. one { "==", "~=" } .. " nil" end
    return ("%s:sum() < %s:sum()"):format(texpr(d + 1), texpr(d + 1))
  end

  local function result() return ("%s, %s, %s, %s.t"):format(texpr(1), nexpr(1), one { "b1", "b2", "b1 and b2" }, rvar()) end

  local function body(n)
    indent, depth = indent + 1, depth + 1
    block(n)
    indent, depth = indent - 1, depth - 1
  end

  local statements = {
    function() emit("%s = %s", tvar(), texpr(0)) end,
    function() emit("%s = %s", nvar(), nexpr(0)) end,
    function() emit("%s = %s", one { "b1", "b2" }, cond(0)) end,
    function() use "records" emit("%s.t = %s", rvar(), texpr(0)) end,
    function() use "records" emit("%s.n = %s", rvar(), nexpr(0)) end,
    function() use "optional" emit("%s.o = %s", rvar(), one { "nil", texpr(0) }) end,
    function() use "optional" local r = rvar() emit("if %s.o then %s = %s + %s.o end", r, tvar(), tvar(), r) end,
    function() use "new tables" emit("%s = { t = %s, n = %s }", rvar(), texpr(0), nexpr(0)) end,
    function() use "aliases" emit("%s", one { "r1 = r2", "r2 = r1" }) end,
    function() use "closures" emit("f1 = function(a) %s = %s + 1 return a * %s end", nvar(), nvar(), const()) end,
    function() use "draws" emit("%s = %s + kiln.rand(4)", tvar(), tvar()) end,
    function() use "errors" emit("if %s then error 'raised' end", cond(0)) end,
    function() emit("%s, %s = %s, %s", "t1", "t2", texpr(1), texpr(1)) end,
  }
  local compound = {
    function()
      use "if"
      emit("if %s then", cond(0))
      body(2)
      if pick(3) == 1 then emit("elseif %s then", cond(0)) body(2) end
      if pick(2) == 1 then emit "else" body(2) end
      emit "end"
    end,
    function()
      use "early return"
      emit("if %s then return %s end", cond(0), result())
    end,
    function()
      use "while"
      local k = name "k"
      emit("local %s = 0", k)
      emit("while %s < %d and %s do", k, pick(5), cond(0))
      emit("  %s = %s + 1", k, k)
      loops = loops + 1
      body(2)
      if pick(2) == 1 then use "break" emit("  if %s then break end", cond(0)) end
      loops = loops - 1
      emit "end"
    end,
    function()
      use "repeat"
      local k = name "k"
      emit("local %s = 0", k)
      emit "repeat"
      emit("  %s = %s + 1", k, k)
      body(2)
      emit("until %s > %d or %s", k, pick(4), cond(0))
    end,
    function()
      use "for"
      emit("for i = %s do", one { "1, 3", "3, 1, -1", "1, 2", "0.5, 2", "1, math.min(n1, 4)", "m, 1, -2" })
      body(2)
      if pick(3) == 1 then use "break" emit("  if %s then break end", cond(0)) end
      emit("  %s = %s + i", nvar(), nvar())
      emit "end"
    end,
    function()
      use "ipairs"
      emit("for i, v in ipairs { %s, %s } do", texpr(1), texpr(1))
      body(1)
      emit("  %s = %s + v * i", tvar(), tvar())
      if pick(3) == 1 then use "break" emit("  if %s then break end", cond(0)) end
      emit "end"
    end,
    function()
      use "strings"
      local s = name "s"
      emit("local %s = 'a'", s)
      emit("if %s then %s = 'b' end", cond(0), s)
      emit("if %s == '%s' then", s, one { "a", "b" })
      body(1)
      emit "end"
    end,
    function()
      use "local closure"
      local f, c = name "h", name "c"
      emit("local %s = %s", c, const())
      emit("local function %s(a, ...) %s = %s + 1 if %s then return a, %s end return a + %s, %s end", f, c, c,
        cond(1), nexpr(1), c, nexpr(1))
      emit("t1, n1 = %s(%s, 1)", f, texpr(1))
      emit("n2 = n2 + %s", c)
    end,
    function()
      use "goto"
      local label = name "go"
      emit("for j = 1, %d do", pick(3))
      emit("  if %s then goto %s end", cond(0), label)
      body(1)
      emit("  ::%s::", label)
      emit "end"
    end,
  }

  function block(n)
    for _ = 1, n do
      if depth < 3 and pick(10) <= 4 then one(compound)() else one(statements)() end
    end
  end

  emit "local t1, t2, t3 = x, y, x * y"
  emit "local n1, n2, n3 = 0, 1.5, m"
  emit "local b1, b2 = true, false"
  emit "local r1, r2 = { t = x, n = 1 }, { t = y, n = 0.5, o = x }"
  emit "local f1 = function(a) n1 = n1 + 1 return a + n2 end"
  emit "local f2 = function(...) local a, b = ... return a - b, select('#', ...) end"
  block(4 + pick(5))
  emit("return %s", result())
  g.text = "return function(x, y, m)\n" .. table.concat(out, "\n") .. "\nend\n"
  return g
end

--- The text of function number `seed` and the set of its features.
function M.make(seed)
  local g = generator(seed)
  return g.text, g.features
end

return M
