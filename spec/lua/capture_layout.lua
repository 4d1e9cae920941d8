-- Where elements lie decides what `view` does: captured as eager, errors and their lines included.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local T = kiln.tensor

local function plain() return T { { 1.0, 2, 3 }, { 4, 5, 6 } } end
local function turned() return T { { 1.0, 4 }, { 2, 5 }, { 3, 6 } }:t() end

for name, f in pairs {
  ["of an argument"] = function(x) return x:view(6) end,
  ["that splits a dimension"] = function(x) return x:view(2, 3, 1) end,
  ["of a view"] = function(x) return x:t():view(6) end,
  ["of a row"] = function(x) return x[1]:view(3, 1) end,
  ["of a copy of a view"] = function(x) return x:view(6, 1):t():reshape(2, 3):t():reshape(6):view(3, 2):reshape(6) end,
  ["of a view of a copy of a view"] = function(x) return x:t():reshape(6):view(3, 2):t():view(6) end,
  ["of what may be a copy of a view"] = function(x) return x:t():reshape(3, 2, 1):view(3, 1, 2):view(6) end,
  ["as a function"] = function(x) return kiln.view(x, -1) end,
  ["beside one of a copy"] = function(x) local y = x * 1 return y:view(6) + x:view(6) end,
  ["of a reshape that is a copy"] = function(x) return x:view(2, 3):t():reshape(6):view(3, 2) end,
  ["again and again"] = function(x)
    local y = x:reshape(6)
    for _ = 1, 3 do y = y:view(2, 3):t():reshape(6) end
    return y
  end,
  ["on one path"] = function(x) if x:sum() > 0 then return x:view(6) end return x * 2 end,
} do
  test("view " .. name, function()
    local g = kiln.script(f)
    for _, x in ipairs { plain(), turned(), -plain(), -turned(), (-plain()):t():clone():t(), turned(), plain() } do
      local ok, want = pcall(f, x)
      local fine, got = pcall(g, x)
      equal(fine, ok)
      equal(ok and got:totable() or got, ok and want:totable() or want)
    end
  end)
end

test("view of what may be a copy of a view, written to", function()
  local f = function(x)
    local a = x:t():reshape(6)
    local b = a:view(2, 3):t():reshape(6)
    local c = b:view(6)
    a:add_(1)
    c:mul_(2)
    return a + b
  end
  local g = kiln.script(f)
  for _, make in ipairs { plain, turned, plain } do
    local x, y = make(), make()
    local want, got = f(x), g(y)
    equal(got:totable(), want:totable())
    equal(y:totable(), x:totable())
  end
end)

test("view of an argument, saved", function()
  local f = function(x) return x:view(6) end
  local g, path = kiln.script(f), os.tmpname()
  g(plain())
  g:save(path)
  local h = kiln.load(path)
  os.remove(path)
  equal(h(plain()):totable(), f(plain()):totable())
  raises(function() h(turned()) end, "input x is not contiguous, and the graph was made for one that is")
end)

test("view of a described argument", function()
  local g = kiln.script(function(x) return x:view(-1) end, { inputs = { kiln.spec("float32", { "N", 3 }) } })
  equal(g(plain()):totable(), { 1.0, 2.0, 3.0, 4.0, 5.0, 6.0 })
  raises(function() g(turned()) end, "input x is not contiguous")
end)
