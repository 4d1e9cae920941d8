-- Recurrent networks: modules, cells, capture, gradients of both kinds. Values are in spec/golden/ops.txt.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local nn = kiln.nn

local function close(a, b, what)
  equal(a.shape, b.shape)
  check.truth((a - b):abs():max():item() < 1e-5, what)
end

local kinds = {
  LSTM = { cell = nn.LSTMCell, gates = 4 },
  GRU = { cell = nn.GRUCell, gates = 3 },
  RNN = { cell = nn.RNNCell, gates = 1 },
}

test("parameters have PyTorch's names and shapes", function()
  for name, kind in pairs(kinds) do
    local net = nn[name](3, 4, { num_layers = 2, bidirectional = true })
    local state, count = net:state_dict(), 0
    for _ in pairs(state) do count = count + 1 end
    equal(count, 16)
    equal(state.weight_ih_l0.shape, { 4 * kind.gates, 3 })
    equal(state.weight_ih_l1_reverse.shape, { 4 * kind.gates, 8 })
    equal(state.weight_hh_l0_reverse.shape, { 4 * kind.gates, 4 })
    equal(state.bias_hh_l1.shape, { 4 * kind.gates })
    equal(nn[name](3, 4, 2).num_layers, 2)
    local plain = nn[name](3, 4, { bias = false })
    equal(#plain:parameters(), 2)
    equal(tostring(nn[name](2, 1)), ("%s(2 -> 1)  %d parameters"):format(name, 5 * kind.gates))
  end
end)

test("a layer is its cell step by step", function()
  for name, kind in pairs(kinds) do
    local net, cell = nn[name](3, 4), kind.cell(3, 4)
    cell:load_state_dict { weight_ih = net.weight_ih_l0, weight_hh = net.weight_hh_l0, bias_ih = net.bias_ih_l0, bias_hh = net.bias_hh_l0 }
    local x, h, c = kiln.randn(5, 2, 3), nil, nil
    local out, state = net(x)
    for t = 1, 5 do
      if name == "LSTM" then
        h, c = cell(x[t], h and { h, c })
      else
        h = cell(x[t], h)
      end
      close(out[t], h, name .. " step")
    end
    if name == "LSTM" then
      close(state[1][1], h, "h")
      close(state[2][1], c, "c")
    else
      close(state[1], h, "h")
    end
    local alone = net(x:select(2, 1))
    close(alone, out:select(2, 1), "one sequence without a batch")
    equal(name == "LSTM" and (cell(x[1][1])).shape or cell(x[1][1]).shape, { 4 })
    local rest, last = net(x[{ { 3, 5 } }], select(2, net(x[{ { 1, 2 } }])))
    close(rest, out[{ { 3, 5 } }], "in two parts")
    equal(name == "LSTM" and #last or 2, 2)
  end
end)

test("batch_first and both directions", function()
  local net = nn.GRU(3, 2, { bidirectional = true, batch_first = true })
  local x = kiln.randn(4, 6, 3)
  local out, h = net(x)
  equal(out.shape, { 4, 6, 4 })
  equal(h.shape, { 2, 4, 2 })
  local back = nn.GRU(3, 2, { batch_first = true })
  local own = net:state_dict()
  back:load_state_dict { weight_ih_l0 = own.weight_ih_l0_reverse, weight_hh_l0 = own.weight_hh_l0_reverse,
                         bias_ih_l0 = own.bias_ih_l0_reverse, bias_hh_l0 = own.bias_hh_l0_reverse }
  close(back(x:flip(2)):flip(2), out[{ {}, {}, { 3, 4 } }], "the second direction goes backwards")
end)

test("dropout between layers, only while training", function()
  local net = nn.RNN(3, 8, { num_layers = 2, dropout = 0.5, nonlinearity = "relu" })
  local x = kiln.randn(4, 2, 3)
  check.truth(not net(x):equal(net(x)), "training")
  net:eval()
  check.truth(net(x):equal(net(x)), "not training")
end)

-- Gradients of all parameters: in one op; and step by step, when they must be differentiable.
test("both ways of going back agree", function()
  for name in pairs(kinds) do
    for _, reverse in ipairs { false, true } do
      local net = nn[name](3, 4, { num_layers = 2, bidirectional = reverse }):to "float64"
      local x = kiln.randn(70, 2, 3, { dtype = "float64", requires_grad = true }) -- more steps than one stack takes
      local list = net:parameters()
      list[#list + 1] = x
      local function loss()
        local out, state = net(x)
        local last = name == "LSTM" and state[2] or state
        return (out * out:sin()):sum() + last:cos():sum()
      end
      local once = kiln.grad({ loss() }, list)
      local twice = kiln.grad({ loss() }, list, { create_graph = true })
      for i, g in ipairs(once) do
        equal(twice[i].requires_grad, true)
        check.truth((g - twice[i]):abs():max():item() < 1e-9, name .. ": gradient")
      end
    end
  end
end)

test("captured, with a sequence of any length", function()
  for name in pairs(kinds) do
    local net = nn[name](3, 4, { num_layers = 2, bidirectional = true })
    local function run(x) local out = net(x); return out end
    local g = kiln.script(run, { inputs = { kiln.spec("float32", { "T", "N", 3 }) } })
    for _, sizes in ipairs { { 5, 2 }, { 1, 3 }, { 9, 1 } } do
      local x = kiln.randn(sizes[1], sizes[2], 3)
      close(g(x), run(x), name .. " captured")
    end
  end
end)

test("the state of a cell goes through a captured loop", function()
  local cell = nn.LSTMCell(3, 4)
  local function run(x)
    local h, c = kiln.zeros(2, 4), kiln.zeros(2, 4)
    for t = 1, x:size(1) do h, c = cell(x[t], { h, c }) end
    return h
  end
  local x = kiln.randn(4, 2, 3)
  close(kiln.script(run)(x), run(x), "loop")
end)

test("halves", function()
  local net = nn.LSTM(3, 4)
  local x = kiln.randn(3, 2, 3)
  local want = net(x)
  net:to "float16"
  local got = net(x:half())
  equal(got.dtype, "float16")
  check.truth((got:float() - want):abs():max():item() < 5e-3, "near")
end)

test("misuse", function()
  local x, w = kiln.zeros(3, 2, 5), { kiln.zeros(8, 5), kiln.zeros(8, 2), kiln.zeros(8), kiln.zeros(8) }
  raises(function() kiln.lstm(x, nil, { w[1], w[2] }) end, "rnn.lua:",
    "lstm: 4 weights and biases are needed for 1 layer, and before them 2 states or none; there are 2 tensors beside the input")
  raises(function() kiln.lstm(x, { kiln.zeros(1, 2, 2), 3 }, w) end, "lstm: entry 2 of the states must be a tensor, got")
  raises(function() kiln.lstm(x, nil, 5) end, "lstm: the weights must be a tensor or a table of tensors, got")
  raises(function() kiln.lstm(x, nil, w, { nun_layers = 2 }) end, "lstm: there is no option 'nun_layers'; there are has_biases, num_layers")
  raises(function() kiln.lstm(kiln.zeros(3), nil, w) end, "lstm: a sequence [T,N,I], or [T,I] of one sample, is needed (got float32[3])")
  raises(function() kiln.lstm(kiln.zeros(0, 2, 5), nil, w) end, "lstm: a sequence has at least one step (got float32[0,2,5])")
  raises(function() kiln.lstm(x, { kiln.zeros(2, 2, 2), kiln.zeros(2, 2, 2) }, w) end,
    "lstm: a state must have one entry for each layer and direction in dim 1 (got float32[3,2,5], float32[2,2,2])")
  raises(function() kiln.lstm(x, { kiln.zeros(1, 2, 3), kiln.zeros(1, 2, 3) }, w) end,
    "lstm_layer: input 3 must have the shape [N,H] and fit the others")
  raises(function() kiln.gru(x, nil, w) end, "gru: gru_layer: input 1 must have the shape [T,N,3H] and fit the others")
  raises(function() kiln.lstm_cell(x[1], kiln.zeros(2, 2), w[1], w[2]) end, "lstm_cell: takes 5 to 7 tensors, got 4")
  raises(function() nn.LSTM(3, 0) end, "LSTM: the number of units must be a positive integer, got 0")
  raises(function() nn.LSTM(3, 4, { proj_size = 4 }) end, "LSTM: proj_size must be an integer from 0 to less than the number of units, got 4")
  raises(function() nn.RNN(3, 4, { nonlinearity = "gelu" }) end, "RNN: nonlinearity must be 'tanh' or 'relu', got gelu")
end)
