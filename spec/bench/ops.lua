-- What one op on small tensors costs from Lua, in nanoseconds, and beside a Lua function call.
local function time(repeats, f)
  local best = math.huge
  for _ = 1, 5 do
    local from = kiln.clock()
    for _ = 1, repeats do f() end
    best = math.min(best, (kiln.clock() - from) / repeats)
  end
  return best * 1e9
end

local a, b = kiln.tensor { 1.0, 2.0 }, kiln.tensor { 3.0, 4.0 }
local image, kernel = kiln.randn(1, 1, 8, 8), kiln.randn(12, 1, 3, 3)
local row, weight = kiln.randn(1, 512), kiln.randn(10, 512)
local function nothing() end
local cases = {
  { "a Lua call", nothing },
  { "a + b", function() return a + b end },
  { "a + 1", function() return a + 1 end },
  { "a:relu()", function() return a:relu() end },
  { "a:sum()", function() return a:sum() end },
  { "a[1]", function() return a[1] end },
  { "a:size(1)", function() return a:size(1) end },
  { "softmax of 512", function() return row:softmax(2) end },
  { "linear 512 -> 10", function() return kiln.linear(row, weight) end },
  { "conv2d 8 x 8", function() return kiln.conv2d(image, kernel, nil, 1, 1) end },
}
local call
for _, case in ipairs(cases) do
  local ns = time(20000, case[2])
  call = call or ns
  print(("%-20s %8.0f ns   %6.1f calls"):format(case[1], ns, ns / call))
end
