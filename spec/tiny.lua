-- From end to end in seconds, for valgrind: a small network is trained, captured with a branch and a loop on its
-- data, verified, saved, loaded and run, on oneDNN and on ref; then errors, a refused capture and a broken file.
local nn, optim, F = kiln.nn, kiln.optim, kiln.nn.functional
kiln.manual_seed(1)

local net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.1),
  nn.Linear(36, 3))
local x, y = kiln.randn(4, 1, 8, 8), kiln.tensor { 1, 2, 3, 1 }
for _, opt in ipairs { optim.SGD(net:parameters(), { lr = 0.1, momentum = 0.9 }), optim.Adam(net:parameters()) } do
  for _ = 1, 2 do
    opt:zero_grad()
    local loss = F.cross_entropy(net(x), y)
    loss:backward()
    opt:step()
  end
end
net:eval()

local function predict(image)
  local scores = net(image)
  if scores:max() > 0.5 then return scores:argmax(-1), scores end
  local rounds = 0
  while scores:sum() < 1 and rounds < 3 do
    scores = scores + 1
    rounds = rounds + 1
  end
  return scores:argmax(-1), scores
end

local graph = kiln.script(predict, { inputs = { kiln.spec("float32", { 1, 1, 8, 8 }) } })
local path = os.tmpname()
graph:save(path)
local loaded = kiln.load(path)
for i = 1, 4 do
  local image = x[{ { i, i } }]
  local class, scores = kiln.no_grad(predict, image)
  for _, g in ipairs { graph, loaded } do
    local class2, scores2 = g(image)
    assert(class:equal(class2) and scores:allclose(scores2, { rtol = 1e-4, atol = 1e-5 }))
  end
end
assert(kiln.parse(tostring(graph)))

-- What goes wrong must leak nothing either.
assert(not pcall(kiln.matmul, kiln.ones(2, 3), kiln.ones(2, 3)))
assert(not pcall(kiln.script, function(t) return io.open(t) end, { inputs = { kiln.spec("float32", { 1 }) } }))
local file = assert(io.open(path, "rb"))
local bytes = file:read "a"
file:close()
file = assert(io.open(path, "wb"))
file:write(bytes:sub(1, #bytes // 2))
file:close()
assert(not pcall(kiln.load, path))
os.remove(path)
print "done"
