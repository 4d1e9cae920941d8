-- kiln.autograd: whole derivatives of functions. `inputs` is a tensor or a list of them; f gets them one by one, as
-- copies without a history, and gives a tensor or several. A tensor in gives a tensor out, a list a list. Options:
-- { create_graph = true } keeps the answer differentiable, in the inputs too (which are then used as they are).
local kiln = require "kiln"
local fail = kiln.fail

local M = {}

local function as_list(t, what, name)
  if kiln.is_tensor(t) then return { t }, true end
  if type(t) ~= "table" or #t == 0 then fail("%s: %s must be a tensor or a list of tensors", name, what) end
  for i, x in ipairs(t) do
    if not kiln.is_tensor(x) then fail("%s: entry %d of %s is no tensor", name, i, what) end
  end
  return t, false
end

local function prepared(inputs, options, name)
  local list, single = as_list(inputs, "inputs", name)
  local xs = {}
  for i, x in ipairs(list) do
    if not x.dtype:find "float" then fail("%s: input %d must be floating, not %s", name, i, x.dtype) end
    if options and options.create_graph and x.requires_grad then
      xs[i] = x:reshape(x.shape) -- a place of its own on the tape, connected to x
    else
      xs[i] = x:detach():clone():requires_grad_()
    end
  end
  return xs, single
end

local function results_of(f, xs, name)
  local ys = table.pack(f(table.unpack(xs)))
  for i = 1, ys.n do
    if not kiln.is_tensor(ys[i]) then fail("%s: result %d of the function is no tensor", name, i) end
  end
  if ys.n == 0 then fail("%s: the function gives nothing", name) end
  return ys
end

-- Gradients of ys weighted by vs, zeros where nothing flows.
local function gradients(ys, xs, vs, create_graph)
  local some, weights = {}, {}
  for i, y in ipairs(ys) do
    if y.requires_grad then
      some[#some + 1] = y
      weights[#some] = vs and vs[i] or false
    end
  end
  local gs = {}
  if #some > 0 then
    gs = kiln.grad(some, xs, { grad_outputs = weights, create_graph = create_graph, allow_unused = true })
  end
  for i, x in ipairs(xs) do gs[i] = gs[i] or kiln.zeros_like(x) end
  return gs
end

local function check_shapes(vs, like, what, name)
  for i, t in ipairs(like) do
    if not vs[i] or not kiln.is_tensor(vs[i]) then fail("%s: entry %d of %s is missing", name, i, what) end
    local a, b = table.concat(vs[i].shape, ","), table.concat(t.shape, ",")
    if a ~= b then fail("%s: entry %d of %s has the shape [%s], not [%s]", name, i, what, a, b) end
  end
  return vs
end

local function give(list, single) return single and list[1] or list end

local function detached(list, options)
  if options and options.create_graph then return list end
  local out = {}
  for i, t in ipairs(list) do out[i] = t:detach() end
  return out
end

local function within(f, ...) return kiln.enable_grad(f, ...) end

--- vjp(f, inputs, v): the results of f and v times its Jacobian. v may be left out where the result is one number.
function M.vjp(f, inputs, v, options)
  return within(function()
    local xs, single = prepared(inputs, options, "vjp")
    local ys = results_of(f, xs, "vjp")
    local vs = v and check_shapes(as_list(v, "v", "vjp"), ys, "v", "vjp")
    local gs = gradients(ys, xs, vs, options and options.create_graph)
    local out = detached(ys, options)
    return ys.n == 1 and out[1] or out, give(detached(gs, options), single)
  end)
end

--- jvp(f, inputs, v): the results of f and its Jacobian times v, by differentiating the vjp once more.
function M.jvp(f, inputs, v, options)
  return within(function()
    local xs = prepared(inputs, options, "jvp")
    local vs = check_shapes(as_list(v, "v", "jvp"), xs, "v", "jvp")
    local ys = results_of(f, xs, "jvp")
    local weights = {}
    for i, y in ipairs(ys) do weights[i] = kiln.zeros_like(y):requires_grad_() end
    local gs = gradients(ys, xs, weights, true)
    local out = gradients(gs, weights, vs, options and options.create_graph)
    ys, out = detached(ys, options), detached(out, options)
    return #ys == 1 and ys[1] or ys, #ys == 1 and out[1] or out
  end)
end

-- d y / d xs for one tensor y: for each x a tensor of the shape of y, then that of x.
local function jacobian_of(y, xs, create_graph)
  local rows, flat = {}, y:reshape(-1)
  for i = 1, #xs do rows[i] = {} end
  for k = 1, flat:size(1) do
    local gs = gradients({ flat[k] }, xs, nil, create_graph)
    for i = 1, #xs do rows[i][k] = gs[i] end
  end
  local out = {}
  for i, x in ipairs(xs) do
    local shape = {}
    for _, n in ipairs(y.shape) do shape[#shape + 1] = n end
    for _, n in ipairs(x.shape) do shape[#shape + 1] = n end
    out[i] = #rows[i] > 0 and kiln.stack(rows[i]):reshape(shape) or kiln.zeros(shape, { dtype = x.dtype, device = x.device })
  end
  return out
end

--- jacobian(f, inputs): for each result and each input, a tensor of the result's shape and then the input's.
function M.jacobian(f, inputs, options)
  return within(function()
    local xs, single = prepared(inputs, options, "jacobian")
    local ys = results_of(f, xs, "jacobian")
    local all = {}
    for i, y in ipairs(ys) do all[i] = give(detached(jacobian_of(y, xs, options and options.create_graph), options), single) end
    return ys.n == 1 and all[1] or all
  end)
end

local function one_number(f, xs, name)
  local ys = results_of(f, xs, name)
  if ys.n ~= 1 or ys[1]:numel() ~= 1 then fail("%s: the function must give one number", name) end
  return ys[1]:reshape {}
end

--- hessian(f, inputs) of a function that gives one number: second derivatives, for each pair of inputs.
function M.hessian(f, inputs, options)
  return within(function()
    local xs, single = prepared(inputs, options, "hessian")
    local first = gradients({ one_number(f, xs, "hessian") }, xs, nil, true)
    local all = {}
    for i, g in ipairs(first) do all[i] = give(detached(jacobian_of(g, xs, options and options.create_graph), options), single) end
    return give(all, single)
  end)
end

--- hvp(f, inputs, v): the number f gives, and its Hessian times v.
function M.hvp(f, inputs, v, options)
  return within(function()
    local xs, single = prepared(inputs, options, "hvp")
    local vs = check_shapes(as_list(v, "v", "hvp"), xs, "v", "hvp")
    local y = one_number(f, xs, "hvp")
    local first = gradients({ y }, xs, nil, true)
    local gs = gradients(first, xs, vs, options and options.create_graph)
    return detached({ y }, options)[1], give(detached(gs, options), single)
  end)
end

M.vhp = M.hvp -- the Hessian is its own transpose

return M
