-- LSTM with proj_size: what a step hands on is a smaller product of it (Sak, Senior, Beaufays 2014). Step by step in ops, as
-- lstm_layer has no such product; rnn.lua has the modules.
local kiln = require "kiln"

-- One layer in one direction over [T,N,I]: the output of each step, and the state at the end.
local function run(x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, units, reverse)
  if reverse then x = x:flip(1) end
  local gx, out = kiln.linear(x, w_ih, b_ih), {}
  for t = 1, x:size(1) do
    local gates = gx[t] + kiln.linear(h, w_hh, b_hh)
    local i, f = gates:narrow(2, 1, units):sigmoid(), gates:narrow(2, units + 1, units):sigmoid()
    local g, o = gates:narrow(2, 2 * units + 1, units):tanh(), gates:narrow(2, 3 * units + 1, units):sigmoid()
    c = f * c + i * g
    h = kiln.linear(o * c:tanh(), w_hr)
    out[#out + 1] = h
  end
  local y = kiln.stack(out, 1)
  if reverse then y = y:flip(1) end
  return y, h, c
end

-- self: the module; params: its tensors, layer after layer, direction after direction, as its field `order` names them.
return function(self, x, state, params)
  local alone = x:dim() == 2
  if alone then x = x:unsqueeze(2) elseif self.batch_first then x = x:transpose(1, 2) end
  local ways, each = self.bidirectional and 2 or 1, self.bias and 5 or 3
  local h0, c0
  if state then
    h0, c0 = state[1], state[2]
    if alone then h0, c0 = h0:unsqueeze(2), c0:unsqueeze(2) end
  else
    local count, batch, options = self.num_layers * ways, x:size(2), { dtype = x.dtype, device = x.device }
    h0, c0 = kiln.zeros(count, batch, self.proj_size, options), kiln.zeros(count, batch, self.units, options)
  end
  local hs, cs, k = {}, {}, 0
  for layer = 1, self.num_layers do
    local parts = {}
    for way = 1, ways do
      local p, n = k * each, k + 1
      local b_ih, b_hh = nil, nil
      if self.bias then b_ih, b_hh = params[p + 3], params[p + 4] end
      parts[way], hs[n], cs[n] = run(x, h0[n], c0[n], params[p + 1], params[p + 2], b_ih, b_hh, params[p + each], self.units, way == 2)
      k = n
    end
    x = ways == 2 and kiln.cat(parts, 3) or parts[1]
    if layer < self.num_layers and self.dropout > 0 then x = kiln.dropout(x, self.dropout, self.training) end
  end
  local h, c = kiln.stack(hs, 1), kiln.stack(cs, 1)
  if alone then return x:squeeze(2), { h:squeeze(2), c:squeeze(2) } end
  if self.batch_first then x = x:transpose(1, 2) end
  return x, { h, c }
end
