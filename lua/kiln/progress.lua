-- kiln.progress(count [, { label = }]): a progress bar on standard error. On a terminal one line that is drawn again; else a
-- plain line now and then, so that logs stay readable. progress:step(text) advances by one, progress:done(text) ends it.
local kiln = require "kiln"

local Progress = {}
Progress.__index = Progress

local function seconds(t)
  if t < 60 then return ("%.1f s"):format(t) end
  return ("%d min %02d s"):format(t // 60, t % 60 // 1)
end

function Progress:draw(text)
  local share = self.count > 0 and self.at / self.count or 1
  local filled = share * 24 // 1
  local line = ("%s[%s%s] %d/%d  %s%s"):format(self.label, ("#"):rep(filled), (" "):rep(24 - filled), self.at, self.count,
    seconds(kiln.clock() - self.started), text and "  " .. text or "")
  if self.terminal then
    io.stderr:write("\r", line, (" "):rep(math.max(0, self.width - #line)))
    self.width = #line
  else
    io.stderr:write(line, "\n")
  end
  io.stderr:flush()
end

--- One further. `text` is shown behind the bar.
function Progress:step(text)
  self.at = self.at + 1
  local now = kiln.clock()
  local wait = self.terminal and 0.1 or 5
  if self.at < self.count and now - self.drawn < wait then return end
  self.drawn = now
  self:draw(text)
end

function Progress:done(text)
  if text or self.at < self.count then self:draw(text) end
  if self.terminal then io.stderr:write "\n" end
end

return function(count, options)
  local now = kiln.clock()
  local label = options and options.label and options.label .. " " or ""
  return setmetatable({ count = count, at = 0, started = now, drawn = now, width = 0, label = label,
                        terminal = kiln.is_terminal "stderr" }, Progress)
end
