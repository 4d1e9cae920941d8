-- kiln spec/fuzz/matrix.lua [--all] [--print]: every statement form of Lua 5.4, under every way three statements nest, with a
-- condition on tensor data, on sizes and on plain values: captured it agrees with eager Lua, or is refused with the
-- message that stands in matrix_refused.txt. --print writes that list anew. Without
-- --all a third of the cells, in which every statement still meets every frame, condition and pair of frames.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. here .. "/../lua/?.lua;" .. package.path
local compare = require "compare"

-- A condition of each sort; they differ from input to input.
local conditions = {
  tensor = { "x:sum() > 0", "y:sum() <= 0.5", "(x * y):sum() < 1" },
  size = { "#x > 3", "x:size(1) ~= n", "q:size(1) == 2" },
  plain = { "flag", "n < 2", "not flag" },
}

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
  ["function"] = { "do", "local function I(...)", "if C then", "B", "end", "end", "I(1)", "end" },
}

-- The statement in the middle.
local statements = {
  ["assignment"] = "t = t * 2",
  ["several at once"] = "t, n = t + n, n + 1",
  ["to a field"] = "r.t = t + 1",
  ["to an index"] = "r[1] = t r[1] = r[1] + 1 t = r[1]",
  ["to a string key"] = "local k = 'n' r[k] = (r[k] or 0) + 1",
  ["local"] = "local a, b = t, 1 t = a + b",
  ["local with attribs"] = "local a <const> = t t = a * 0.5",
  ["local to be closed"] = "local a <close> = nil t = t + 1",
  ["local that closes"] = "local a <close> = setmetatable({}, { __close = function() end }) t = t + 1",
  ["local function"] = "local function g(a) return a + n end t = g(t)",
  ["function statement"] = "function r.g(a) return a * 2 end t = r.g(t)",
  ["method statement"] = "function r:h(a) self.n = 1 return a end t = r:h(t)",
  ["call"] = "up(t)",
  ["method call"] = "t = t:relu()",
  ["return"] = "do return t, n end",
  ["return of a call"] = "do return plus(t, n) end",
  ["goto out"] = "goto done",
  ["goto back"] = "do local i = 0 ::top:: i = i + 1 t = t + 1 if i < 2 then goto top end end",
  ["numeric for"] = "for i = 3, 1, -1 do t = t + i end",
  ["numeric for, floats"] = "for i = 0.5, 1.5, 0.5 do t = t * i end",
  ["numeric for, free bound"] = "for i = 1, math.min(n, 3) do t = t + i end",
  ["numeric for, a size"] = "for i = 1, #x do t = t + x[i] end",
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
  ["upvalue"] = "local function g() n = n + 1 end g() t = t * n",
  ["outside upvalue"] = "count = count + 1",
  ["in place"] = "t:add_(1)",
  ["index assignment"] = "t[1] = 0.5",
  ["draw"] = "t = t + kiln.rand(4)",
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

local function fill(frame, condition, name, block)
  local out = {}
  for i, line in ipairs(frame) do
    if line == "B" then
      table.move(block, 1, #block, #out + 1, out)
    else
      out[#out + 1] = line:gsub("%f[%w]C%f[%W]", condition):gsub("%f[%w]I%f[%W]", name)
    end
  end
  return out
end

--- The chunk of a cell, in the form that compare.lua takes.
local function chunk(statement, path, sort)
  local block = { statements[statement] }
  for depth = #path, 1, -1 do
    block = fill(frames[path[depth]], conditions[sort][depth], "i" .. depth, block)
  end
  local inner = false -- a label is not seen from a function inside
  for _, name in ipairs(path) do inner = inner or name == "function" end
  if inner and statement == "goto out" then return nil end
  return ([[
local count = 1
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
return f, function(i) end, function() return count, 0, 0, 0, 0, 0, 0, 0 end, function(a) count = a end
]]):format(table.concat(block, "\n"))
end

local cells, agree, differ = 0, 0, {}
local refused = {}
local names = sorted(frames)

local function cell(statement, path, sort)
  local text = chunk(statement, path, sort)
  if not text then return end
  cells = cells + 1
  local where = ("%s in %s, %s"):format(statement, table.concat(path, ", "), sort)
  local what, why = compare.compare(text, "m", 3, cells)
  if what == "differs" then
    differ[#differ + 1] = where .. ": " .. why
  elseif what == "refused" then
    why = why:gsub("^stripped, ", ""):gsub("^run %d+: ", ""):gsub("^m:%d+: ", ""):gsub("^%?:%?: ", ""):gsub(" %(inlined at .*", ""):gsub("%d+", "N")
    local key = statement .. ": " .. why
    refused[key] = (refused[key] or 0) + 1
  else
    agree = agree + 1
  end
end

kiln.use_deterministic_algorithms(true)
local all = arg[1] == "--all" or arg[2] == "--all"
for _, statement in ipairs(sorted(statements)) do
  for i, outer in ipairs(names) do
    for k, middle in ipairs(names) do
      local inner = names[(i + k + #statement) % #names + 1]
      for s, sort in ipairs { "tensor", "size", "plain" } do
        if all or (i + k + s) % 3 == 0 then cell(statement, { outer, middle, inner }, sort) end
      end
    end
  end
end

local lines = {}
for _, key in ipairs(sorted(refused)) do lines[#lines + 1] = key end
local text = table.concat(lines, "\n") .. "\n"
local path = here .. "/matrix_refused.txt"
if arg[1] == "--print" or arg[2] == "--print" then
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end
local file = io.open(path)
local known = {}
for line in (file and file:read "a" or ""):gmatch "[^\n]+" do known[line] = true end
local new = 0
for _, line in ipairs(lines) do
  if not known[line] then
    new = new + 1
    print("FAILED, refused and not in matrix_refused.txt: " .. line)
  end
end
for i = 1, math.min(#differ, 20) do print("FAILED " .. differ[i]) end
local share = 0
for _, n in pairs(refused) do share = share + n end
print(("%d cells: %d agree, %d refused in %d ways, %d differ"):format(cells, agree, share, #lines, #differ))
print(("%d passed, %d failed"):format(agree, #differ + new))
os.exit(#differ + new == 0, true)
