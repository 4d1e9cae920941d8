-- Carried tensors that loops write parts of: a graph may lay the result of a put over what it was made from, which must not
-- show. Each function runs eagerly and captured on the same inputs; where the old values are read later, by whatever way,
-- nothing may have been overwritten.
local compare = require "capture_compare"

local function case(name, f) compare.case(name, f, "TI") end

-- ---- what may be overwritten -------------------------------------------------------------------------------------

case("rows put one after the other", function(x, n)
  local y = x:clone()
  for i = 1, 4 do y[i] = y[i] * n end
  return y
end)
case("a carried tensor and one made in the loop", function(x, n)
  local y = kiln.zeros(5, 4)
  for i = 1, 4 do
    y[i] = x * i
    y[i + 1] = y[i] + n
  end
  return y
end)
case("a table of caches", function(x, n)
  local cache = { k = kiln.zeros(2, 4), v = kiln.zeros(2, 4) }
  local sum = x
  for i = 1, 2 do
    cache.k[i], cache.v[i] = sum, sum * 2
    sum = sum + cache.k[{ { 1, i } }]:sum(1) * cache.v[{ { 1, i } }]:mean(1)
  end
  return sum, cache.k, cache.v, n
end)
case("only on one path", function(x, n)
  local y = x:clone()
  for i = 1, 4 do if y[i] > 0 then y[i] = y[i] - n end end
  return y
end)
case("until a return", function(x, n)
  local y = kiln.zeros(4)
  for i = 1, 4 do
    if x[i] > 1 then return y, i end
    y[i] = x[i] + n
  end
  return y, 0
end)

-- ---- what may not ------------------------------------------------------------------------------------------------

case("the tensor before the put is read after it", function(x, n)
  local y = x:clone()
  local sum = kiln.zeros(4)
  for i = 1, 4 do
    local before = y:clone()
    y[i] = y[i] + n
    sum = sum + before * y
  end
  return sum, y
end)
case("the last trip's tensor is kept", function(x, n)
  local y, last = x:clone(), x
  for i = 1, 4 do
    last = y + 0
    y[i] = -y[i] * n
  end
  return y, last
end)
case("two puts of one tensor", function(x, n)
  local y = x:clone()
  local sum = x
  for i = 1, 4 do
    local a, b = y:clone(), y:clone()
    a[i], b[i] = n, -n
    sum = sum + a * b
    y = a
  end
  return sum, y
end)
case("tensors that change places", function(x, n)
  local a, b = x:clone(), x * 2
  for i = 1, 4 do
    a[i] = b[i] + n
    a, b = b, a
  end
  return a, b
end)
case("a put of a part of itself", function(x, n)
  local y = x:clone()
  for i = 1, 3 do y[{ { 1, 2 } }] = y[{ { i, i + 1 } }] * n end
  return y
end)
case("a put of itself turned round", function(x, n)
  local y = kiln.stack({ x, x * 2, x * 3, x * 4 })
  for _ = 1, 2 do y[{ { 1, 2 } }] = y:t()[{ { 2, 3 } }] + n end
  return y
end)
case("a view is read after the put", function(x, n)
  local y = x:clone()
  local sum = x
  for i = 1, 3 do
    local rest = y[{ { 2, 4 } }]
    y[i + 1] = n
    sum = sum + rest:sum()
  end
  return y, sum
end)
case("an inner loop reads what the outer one writes", function(x, n)
  local y, sum = x:clone(), x
  for i = 1, 4 do
    for k = 1, i do sum = sum + y[k] end
    y[i] = sum[i] * n
    for k = i, 4 do sum = sum - y[k] end
  end
  return y, sum
end)
case("the inner loop writes", function(x, n)
  local y = x:clone()
  local all = kiln.zeros(4)
  for i = 1, 2 do
    local z = y
    for k = 1, 4 do
      z = z + 0
      z[k] = i * n
      all = all + z
    end
    all = all + y
  end
  return y, all
end)
case("the error of the put is caught", function(x, n)
  local y = x:clone()
  for i = 3, 6 do
    local ok = pcall(function() y[i] = n end)
    if not ok then y = y * 2 end
  end
  return y
end)
