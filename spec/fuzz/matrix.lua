-- kiln spec/fuzz/matrix.lua [--whole] [--print]: every statement form of Lua 5.4, under every way three statements nest, with
-- conditions on tensor data, on sizes, on plain values, and one of each: captured it agrees with eager Lua, or is refused
-- with the message that stands in matrix_refused.txt. Without --whole a slice, in which every statement still meets every
-- frame and sort of conditions. `./dev matrix` runs the whole; --print writes what is refused anew.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. here .. "/../lua/?.lua;" .. package.path
local compare = require "compare"

-- What is decided by data, by sizes, by what is plain (guarded or free), at each of the three depths; they differ from
-- input to input. `mode` is outside.
local conditions = {
  tensor = { "x:sum() > 0", "y:sum() <= 0.5", "(x * y):sum() < 1" },
  size = { "#x > 3", "x:size(1) ~= n", "#y % 2 == 0" },
  plain = { "mode == 'a'", "rec.n >= 0", "flag == (mode ~= 'b')" },
}
local sorts = {
  { "tensor", "tensor", "tensor" }, { "size", "size", "size" }, { "plain", "plain", "plain" },
  { "tensor", "size", "plain" }, { "size", "plain", "tensor" }, { "plain", "tensor", "size" },
}
-- Of x and y, from run to run.
local sizes = { 4, 3, 4, 5 }

-- What nests: `B` is the block inside, `C` a condition, `I` a fresh name.
local frames = {
  ["if"] = { "if C then", "B", "end" },
  ["else"] = { "if C then", "t = t + 1", "else", "B", "end" },
  ["elseif"] = { "if C then", "t = t - 1", "elseif not (C) then", "B", "end" },
  ["while"] = { "do", "local I = 0", "while I < 2 and (C) do", "I = I + 1", "B", "end", "end" },
  ["repeat"] = { "do", "local I = 0", "repeat", "I = I + 1", "B", "until I > 1 or C", "end" },
  ["for"] = { "for I = 1, 2 do", "B", "if C then break end", "end" },
  ["for in"] = { "for _, I in ipairs { x, y } do", "if C then t = t + I end", "B", "end" },
  ["do"] = { "do", "local I = C", "B", "end" },
  ["goto"] = { "do", "local I = 0", "::top_I::", "I = I + 1", "B", "if I < 2 and (C) then goto top_I end", "end" },
  ["function"] = { "do", "local function I(...)", "if C then", "B", "end", "end", "I(1)", "end" },
}

-- The statement in the middle. BREAK: only where a loop is around it.
local statements = {
  ["assignment"] = "t = t * 2",
  ["several at once"] = "t, n = t + n, n + 1",
  ["several from a call"] = "t, n = plus(t, n)",
  ["several, in order"] = "local i = 1 i, r[i] = i + 1, n n = r[1] + i",
  ["swap"] = "local a, b = t, x a, b = b, a t = a - b * 0.5",
  ["to a global"] = "total = (total or 0) + n t = t * total",
  ["to a field"] = "r.t = t + 1",
  ["to an index"] = "r[1] = t r[1] = r[1] + 1 t = r[1]",
  ["to a string key"] = "local k = 'n' r[k] = (r[k] or 0) + 1",
  ["local"] = "local a, b = t, 1 t = a + b",
  ["local from varargs"] = "local a, b = ... if b == nil then n = n + 1 end",
  ["local that hides another"] = "local t = t + 1 t = t * 2 r.t = t",
  ["local with attribs"] = "local a <const> = t t = a * 0.5",
  ["local to be closed"] = "local a <close> = nil t = t + 1",
  ["local that closes"] = "local a <close> = setmetatable({}, { __close = function() end }) t = t + 1",
  ["local function"] = "local function g(a) return a + n end t = g(t)",
  ["local function, recursive"] = "local function g(k) if k < 1 then return t end return g(k - 1) + k end t = g(2)",
  ["function statement"] = "function r.g(a) return a * 2 end t = r.g(t)",
  ["method statement"] = "function r:h(a) self.n = 1 return a end t = r:h(t)",
  ["call"] = "up(t)",
  ["method call"] = "t = t:relu()",
  ["return"] = "do return t, n end",
  ["return of nothing"] = "do return end",
  ["return of varargs"] = "do return t, ... end",
  ["return of a call"] = "do return plus(t, n) end",
  ["return of a call, cut"] = "do return (plus(t, n)) end",
  ["break"] = "BREAK",
  ["break of a loop inside"] = "while true do t = t + 1 if n > 2 then break end n = n + 2 end",
  ["goto out"] = "goto done",
  ["goto continue"] = "for i = 1, 3 do if (t + i):sum() > 1 then goto cont end t = t + i ::cont:: end",
  ["label alone"] = "::here::",
  ["goto back"] = "do local i = 0 ::top:: i = i + 1 t = t + 1 if i < 2 then goto top end end",
  ["if"] = "if t:sum() > 1 then t = t - 1 end",
  ["if, elseif, else"] = "if n > 2 then t = t - 1 elseif t:sum() > 0 then t = t * 2 else n = n + 1 end",
  ["do"] = "do local t = t * 2 r.t = t end",
  ["numeric for"] = "for i = 3, 1, -1 do t = t + i end",
  ["numeric for, floats"] = "for i = 0.5, 1.5, 0.5 do t = t * i end",
  ["numeric for, floats down"] = "for i = 1.5, n, -0.5 do t = t - i end",
  ["numeric for, data"] = "for i = 1, x:gt(0):sum():item() do t = t + i end",
  ["numeric for, free bound"] = "for i = 1, math.min(n, 3) do t = t + i end",
  ["numeric for, a size"] = "for i = 1, #x do t = t + x[i] end",
  ["generic for, ipairs"] = "for i, v in ipairs { t, x } do t = t + v * i end",
  ["generic for, next"] = "for k, v in next, { a = n } do n = v + 1 end",
  ["generic for, four values"] = "for i in function(s, c) if c < s then return c + 1 end end, 2, 0, nil do t = t + i end",
  ["generic for, pairs"] = "for k, v in pairs { a = t } do t = v + 1 end",
  ["generic for, closure"] = "local i = 0 for v in function() i = i + 1 if i < 3 then return i end end do t = t + v end",
  ["while"] = "while t:sum() < 2 and n < 9 do t = t + 1 n = n + 1 end",
  ["repeat"] = "repeat local a = t:sum() t = t + 1 n = n + 1 until a > 1 or n > 9",
  ["concatenation"] = "local s = 'a' .. 'b' t = t + #s",
  ["and, or"] = "t = t:sum() > 0 and t or -t",
  ["not"] = "local b = not (t:sum() > 0) if b then t = t + 1 end",
  ["integer arithmetic"] = "n = (n * 3 // 2) % 5 - (7 >> 1) | 1",
  ["comparison"] = "local b = n <= 2 and t:sum() ~= t:sum() t = b and t or t + 1",
  ["length"] = "t = t + #{ t, t } + #x",
  ["varargs"] = "local function g(...) return select('#', ...), ... end local k, a = g(t, nil) t = a * k",
  ["table constructor"] = "local l = { t, k = t, [3] = n, plus(t, 1) } t = l[1] + l.k",
  ["metatable"] = "local o = setmetatable({}, { __index = function(_, k) return k end }) t = t * #o.abc",
  ["closures, nested"] = "local function g() return function() n = n + 1 return t * n end end t = g()()",
  ["closures of a loop"] = "local fs = {} for i = 1, 2 do fs[i] = function(a) return a + i end end t = fs[1](fs[2](t))",
  ["call with a table"] = "t = plus(select(1, (function(o) return o.t, o.n end) { t = t, n = n }))",
  ["unary"] = "n = -n ~ ~3 t = -t",
  ["string key that data chooses"] = "local k = t:sum() > 0 and 'a' or 'b' local l = { a = 1, b = 2 } l[k] = l[k] + 1 n = l.a * l.b",
  ["upvalue"] = "local function g() n = n + 1 end g() t = t * n",
  ["outside upvalue"] = "count = count + 1",
  ["in place"] = "t:add_(1)",
  ["index assignment"] = "t[1] = 0.5",
  ["draw"] = "t = t + kiln.rand(#x)",
  ["error"] = "if x:sum() > 2 then error 'large' end",
  ["assert"] = "assert(x:sum() < 3, 'large')",
  ["pcall"] = "local ok, v = pcall(function() return t + 1 end) if ok then t = v end",
  ["print"] = "io.write('')",
  ["coroutine"] = "t = coroutine.wrap(function() coroutine.yield(t) end)()",
  ["empty"] = ";",
}

local function sorted(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- Is there a loop around the statement, in the same function? A label is not seen from a function inside, either.
local function around(path)
  local loop, inner = false, false
  for _, name in ipairs(path) do
    if name == "function" then loop, inner = false, true end
    loop = loop or name == "while" or name == "repeat" or name:find "^for" ~= nil
  end
  return loop, inner
end

local function fill(frame, condition, name, block)
  local out = {}
  for i, line in ipairs(frame) do
    if line == "B" then
      table.move(block, 1, #block, #out + 1, out)
    else
      out[#out + 1] = line:gsub("%f[%w]C%f[%W]", function() return condition end):gsub("%f[%w]I%f[%W]", name)
    end
  end
  return out
end

--- The chunk of a cell, in the form that compare.lua takes.
local function chunk(statement, path, sort)
  local loop, inner = around(path)
  if inner and statement == "goto out" or not loop and statement == "break" then return nil end
  local block = { statement == "break" and "do break end" or statements[statement] }
  for depth = #path, 1, -1 do
    block = fill(frames[path[depth]], conditions[sort[depth]][depth], "i" .. depth, block)
  end
  return ([[
local count, mode = 1, "a"
local function plus(a, b) return a + b, b end
local function up(a) count = count + 1 return a end
local function f(x, y, q, n, flag, rec, ...)
local t, r = x + y, { n = 2 }
do
%s
end
::done::
do return t, n, r.t, r.n end
end
return f, function(i) mode = i %% 2 == 1 and "a" or "b" end, function() return count, 0, 0, 0, 0, 0, 0, 0 end,
  function(a) count = a end
]]):format(table.concat(block, "\n"))
end

local cells, agree, raised, differ = 0, 0, 0, {}
local refused = {} -- by statement: by message: how many cells
local names = sorted(frames)

-- The sentence without what differs from cell to cell.
local function plain(why)
  for _, pattern in ipairs { "^stripped, ", "^run %d+: ", "^m:%d+: ", "^%?:%?: ", " %(inlined at .*" } do
    why = why:gsub(pattern, "")
  end
  return (why:gsub("%d+", "N"))
end

local function cell(statement, path, sort, runs)
  local text = chunk(statement, path, sort)
  if not text then return end
  cells = cells + 1
  local what, why, errors = compare.compare(text, "m", runs, cells, sizes)
  if errors > 0 then raised = raised + 1 end
  if what == "differs" then
    differ[#differ + 1] = ("%s in %s, conditions on %s: %s"):format(statement, table.concat(path, ", "),
      table.concat(sort, ", "), why)
  elseif what == "refused" then
    local of, message = refused[statement] or {}, plain(why)
    refused[statement], of[message] = of, (of[message] or 0) + 1
  else
    agree = agree + 1
  end
end

-- Of a slice, every other pair of outer frames has one inner frame and one sort of conditions.
local function cells_of(statement, whole)
  for i, outer in ipairs(names) do
    for k, middle in ipairs(names) do
      for m, inner in ipairs(names) do
        for s, sort in ipairs(sorts) do
          local picked = (i + k + #statement) % #names + 1 == m and (i * 3 + k + #statement) % (2 * #sorts) + 1 == s
          if whole or picked then cell(statement, { outer, middle, inner }, sort, whole and 4 or 3) end
        end
      end
    end
  end
end

-- ---- what is refused, beside the list ----

local function read_list(path)
  local known = {}
  for line in io.lines(path) do known[line] = true end
  return known
end

kiln.use_deterministic_algorithms(true)
local options = kiln.options { whole = false, print = false }
local whole, new, share = options.whole, 0, 0
for _, statement in ipairs(sorted(statements)) do cells_of(statement, whole) end

local path, lines = here .. "/matrix_refused.txt", {}
for _, statement in ipairs(sorted(refused)) do
  for _, message in ipairs(sorted(refused[statement])) do
    lines[#lines + 1] = statement .. ": " .. message
    share = share + refused[statement][message]
  end
end
if options.print then
  local file = assert(io.open(path, "w"))
  file:write(table.concat(lines, "\n"), "\n")
  file:close()
end

local known = read_list(path)
for _, line in ipairs(lines) do
  if not known[line] then
    new = new + 1
    print("FAILED, refused and not in matrix_refused.txt: " .. line)
  end
  known[line] = nil
end
for line in pairs(known) do -- the list stays true: what is no longer refused leaves it
  new = new + 1
  print("FAILED, in matrix_refused.txt and not refused: " .. line)
end
for i = 1, math.min(#differ, 20) do print("FAILED " .. differ[i]) end
print(("%d cells of %d statements: %d agree, %d of them raising, %d refused in %d ways, %d differ"):format(cells,
  #sorted(statements), agree, raised, share, #lines, #differ))
print(("%d passed, %d failed"):format(agree, #differ + new))
os.exit(#differ + new == 0, true)
