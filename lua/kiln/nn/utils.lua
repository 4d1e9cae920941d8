-- kiln.nn.utils: gradients clipped, parameters as one vector, normalisation folded into the layer before it. Weights made of other
-- tensors are in weights.lua.
local kiln = require "kiln"
local arguments = require "kiln.nn.arguments"
local module = require "kiln.nn.module"
local Parameter, fail = module.Parameter, kiln.fail

local utils = {}

-- A list of tensors of one tensor or a list, or of a module.
local function list_of(name, parameters)
  if kiln.is_tensor(parameters) then return { parameters } end
  if module.is_module(parameters) then return parameters:parameters() end
  if type(parameters) ~= "table" then fail("%s: a list of tensors is needed, got %s", name, type(parameters)) end
  for i, p in ipairs(parameters) do
    if not kiln.is_tensor(p) then fail("%s: entry %d must be a tensor, got %s", name, i, type(p)) end
  end
  return parameters
end

local function gradients(parameters)
  local list = {}
  for _, p in ipairs(parameters) do
    if p.grad then list[#list + 1] = p.grad end
  end
  return list
end

-- ---- gradients -------------------------------------------------------------------------------------------------

--- get_total_norm(tensors [, norm_type = 2, error_if_nonfinite = false]): the norm of all of them as one vector.
function utils.get_total_norm(tensors, ...)
  local o = arguments.read("get_total_norm", { "norm_type", 2, "error_if_nonfinite", false }, ...)
  tensors = list_of("get_total_norm", tensors)
  if #tensors == 0 then return kiln.tensor(0.0) end
  local norms = {}
  for i, t in ipairs(tensors) do norms[i] = kiln.linalg.vector_norm(t, o.norm_type) end
  local total = kiln.linalg.vector_norm(kiln.stack(norms, 1), o.norm_type)
  if o.error_if_nonfinite and not kiln.isfinite(total):item() then
    fail("get_total_norm: the norm of order %s is %s", tostring(o.norm_type), tostring(total:item()))
  end
  return total
end

--- clip_grad_norm_(parameters, max_norm [, norm_type = 2, error_if_nonfinite = false]): scales all gradients down alike so that
--- their norm is at most max_norm. Gives the norm before, a tensor.
function utils.clip_grad_norm_(parameters, max_norm, ...)
  parameters = list_of("clip_grad_norm_", parameters)
  if type(max_norm) ~= "number" then fail("clip_grad_norm_: max_norm must be a number, got %s", type(max_norm)) end
  local o = arguments.read("clip_grad_norm_", { "norm_type", 2, "error_if_nonfinite", false }, ...)
  local list = gradients(parameters)
  if #list == 0 then return kiln.tensor(0.0) end
  return kiln.no_grad(function()
    local norms = {}
    for i = 1, #list do norms[i] = kiln.linalg.vector_norm(list[i], o.norm_type) end
    local total = kiln.linalg.vector_norm(kiln.stack(norms, 1), o.norm_type)
    if o.error_if_nonfinite and not kiln.isfinite(total):item() then
      fail("clip_grad_norm_: the norm of the gradients is %s, nothing was clipped", tostring(total:item()))
    end
    local scale = (max_norm / (total + 1e-6)):clamp_max(1.0)
    for i = 1, #list do list[i]:mul_(scale) end
    return total
  end)
end

--- clip_grad_value_(parameters, clip_value): every element of the gradients into [-clip_value, clip_value].
function utils.clip_grad_value_(parameters, clip_value)
  parameters = list_of("clip_grad_value_", parameters)
  if type(clip_value) ~= "number" then fail("clip_grad_value_: a number is needed, got %s", type(clip_value)) end
  kiln.no_grad(function()
    local list = gradients(parameters)
    for i = 1, #list do list[i]:clamp_(-clip_value, clip_value) end
  end)
end

-- ---- one vector ------------------------------------------------------------------------------------------------

--- All elements in the order of the list.
function utils.parameters_to_vector(parameters)
  local list = {}
  for i, p in ipairs(list_of("parameters_to_vector", parameters)) do list[i] = p:reshape(-1) end
  return kiln.cat(list, 1)
end

--- Writes the elements of a vector into the parameters, in the order of the list.
function utils.vector_to_parameters(vector, parameters)
  if not kiln.is_tensor(vector) or vector:dim() ~= 1 then fail "vector_to_parameters: a tensor of one dimension is needed" end
  local list, count = list_of("vector_to_parameters", parameters), 0
  for _, p in ipairs(list) do count = count + p:numel() end
  if vector:numel() ~= count then
    fail("vector_to_parameters: the vector has %d elements and the parameters %d", vector:numel(), count)
  end
  kiln.no_grad(function()
    local at = 1
    for _, p in ipairs(list) do
      p:copy_(vector:narrow(1, at, p:numel()):reshape(p.shape))
      at = at + p:numel()
    end
  end)
end

-- ---- folding ---------------------------------------------------------------------------------------------------

-- The layer's weight and bias when what it gives is normalised by the running values of bn; dim is that of the outputs.
local function fold(name, layer, bn, dim)
  if layer.training or bn.training then fail("%s: both modules must be in eval mode", name) end
  if not bn.running_mean or not bn.running_var then fail("%s: the normalisation has no running values", name) end
  return kiln.no_grad(function()
    local w = layer.weight
    local scale = (bn.running_var + bn.eps):rsqrt()
    if bn.weight then scale = scale * bn.weight end
    local bias = -bn.running_mean
    if layer.bias then bias = bias + layer.bias end
    bias = bias * scale
    if bn.bias then bias = bias + bn.bias end
    local shape = {}
    for i = 1, w:dim() do shape[i] = i == dim and -1 or 1 end
    local groups = dim == 2 and layer.groups or 1
    local weight
    if groups == 1 then
      weight = w * scale:reshape(shape)
    else -- [inputs, outputs / groups, …]: the scales of a group go to the inputs of that group
      local grouped = w:unflatten(1, { groups, -1 })
      table.insert(shape, 1, groups)
      weight = (grouped * scale:reshape(shape)):reshape(w.shape)
    end
    return weight, bias
  end)
end

local function folded(name, layer, bn, dim)
  local weight, bias = fold(name, layer, bn, dim)
  local fused = layer:clone()
  fused.weight, fused.bias = Parameter(weight, layer.weight.requires_grad), Parameter(bias, layer.weight.requires_grad)
  return fused
end

--- fuse_conv_bn_eval(conv, bn [, transpose = false]): a convolution that does what both do one after the other in eval mode.
function utils.fuse_conv_bn_eval(conv, bn, transpose)
  return folded("fuse_conv_bn_eval", conv, bn, transpose and 2 or 1)
end

--- fuse_conv_bn(conv, bn [, transpose = false]): fuse_conv_bn_eval by a shorter name.
utils.fuse_conv_bn = utils.fuse_conv_bn_eval

--- fuse_linear_bn_eval(linear, bn): the same of a linear layer.
function utils.fuse_linear_bn_eval(linear, bn)
  if linear.weight:size(1) ~= bn.running_mean:numel() then
    fail("fuse_linear_bn_eval: %d outputs do not go with %d features", linear.weight:size(1), bn.running_mean:numel())
  end
  return folded("fuse_linear_bn_eval", linear, bn, 1)
end

for name, f in pairs(require "kiln.nn.weights") do utils[name] = f end

return utils
