-- The harness of the Lua specs: named tests, checks that say what they saw, a count at the end. A spec file is
--   local check = require "check"
--   check.test("adds", function() check.equal(1 + 1, 2) end)
-- and run.lua runs it. A check that fails ends its test, not the run.
local check = { passed = 0, failed = 0, skipped = 0, file = "?", last = {} }

local function show(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" or getmetatable(value) then return tostring(value) end
  local parts = {}
  for i, v in ipairs(value) do parts[i] = show(v) end
  for k, v in pairs(value) do
    if not (math.type(k) == "integer" and parts[k]) then parts[#parts + 1] = tostring(k) .. " = " .. show(v) end
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function fail(level, format, ...) error(format:format(...), level + 1) end

--- A named test. Skipped when it raises check.skip(reason).
function check.test(name, body)
  local ok, why = xpcall(body, function(e)
    if type(e) == "table" and e.skip then return e end
    return debug.traceback(tostring(e), 2)
  end)
  if ok then
    check.passed = check.passed + 1
  elseif type(why) == "table" then
    check.skipped = check.skipped + 1
    print(("skipped %s: %s: %s"):format(check.file, name, why.skip))
  else
    check.failed = check.failed + 1
    print(("FAILED %s: %s\n  %s"):format(check.file, name, (why:gsub("\n", "\n  "))))
  end
end

--- Called when all files have been run, with whether they were all that there are.
function check.at_end(body) check.last[#check.last + 1] = body end

function check.skip(reason) error({ skip = reason }) end

local function same(a, b)
  if type(a) ~= type(b) then return false end
  if math.type(a) ~= math.type(b) then return false end
  if type(a) ~= "table" or getmetatable(a) then return a == b or (a ~= a and b ~= b) end
  for k, v in pairs(a) do
    if not same(v, b[k]) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

local function same_number(a, b)
  if math.type(a) ~= math.type(b) then return false end
  if a ~= a then return b ~= b end
  return a == b and (a ~= 0 or 1 / a == 1 / b or math.type(a) == "integer")
end

local function same_elements(a, b)
  if type(a) ~= "table" then return type(a) == type(b) and (type(a) == "number" and same_number(a, b) or a == b) end
  if type(b) ~= "table" or #a ~= #b then return false end
  for i = 1, #a do
    if not same_elements(a[i], b[i]) then return false end
  end
  return true
end

--- Is it the same to the bit (0 is not -0; nan is nan, of whichever sign, which is the machine's business), with the same
--- kinds, dtypes and shapes? `map` remembers which object stands for which, so that what is one object on one side must be
--- one on the other: tables always, tensors where map.tensors says so.
function check.identical(a, b, map)
  local kind = type(a)
  if kind ~= type(b) then return false end
  if kind == "number" then return same_number(a, b) end
  if kind == "string" then return a == b or a:gsub("%-nan", "nan") == b:gsub("%-nan", "nan") end
  local tensor = kiln.is_tensor(a)
  if kind ~= "table" and not tensor then return a == b end
  map = map or {}
  if kind == "table" or map.tensors then
    if map[a] or map[b] then return map[a] == b and map[b] == a end
    map[a], map[b] = b, a
  end
  if tensor then
    return kiln.is_tensor(b) and a.dtype == b.dtype and same_elements(a.shape, b.shape)
      and same_elements(a:totable(), b:totable())
  end
  for k, v in pairs(a) do
    if not check.identical(v, b[k], map) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

--- Same value and, for numbers, same kind; tables by content.
function check.equal(got, wanted)
  if not same(got, wanted) then fail(2, "got %s, wanted %s", show(got), show(wanted)) end
end

function check.truth(value, what)
  if not value then fail(2, "%s does not hold", what or "the condition") end
end

--- Numbers, or nested tables of them, within `tolerance` (1e-6).
function check.near(got, wanted, tolerance)
  local function close(a, b)
    if type(b) == "table" then
      if type(a) ~= "table" or #a ~= #b then return false end
      for i = 1, #b do
        if not close(a[i], b[i]) then return false end
      end
      return true
    end
    return type(a) == "number" and (a == b or a ~= a and b ~= b or math.abs(a - b) <= (tolerance or 1e-6))
  end
  if not close(got, wanted) then fail(2, "got %s, wanted %s within %g", show(got), show(wanted), tolerance or 1e-6) end
end

--- The tensor's elements, kind of number included, and its dtype where given.
function check.tensor(t, wanted, dtype)
  if not kiln.is_tensor(t) then fail(2, "got %s, wanted a tensor", show(t)) end
  if dtype and t.dtype ~= dtype then fail(2, "got %s, wanted %s", t.dtype, dtype) end
  if not same(t:totable(), wanted) then fail(2, "got %s, wanted %s", show(t:totable()), show(wanted)) end
end

--- f must raise an error whose text holds every one of the (plain) parts.
function check.raises(f, ...)
  local ok, why = pcall(f)
  if ok then fail(2, "no error was raised") end
  for _, part in ipairs { ... } do
    if not tostring(why):find(part, 1, true) then fail(2, "the error is %s, without %s", show(tostring(why)), show(part)) end
  end
end

--- The kiln that runs this, as it was called.
function check.program()
  local i = 0
  while arg[i] do i = i - 1 end
  return arg[i + 1]
end

--- What such a program said, without what ASan says of stacks that take turns, on which kernels run on the software device.
function check.said(text) return (text:gsub("==%d+==WARNING: ASan doesn't fully support [^\n]*\n", "")) end

function check.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

function check.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

return check
