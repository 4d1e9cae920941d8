-- kiln.cuda: what it says of devices and of their memory, with a device or without one.
local check = require "check"
local test, equal, truth, raises = check.test, check.equal, check.truth, check.raises

local row = kiln.backends()[1]

test("there is a row, and it says what it is", function()
  equal(row.name, "cuda")
  equal(kiln.cuda.is_available(), row.available)
  equal(kiln.cuda.device_count() > 0, row.available)
  equal(table.concat(kiln.devices(), " "), row.available and "cpu cuda" or "cpu")
  if row.available then
    truth(row.version:find("^CUDA %d+%.%d+ .*sm_%d+"), row.version)
  else
    truth(#row.reason > 10 and not row.reason:find "null", row.reason)
  end
end)

test("memory is counted, and nothing is in use at first", function()
  for _, name in ipairs { "memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved" } do
    equal(math.type(kiln.cuda[name]()), "integer")
  end
  local stats = kiln.cuda.memory_stats()
  equal(stats.allocated, kiln.cuda.memory_allocated())
  equal(stats.blocks == 0, stats.allocated == 0)
  local launches = kiln.cuda.launch_stats()
  for _, name in ipairs { "captured", "launches", "waits", "syncs" } do equal(math.type(launches[name]), "integer") end
  truth(launches.seconds >= 0)
  kiln.cuda.empty_cache()
  kiln.cuda.reset_peak_memory_stats()
  equal(kiln.cuda.max_memory_allocated(), kiln.cuda.memory_allocated())
end)

test("without a device, the reason is raised", function()
  if row.available then check.skip "there is a device" end
  local why = "device cuda cannot be used here: " .. row.reason
  for _, name in ipairs { "current_device", "get_device_name", "get_device_capability", "get_device_properties", "synchronize", "mem_get_info" } do
    raises(kiln.cuda[name], why)
  end
  raises(function() kiln.cuda.set_device(0) end, why)
end)

test("with a device, it is described", function()
  if not row.available then check.skip "there is no device" end
  local at = kiln.cuda.current_device()
  equal(at, 0)
  kiln.cuda.set_device(0)
  local p, major, minor = kiln.cuda.get_device_properties(), kiln.cuda.get_device_capability()
  equal(p.name, kiln.cuda.get_device_name(0))
  equal(p.major, major)
  equal(p.minor, minor)
  truth(p.total_memory > 0 and p.multi_processor_count > 0)
  truth(row.version:find(("sm_%d%d"):format(major, minor), 1, true), row.version)
  raises(function() kiln.cuda.get_device_name(99) end, "there is no device 99")
  raises(function() kiln.cuda.set_device(99) end, "there is no device 99")
  raises(function() kiln.cuda.get_device_name "x" end, "get_device_name: a device's number is needed")
  kiln.cuda.synchronize()
  local left, all = kiln.cuda.mem_get_info()
  truth(left <= all and all > 0)
end)
