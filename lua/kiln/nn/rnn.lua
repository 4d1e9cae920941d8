-- Recurrent networks as modules: LSTM, GRU, RNN over sequences, LSTMCell, GRUCell, RNNCell for one step. Parameters have
-- PyTorch's names and layout (weight_ih_l0, weight_hh_l0_reverse, …), so states go from one to the other.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local init = require "kiln.nn.init"
local projected = require "kiln.nn.lstm_projected"
local module = require "kiln.nn.module"
local Module, Parameter, fail = module.Module, module.Parameter, kiln.fail

local part = {}

local function parameter(bound, ...) return Parameter(init.uniform(kiln.empty(...), -bound, bound)) end

-- ---- sequences -------------------------------------------------------------------------------------------------

-- The op, by the option `nonlinearity` where there is one.
local function pick(name, ops, given)
  local chosen = given.nonlinearity
  if chosen == nil then return ops[1] end
  if not ops[chosen] then fail("%s: nonlinearity must be 'tanh' or 'relu', got %s", name, tostring(chosen)) end
  return ops[chosen]
end

-- A class `name` whose layers have `gates` products for each unit; `states` is how many tensors a state is made of.
local function network(name, gates, states, ops, fields)
  local Network = Module:extend(name)
  part[name] = Network

  function Network:init(inputs, units, ...)
    arguments.count(name, "the number of inputs", inputs)
    arguments.count(name, "the number of units", units)
    local given = arguments.read(name, fields, ...)
    self.inputs, self.units, self.bias, self.batch_first = inputs, units, given.bias, given.batch_first
    self.num_layers = arguments.count(name, "num_layers", given.num_layers)
    self.bidirectional, self.dropout, self.proj_size = given.bidirectional, given.dropout, given.proj_size or 0
    if type(self.dropout) ~= "number" or self.dropout < 0 or self.dropout > 1 then
      fail("%s: dropout must lie in [0, 1], got %s", name, tostring(self.dropout))
    end
    if math.type(self.proj_size) ~= "integer" or self.proj_size < 0 or self.proj_size >= units then
      fail("%s: proj_size must be an integer from 0 to less than the number of units, got %s", name, tostring(self.proj_size))
    end
    self.op = pick(name, ops, given)
    self.order = {} -- the parameters' names as the op wants them
    local ways = self.bidirectional and 2 or 1
    for layer = 0, self.num_layers - 1 do
      for way = 1, ways do
        self:add(layer == 0 and inputs or ways * self:width(), ("_l%d%s"):format(layer, way == 2 and "_reverse" or ""))
      end
    end
  end

  --- How many numbers a step of one direction gives.
  function Network:width() return self.proj_size > 0 and self.proj_size or self.units end

  function Network:add(width, suffix)
    local units, bound = self.units, 1 / math.sqrt(self.units)
    local function one(prefix, ...)
      self.order[#self.order + 1] = prefix .. suffix
      self[prefix .. suffix] = parameter(bound, ...)
    end
    one("weight_ih", gates * units, width)
    one("weight_hh", gates * units, self:width())
    if self.bias then
      one("bias_ih", gates * units)
      one("bias_hh", gates * units)
    end
    if self.proj_size > 0 then one("weight_hr", self.proj_size, units) end
  end

  --- forward(x [, state]): the output, and the state at the end, which the next part of a sequence may start with:
  --- a tensor, of an LSTM a table { h, c }.
  function Network:forward(x, state)
    if states == 2 and kiln.is_tensor(state) then fail("%s: the state must be a table { h, c }, got one tensor", name) end
    if states == 1 and type(state) == "table" then fail("%s: the state must be a tensor, got a table", name) end
    local params = {}
    for i = 1, #self.order do params[i] = self[self.order[i]] end
    if self.proj_size > 0 then return projected(self, x, state, params) end
    local out, h, c = self.op(x, state, params, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional,
      self.batch_first)
    if states == 2 then return out, { h, c } end
    return out, h
  end

  function Network:extra()
    return ("%d -> %d%s%s%s"):format(self.inputs, self.units, self.proj_size > 0 and " -> " .. self.proj_size or "",
      self.num_layers > 1 and ", " .. self.num_layers .. " layers" or "", self.bidirectional and ", both ways" or "")
  end
end

--- LSTM(inputs, units [, num_layers, bias, batch_first, dropout, bidirectional, proj_size]), GRU(…) the same without the last,
--- RNN(…) with nonlinearity in front of bias: recurrent networks on [L,N,inputs], with batch_first [N,L,inputs].
network("LSTM", 4, 2, { kiln.lstm }, {
  "num_layers", 1, "bias", true, "batch_first", false, "dropout", 0, "bidirectional", false, "proj_size", 0,
})
network("GRU", 3, 1, { kiln.gru }, {
  "num_layers", 1, "bias", true, "batch_first", false, "dropout", 0, "bidirectional", false,
})
network("RNN", 1, 1, { tanh = kiln.rnn_tanh, relu = kiln.rnn_relu }, {
  "num_layers", 1, "nonlinearity", "tanh", "bias", true, "batch_first", false, "dropout", 0, "bidirectional", false,
})

-- ---- cells -----------------------------------------------------------------------------------------------------

local function cell(name, gates, states, ops, fields)
  local Cell = Module:extend(name)
  part[name] = Cell

  function Cell:init(inputs, units, ...)
    arguments.count(name, "the number of inputs", inputs)
    arguments.count(name, "the number of units", units)
    local given, bound = arguments.read(name, fields, ...), 1 / math.sqrt(units)
    self.units, self.op = units, pick(name, ops, given)
    self.weight_ih, self.weight_hh = parameter(bound, gates * units, inputs), parameter(bound, gates * units, units)
    if given.bias then
      self.bias_ih, self.bias_hh = parameter(bound, gates * units), parameter(bound, gates * units)
    end
  end

  --- forward(x [, state]): the next state, which of an LSTMCell is h, c, given as a table { h, c }. None: zeros.
  function Cell:forward(x, state)
    if state == nil then
      local options, zero = { dtype = x.dtype, device = x.device }, nil
      if x:dim() == 1 then zero = kiln.zeros(self.units, options) else zero = kiln.zeros(x:size(1), self.units, options) end
      state = states == 2 and { zero, zero } or zero
    end
    return self.op(x, state, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
  end

  function Cell:extra() return ("%d -> %d"):format(self.weight_ih:size(2), self.units) end
end

--- LSTMCell(inputs, units [, bias]), GRUCell(…) the same, RNNCell(…) with nonlinearity behind bias: one step of it.
cell("LSTMCell", 4, 2, { kiln.lstm_cell }, { "bias", true })
cell("GRUCell", 3, 1, { kiln.gru_cell }, { "bias", true })
cell("RNNCell", 1, 1, { tanh = kiln.rnn_tanh_cell, relu = kiln.rnn_relu_cell }, { "bias", true, "nonlinearity", "tanh" })

return part
