-- L-BFGS (Nocedal 1980): quasi-Newton steps from the last `history_size` differences of parameters and gradients. For a closure
-- that gives the same loss for the same parameters: all of the data, no dropout. One group; options as PyTorch's.
local kiln = require "kiln"
local define = require("kiln.optim.optimizer").define
local strong_wolfe = require "kiln.optim.line_search"
local fail, no_grad = kiln.fail, kiln.no_grad

local function flat_grad(params)
  local parts = {}
  for i, p in ipairs(params) do parts[i] = (p.grad or kiln.zeros_like(p)):reshape(-1) end
  return kiln.cat(parts, 1)
end

local function dot(a, b) return a:dot(b):item() end
local function largest(t) return t:abs():max():item() end

-- Adds t times the flat direction d to the parameters.
local function move(params, d, t)
  local at = 0
  for _, p in ipairs(params) do
    local n = p:numel()
    p:add_((d[{ { at + 1, at + n } }] * t):reshape(p.shape))
    at = at + n
  end
end

-- The loss, and the gradient as one vector; both negated to maximize.
local function evaluate(self, closure)
  local group = self.param_groups[1]
  local loss = kiln.enable_grad(closure)
  local value = kiln.is_tensor(loss) and loss:item() or loss
  if type(value) ~= "number" then fail("LBFGS: the closure must return the loss, got %s", type(loss)) end
  local g = flat_grad(group.params)
  if group.maximize then return -value, -g, loss end
  return value, g, loss
end

-- Takes in how gradient and parameters changed by the last step.
local function remember(state, g, history_size)
  local y, s = g - state.prev_flat_grad, state.d * state.t
  local ys = dot(y, s)
  if ys <= 1e-10 then return end
  if #state.old_dirs == history_size then
    for _, list in ipairs { state.old_dirs, state.old_stps, state.ro } do table.remove(list, 1) end
  end
  table.insert(state.old_dirs, y)
  table.insert(state.old_stps, s)
  table.insert(state.ro, 1 / ys)
  state.H_diag = ys / dot(y, y)
end

-- Minus the approximate inverse Hessian times the gradient.
local function direction(state, g)
  local dirs, steps, ro, al = state.old_dirs, state.old_stps, state.ro, {}
  local d = -g
  for i = #dirs, 1, -1 do
    al[i] = dot(steps[i], d) * ro[i]
    d = d - dirs[i] * al[i]
  end
  d = d * state.H_diag
  for i = 1, #dirs do d = d + steps[i] * (al[i] - dot(dirs[i], d) * ro[i]) end
  return d
end

-- Searches along state.d from here; leaves the parameters at the point found.
local function search(self, closure, loss, g, slope, most)
  local group, state = self.param_groups[1], self.state[1]
  local d, from = state.d, {}
  for i, p in ipairs(group.params) do from[i] = p:clone() end
  local size = largest(d)
  local function at(t)
    move(group.params, d, t)
    local f, new = evaluate(self, closure)
    for i, p in ipairs(group.params) do p:copy_(from[i]) end
    return { t = t, f = f, g = new, slope = dot(new, d) }
  end
  local found, count = strong_wolfe({ t = 0, f = loss, g = g, slope = slope }, at, state.t, most,
    function(width) return width * size < group.tolerance_change end)
  state.t = found.t
  move(group.params, d, found.t)
  return found.f, found.g, count
end

local function iterate(self, closure)
  local group, state = self.param_groups[1], self.state[1]
  local max_eval = group.max_eval or group.max_iter * 5 // 4
  local loss, g, first = evaluate(self, closure)
  local evals = 1
  state.n_iter, state.func_evals = state.n_iter or 0, (state.func_evals or 0) + 1
  if largest(g) <= group.tolerance_grad then return first end
  for n = 1, group.max_iter do
    state.n_iter = state.n_iter + 1
    if state.n_iter == 1 then
      state.d, state.old_dirs, state.old_stps, state.ro, state.H_diag = -g, {}, {}, {}, 1.0
      state.t = math.min(1, 1 / g:abs():sum():item()) * group.lr
    else
      remember(state, g, group.history_size)
      state.d = direction(state, g)
      state.t = group.lr
    end
    state.prev_flat_grad, state.prev_loss = g, loss
    local slope, count = dot(g, state.d), 0
    if slope > -group.tolerance_change then break end
    if group.line_search_fn then
      loss, g, count = search(self, closure, loss, g, slope, max_eval - evals)
    else
      move(group.params, state.d, state.t)
      if n < group.max_iter then
        loss, g = evaluate(self, closure)
        count = 1
      end
    end
    evals, state.func_evals = evals + count, state.func_evals + count
    if evals >= max_eval or largest(g) <= group.tolerance_grad or largest(state.d * state.t) <= group.tolerance_change
      or math.abs(loss - state.prev_loss) < group.tolerance_change then
      break
    end
  end
  return first
end

--- LBFGS(parameters [, { lr = 1, max_iter = 20, max_eval =, tolerance_grad = 1e-7, tolerance_change = 1e-9, history_size = 100,
--- line_search_fn = "strong_wolfe" or nothing }]): quasi-Newton steps for a loss that does not change by chance; step(closure).
local LBFGS = define {
  name = "LBFGS",
  single = true,
  options = { lr = 1.0, max_iter = 20, tolerance_grad = 1e-7, tolerance_change = 1e-9, history_size = 100 },
  optional = { max_eval = "number", line_search_fn = "string" },
  check = function(o)
    if o.line_search_fn and o.line_search_fn ~= "strong_wolfe" then
      fail("LBFGS: line_search_fn must be 'strong_wolfe', got '%s'", o.line_search_fn)
    end
  end,
  --- step(closure): up to max_iter iterations. The closure takes the grads away, computes the loss, its gradient, and returns
  --- the loss. Gives the loss before the step.
  step = function(self, closure)
    if type(closure) ~= "function" and type(closure) ~= "userdata" then
      fail("LBFGS: step needs a function that computes the loss and its gradient, got %s", type(closure))
    end
    if kiln.is_capturing() then
      fail("LBFGS: how far it goes depends on data, so a step of it cannot be captured; capture the closure: "
        .. "opt:step(kiln.script(closure))")
    end
    return no_grad(iterate, self, closure)
  end,
}

return { LBFGS = LBFGS }
