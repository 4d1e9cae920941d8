-- kiln.progress: a progress bar on standard error. On a terminal one line that is drawn again; else a plain line now and then,
-- so that logs stay readable. Either counted by hand, or around what a loop goes over.
local kiln = require "kiln"
local fail = kiln.fail

local Progress = {}
Progress.__index = Progress

local function seconds(t)
  if t < 60 then return ("%.1f s"):format(t) end
  if t < 3600 then return ("%d min %02d s"):format(t // 60, t % 60 // 1) end
  return ("%d h %02d min"):format(t // 3600, t % 3600 // 60)
end

-- How fast it goes, in the unit that reads best.
local function rate(count, time)
  if count == 0 or time <= 0 then return nil end
  local each = time / count
  if each > 1 then return ("%.2f s each"):format(each) end
  return ("%.3g/s"):format(1 / each)
end

-- Time gone, time left, speed.
function Progress:times()
  local gone = kiln.clock() - self.started
  local parts = { seconds(gone) }
  if self.count and self.at > 0 and self.at < self.count then
    parts[1] = parts[1] .. " < " .. seconds(gone / self.at * (self.count - self.at))
  end
  parts[2] = rate(self.at, gone)
  return table.concat(parts, ", ")
end

function Progress:draw()
  local line
  if self.count then
    local share = self.count > 0 and self.at / self.count or 1
    local filled = share * 24 // 1
    line = ("%s[%s%s] %d/%d  %s"):format(self.label, ("#"):rep(filled), (" "):rep(24 - filled), self.at, self.count, self:times())
  else
    line = ("%s%d  %s"):format(self.label, self.at, self:times())
  end
  if self.text then line = line .. "  " .. self.text end
  if self.terminal then
    io.stderr:write("\r", line, (" "):rep(math.max(0, self.width - #line)))
    self.width = #line
  else
    io.stderr:write(line, "\n")
  end
  io.stderr:flush()
  self.shown = self.at
end

-- Draws when it has not for a while.
function Progress:now_and_then()
  local now = kiln.clock()
  if now - self.drawn < (self.terminal and 0.1 or self.every) then return end
  self.drawn = now
  self:draw()
end

--- One further. `text` is shown behind the bar.
function Progress:step(text)
  self.at = self.at + 1
  if text then self.text = text end
  if self.at == self.count then self:draw() else self:now_and_then() end
end

--- The metric line: a format and its values, shown behind the bar from now on.
function Progress:metric(format, ...)
  self.text = select("#", ...) > 0 and format:format(...) or format
end

function Progress:done(text)
  if self.over then return end
  self.over = true
  if text then self.text = text end
  if text or self.shown ~= self.at then self:draw() end
  if self.terminal then io.stderr:write "\n" end
end

-- Around an iterator: called by `for`. What the loop gets is what the iterator gives; a step is counted when the next is
-- asked for, so that it is one that has been done.
function Progress:__call(_, control)
  if self.asked then
    self.at = self.at + 1
    self:now_and_then()
  else
    self.asked, control = true, self.control
  end
  return self:pass(self.iterate(self.state, control))
end

function Progress:pass(...)
  if ... == nil then self:done() end
  return ...
end

-- Leaving the loop ends the line, and what the iterator wanted closed.
function Progress:__close(why)
  if not self.over and not why then self:done() end
  local closing = self.closing
  local meta = closing and getmetatable(closing)
  if meta and meta.__close then meta.__close(closing, why) end
end

local function length_of(value)
  local meta = getmetatable(value)
  if meta and meta.__len or not meta then
    local ok, n = pcall(function() return #value end)
    if ok and math.type(n) == "integer" then return n end
  end
end

local function start(count, options)
  if options ~= nil and type(options) ~= "table" then fail("progress: options must be a table, got %s", type(options)) end
  options = options or {}
  local label = options.label and options.label .. " " or ""
  local now = kiln.clock()
  return setmetatable({ count = options.count or count, at = 0, started = now, drawn = now, width = 0, label = label,
                        every = options.every or 5, terminal = kiln.is_terminal "stderr" }, Progress)
end

-- What iterates over `value`, as `for` takes it, and how many rounds there are if that is known.
local function iteration(value)
  if type(value) == "function" then return nil, value end
  if kiln.is_tensor(value) then return #value, ipairs(value) end
  if type(value) ~= "table" then fail("progress: a count, an iterator, a list, or something with iter is needed, got %s", type(value)) end
  if type(value.iter) == "function" then return length_of(value), value:iter() end
  return #value, ipairs(value)
end

--- progress(count [, { label = }]): progress:step(text) advances by one, progress:done(text) ends it.
--- progress(loader | list | iterator [, { label =, count =, every = 5 }]): goes round `for` in its place:
---   local bar = kiln.progress(loader, { label = "epoch 1" })
---   for i, x, y in bar do … bar:metric("loss %.3f", loss) end
--- It shows how many are done, time gone and left, the rate and the metric. `every` is the time between plain lines.
return function(what, options)
  if type(what) == "number" then return start(what, options) end
  local function given(count, iterate, state, control, closing)
    local self = start(count, options)
    self.iterate, self.state, self.control, self.closing = iterate, state, control, closing
    return self, nil, nil, self -- the last for `for` to close, where it stands behind `in` itself
  end
  return given(iteration(what))
end
