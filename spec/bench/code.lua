-- From a row of rows.lua to what a worker is told: the code that makes its inputs, and the statement to time. One writer for
-- each language; they must agree on shapes, dtypes and the range of values.
local make = {}

function make.kiln(name, sizes, word)
  local size = "{ " .. table.concat(sizes, ", ") .. " }"
  local value = ("kiln.randn(%s)"):format(size)
  if word == "grad" then value = value .. ":requires_grad_()"
  elseif word == "positive" then value = ("kiln.rand(%s) + 0.5"):format(size)
  elseif word == "index" then value = ("kiln.randint(1, 11, %s)"):format(size)
  elseif word ~= "" then value = ("(%s * 4):to '%s'"):format(value, word) end
  return ("local %s = %s"):format(name, value)
end

function make.torch(name, sizes, word)
  local size = table.concat(sizes, ", ")
  local value = ("torch.randn(%s)"):format(size)
  if word == "grad" then value = value .. ".requires_grad_()"
  elseif word == "positive" then value = ("torch.rand(%s) + 0.5"):format(size)
  elseif word == "index" then value = ("torch.randint(0, 10, (%s,))"):format(size)
  elseif word ~= "" then value = ("(%s * 4).to(torch.%s)"):format(value, word) end
  return ("%s = %s"):format(name, value)
end

--- Setup and statement of a row for "kiln" or "torch".
return function(row, language)
  local lines = {}
  for i, input in ipairs(row.inputs) do
    local name, shape, word = input:match "^(%S+) (%S+) ?(%S*)$"
    local sizes = {}
    for size in shape:gmatch "%d+" do sizes[#sizes + 1] = size end
    lines[i] = make[language](name, sizes, word)
  end
  lines[#lines + 1] = row.setup and row.setup[language]
  return table.concat(lines, "\n"), row[language]
end
