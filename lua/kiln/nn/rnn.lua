-- Recurrent networks as modules: LSTM, GRU, RNN over sequences, LSTMCell, GRUCell, RNNCell for one step. Parameters have
-- PyTorch's names and layout (weight_ih_l0, weight_hh_l0_reverse, …), so states go from one to the other.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local init = require "kiln.nn.init"
local module = require "kiln.nn.module"
local Module, Parameter, fail = module.Module, module.Parameter, kiln.fail

local part = {}

local function parameter(bound, ...) return Parameter(init.uniform(kiln.empty(...), -bound, bound)) end

-- ---- sequences -------------------------------------------------------------------------------------------------

-- A class `name` whose layers have `gates` products for each unit; `pick` gives the op for the options, and `states`
-- is how many tensors a state is made of.
local function network(name, gates, states, pick)
  local Network = Module:extend(name)
  part[name] = Network

  function Network:init(inputs, units, layers, options)
    if type(layers) == "table" then layers, options = nil, layers end
    options = options or {}
    arguments.count(name, "the number of inputs", inputs)
    arguments.count(name, "the number of units", units)
    if options.proj_size and options.proj_size ~= 0 then fail("%s: proj_size is not supported", name) end
    self.inputs, self.units = inputs, units
    self.num_layers = arguments.count(name, "num_layers", layers or options.num_layers or 1)
    self.bias, self.batch_first = options.bias ~= false, options.batch_first or false
    self.bidirectional, self.dropout = options.bidirectional or false, options.dropout or 0
    if type(self.dropout) ~= "number" or self.dropout < 0 or self.dropout > 1 then
      fail("%s: dropout must lie in [0, 1], got %s", name, tostring(self.dropout))
    end
    self.op = pick(options)
    self.order = {} -- the parameters' names as the op wants them
    local ways = self.bidirectional and 2 or 1
    for layer = 0, self.num_layers - 1 do
      for way = 1, ways do
        self:add(layer == 0 and inputs or ways * units, ("_l%d%s"):format(layer, way == 2 and "_reverse" or ""))
      end
    end
  end

  function Network:add(width, suffix)
    local units, bound = self.units, 1 / math.sqrt(self.units)
    local function one(prefix, ...)
      self.order[#self.order + 1] = prefix .. suffix
      self[prefix .. suffix] = parameter(bound, ...)
    end
    one("weight_ih", gates * units, width)
    one("weight_hh", gates * units, units)
    if self.bias then
      one("bias_ih", gates * units)
      one("bias_hh", gates * units)
    end
  end

  --- forward(x [, state]): the output, and the state at the end, which the next part of a sequence may start with:
  --- a tensor, of an LSTM a table { h, c }.
  function Network:forward(x, state)
    local params = {}
    for i = 1, #self.order do params[i] = self[self.order[i]] end
    local out, h, c = self.op(x, state, params, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional,
      self.batch_first)
    if states == 2 then return out, { h, c } end
    return out, h
  end

  function Network:extra()
    return ("%d -> %d%s%s"):format(self.inputs, self.units, self.num_layers > 1 and ", " .. self.num_layers .. " layers" or "",
      self.bidirectional and ", both ways" or "")
  end
end

local function nonlinearity(name, options)
  local chosen = options.nonlinearity or "tanh"
  if chosen ~= "tanh" and chosen ~= "relu" then
    fail("%s: nonlinearity must be 'tanh' or 'relu', got %s", name, tostring(chosen))
  end
  return chosen
end

--- LSTM(inputs, units [, num_layers] [, { bias, batch_first, dropout, bidirectional }]), GRU and RNN the same; RNN has
--- the option nonlinearity too.
network("LSTM", 4, 2, function() return kiln.lstm end)
network("GRU", 3, 1, function() return kiln.gru end)
network("RNN", 1, 1, function(options) return nonlinearity("RNN", options) == "relu" and kiln.rnn_relu or kiln.rnn_tanh end)

-- ---- cells -----------------------------------------------------------------------------------------------------

local function cell(name, gates, states, pick)
  local Cell = Module:extend(name)
  part[name] = Cell

  function Cell:init(inputs, units, options)
    options = options or {}
    arguments.count(name, "the number of inputs", inputs)
    arguments.count(name, "the number of units", units)
    local bound = 1 / math.sqrt(units)
    self.units, self.op = units, pick(options)
    self.weight_ih, self.weight_hh = parameter(bound, gates * units, inputs), parameter(bound, gates * units, units)
    if options.bias ~= false then
      self.bias_ih, self.bias_hh = parameter(bound, gates * units), parameter(bound, gates * units)
    end
  end

  --- forward(x [, state]): the next state, which of an LSTMCell is h, c, given as a table { h, c }. None: zeros.
  function Cell:forward(x, state)
    if state == nil then
      local options, zero = { dtype = x.dtype }, nil
      if x:dim() == 1 then zero = kiln.zeros(self.units, options) else zero = kiln.zeros(x:size(1), self.units, options) end
      state = states == 2 and { zero, zero } or zero
    end
    return self.op(x, state, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
  end

  function Cell:extra() return ("%d -> %d"):format(self.weight_ih:size(2), self.units) end
end

cell("LSTMCell", 4, 2, function() return kiln.lstm_cell end)
cell("GRUCell", 3, 1, function() return kiln.gru_cell end)
cell("RNNCell", 1, 1, function(options) return nonlinearity("RNNCell", options) == "relu" and kiln.rnn_relu_cell or kiln.rnn_tanh_cell end)

return part
