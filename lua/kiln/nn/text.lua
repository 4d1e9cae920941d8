-- A module as text: the tree of its parts, with the number of parameters of each.

local function with_commas(n)
  local text = tostring(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (text:gsub("^,", ""))
end

return function(is_module, module_of, sorted_keys)
  local function add_lines(lines, module, label, indent, seen)
    local detail = module.extra and module:extra() or ""
    local n = module:num_parameters()
    lines[#lines + 1] = ("%s%s%s%s%s"):format(("  "):rep(indent), label, module.name,
      detail ~= "" and "(" .. detail .. ")" or "",
      n > 0 and ("  %s parameter%s"):format(with_commas(n), n == 1 and "" or "s") or "")
    if seen[module] then
      lines[#lines] = lines[#lines] .. "  (shown above)"
      return
    end
    seen[module] = true
    for _, key in ipairs(sorted_keys(module)) do
      local value = rawget(module, key)
      local part = module_of(value)
      if part then add_lines(lines, part, tostring(key) .. (is_module(value) and ": " or ": Graph of "), indent + 1, seen) end
    end
  end

  --- The tree of parts. Entries of lists are numbered as Lua indexes them, from 1.
  return function(self)
    local lines = {}
    add_lines(lines, self, "", 0, {})
    return table.concat(lines, "\n")
  end
end
