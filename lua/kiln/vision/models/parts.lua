-- What the models of kiln.vision.models share: starting values and weights from files. No model here.
local kiln = require "kiln"
local fail = kiln.fail

local parts = {}

-- ---- starting values -------------------------------------------------------------------------------------------

--- He, Zhang, Ren, Sun 2015, by what a convolution's outputs are spread over: normal with variance 2 / (outputs x kernel).
function parts.fan_out(weight)
  local shape = weight.shape
  local fan = shape[1]
  for i = 3, #shape do fan = fan * shape[i] end
  kiln.no_grad(function() weight:normal_(0.0, math.sqrt(2 / fan)) end)
end

function parts.normal(t, deviation)
  kiln.no_grad(function() t:normal_(0.0, deviation) end)
end

function parts.fill(t, value)
  kiln.no_grad(function() t:fill_(value) end)
end

--- Normal, without what is more than 2 from 0: made from uniform numbers by the inverse of the distribution.
function parts.truncated_normal(t, deviation)
  local double = { dtype = "float64" }
  local most = kiln.tensor(2 / (deviation * math.sqrt(2)), double):erf():item()
  kiln.no_grad(function()
    local u = kiln.rand(t.shape, double) * (2 * most) - most
    t:copy_((u:erfinv() * (deviation * math.sqrt(2))):clamp(-2, 2))
  end)
end

local function xavier(t)
  local bound = math.sqrt(6 / (t:size(1) + t:size(2)))
  kiln.no_grad(function() t:uniform_(-bound, bound) end)
end
parts.xavier = xavier

-- ---- options, weights ------------------------------------------------------------------------------------------

--- options without other keys than `known`, as a copy.
function parts.options(name, options, known)
  local out = {}
  if options ~= nil and (type(options) ~= "table" or kiln.is_tensor(options)) then
    fail("%s: options must be a table, got %s", name, kiln.is_tensor(options) and "a tensor" or type(options))
  end
  for key, value in pairs(options or {}) do
    local found = false
    for _, word in ipairs(known) do found = found or word == key end
    if not found then fail("%s: there is no option '%s'; there are %s", name, tostring(key), table.concat(known, ", ")) end
    out[key] = value
  end
  return out
end

--- A function { weights =, … } that makes a model: make(options) without the weights. weights: the path of a safetensors file
--- or a table of tensors by name; num_classes then is that of the tensor `head`.
function parts.loader(name, head, make)
  return function(options)
    if options ~= nil and type(options) ~= "table" then fail("%s: options must be a table, got %s", name, type(options)) end
    local given, state = {}, nil
    for key, value in pairs(options or {}) do given[key] = value end
    local weights = given.weights
    given.weights = nil
    if type(weights) == "string" then
      state = kiln.from_safetensors(weights)
    elseif weights then
      if type(weights) ~= "table" then fail("%s: weights must be a path or a table of tensors, got %s", name, type(weights)) end
      state = weights
    end
    if state and given.num_classes == nil and kiln.is_tensor(state[head]) then given.num_classes = state[head]:size(1) end
    local model = make(given)
    if state then model:load_state_dict(state) end
    return model
  end
end

return parts
