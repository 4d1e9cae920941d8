-- Linear algebra from Lua: kiln.linalg, arguments that have a form of their own, gradients through results.
-- Values: spec/golden; what is singular or refused: spec/test_linalg.c.
local check = require "check"
local test, tensor, equal, raises = check.test, check.tensor, check.equal, check.raises
local L = kiln.linalg
local f64 = { dtype = "float64" }

local function near(a, b, what) check.truth((a - b):abs():max():item() < 1e-9, what or "equality") end

test("kiln.linalg has the functions of the module", function()
  for _, name in ipairs { "inv", "det", "slogdet", "solve", "solve_triangular", "cholesky", "qr", "svd", "svdvals", "eigh",
                          "eigvalsh", "matrix_norm", "vector_norm", "matrix_rank", "pinv", "lstsq", "matrix_power", "cross",
                          "vecdot", "matmul" } do
    check.truth(L[name] ~= nil and L[name] == kiln[name], name)
  end
  equal(L.add, nil)
  equal(L.trace, nil)
  local m = kiln.tensor { { 3.0, 0.0 }, { 0.0, -4.0 } } -- kiln.cond of a matrix alone; else it is control flow
  check.truth(L.cond(m):equal(kiln.cond(m)) and L.cond(m, "fro"):equal(kiln.cond(m, "fro")))
end)

test("arguments", function()
  local x = kiln.tensor { { 3.0, 0.0 }, { 0.0, -4.0 } }
  equal(L.matrix_norm(x):item(), 5.0)
  equal(L.matrix_norm(x, "nuc"):item(), 7.0)
  for ord, wanted in pairs { [1] = 4.0, [-1] = 3.0, [2] = 4.0, [-2] = 3.0, [math.huge] = 4.0, [-math.huge] = 3.0 } do
    equal(L.matrix_norm(x, ord):item(), wanted)
    equal(L.matrix_norm(x, { ord = ord }):item(), wanted)
  end
  equal(L.matrix_norm(x:reshape(2, 1, 2), 1, { 1, 3 }, true).shape, { 1, 1, 1 })
  raises(function() L.matrix_norm(x, 3) end, "linalg.lua:", "matrix_norm: ord must be 'fro', 'nuc'", "not 3")
  equal(L.vector_norm(x, 1):item(), 7.0)
  raises(function() L.solve_triangular(x, x) end, "solve_triangular: upper is missing")
  tensor(L.solve_triangular(x, kiln.tensor { { 3.0 }, { 8.0 } }, { upper = true }), { { 1.0 }, { -2.0 } })
  tensor(L.solve(x, kiln.tensor { 3.0, 8.0 }), { 1.0, -2.0 })
  tensor(L.solve(x, kiln.tensor { { 3.0, 8.0 } }, { left = false }), { { 1.0, -2.0 } })
  equal((L.qr(kiln.ones(4, 2), "complete")).shape, { 4, 4 })
  raises(function() L.qr(x, "s") end, "qr: mode must be 'reduced', 'complete' or 'r', not 's'")
  local none, r = L.qr(kiln.ones(4, 2), "r")
  equal(none.shape, { 0 })
  check.truth(r:equal((select(2, L.qr(kiln.ones(4, 2))))))
  raises(function() select(2, L.qr(kiln.ones(2, 2, { requires_grad = true }), "r")):sum():backward() end, "mode 'r' has no gradient")
  equal(L.norm(x):item(), 5.0)
  equal(L.norm(x, "nuc"):item(), 7.0)
  equal(L.norm(x, 1):item(), 4.0)
  equal(L.norm(x, { dim = 1, ord = 1 }):totable(), { 3.0, 4.0 })
  equal(L.norm(x, 2, { 1, 2 }, true).shape, { 1, 1 })
  raises(function() L.norm(kiln.ones(1, 2, 3), 2) end, "linalg.lua:", "norm: an order without dim", "float32[1,2,3]")
  raises(function() L.norm(x, { order = 1 }) end, "linalg.lua:", "norm: there is no option 'order'")
  check.truth(math.abs(L.cond(x):item() - 4 / 3) < 1e-6 and math.abs(L.cond(x, 1):item() - 4 / 3) < 1e-6)
  equal(L.cond(kiln.ones(2, 2)):item() > 1e6, true)
  local u, s, vh = L.svd(kiln.ones(4, 2))
  equal({ u.shape, s.shape, vh.shape }, { { 4, 4 }, { 2 }, { 2, 2 } })
  equal((L.svd(kiln.ones(4, 2), { full_matrices = false })).shape, { 4, 2 })
  equal(L.eigvalsh(x, "U"):totable(), { -4.0, 3.0 })
  raises(function() L.inv(kiln.ones(2, 2)) end, "linalg.lua:", "inv: the matrix is singular: pivot 2 is 0")
end)

test("gradients come through factors", function()
  kiln.manual_seed(4)
  local a = (kiln.randn(2, 3, 3, f64) + kiln.eye(3, f64) * 4):requires_grad_()
  local b = kiln.randn(2, 3, f64):requires_grad_()
  check.truth(kiln.gradcheck(function(p, q) return L.solve(p, q):sin() end, { a, b }))
  check.truth(kiln.gradcheck(function(p)
    local q, r = L.qr(p)
    local u, s, vh = L.svd(p)
    local w, v = L.eigh(p + p:transpose(-2, -1))
    return q:sin():sum() + r:cos():sum() + (u * vh):sum() + s:log():sum() + (v * v * w:unsqueeze(-2)):sin():sum()
  end, { a }))
end)

test("a captured function gives what eager gives", function()
  local function f(a, b)
    local l = L.cholesky(a:matmul(a:transpose()) + kiln.eye(3))
    local sign, log = L.slogdet(a)
    return L.solve(a, b), kiln.cholesky_solve(b, l), sign * log, L.pinv(a), L.lstsq(a, b)
  end
  kiln.manual_seed(5)
  local g = kiln.script(f)
  local a, b = kiln.randn(3, 3), kiln.randn(3, 2)
  local eager, captured = { f(a, b) }, { g(a, b) }
  equal(#captured, 5)
  for i = 1, 5 do near(eager[i], captured[i], "result " .. i) end
end)

test("one and two threads give the same bits", function()
  kiln.manual_seed(6)
  local x = kiln.randn(64, 8, 8)
  local before, results = kiln.get_num_threads(), {}
  for threads = 1, 2 do
    kiln.set_num_threads(threads)
    local u, s = L.svd(x)
    results[threads] = { x:inv(), u, s, (L.qr(x)), (L.eigh(x)), L.det(x) }
  end
  kiln.set_num_threads(before)
  for i, r in ipairs(results[1]) do check.truth(r:equal(results[2][i]), "result " .. i) end
end)
