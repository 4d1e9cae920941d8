-- kiln.data: sound in WAV files, and files and archives as they are. Decoding is C's, in kiln.io.
local kiln = require "kiln"

local wav = { read_file = kiln.io.read_file, archive = kiln.io.archive }

--- read_wav(path): float32 [channels, frames] and the rate in Hz.
function wav.read_wav(path)
  local bytes = kiln.io.read_file(path)
  local ok, sound, rate = pcall(kiln.io.decode_wav, bytes)
  if ok then return sound, rate end
  kiln.fail("read_wav: %s: %s", path, (tostring(sound):gsub("^.-decode_wav: ", "")))
end

--- write_wav(path, sound, rate [, { dtype = "int16" }]): "uint8", "int16", "int24", "int32" or "float32".
function wav.write_wav(path, sound, rate, options)
  kiln.io.write_file(path, kiln.io.encode_wav(sound, rate, options))
end

return wav
