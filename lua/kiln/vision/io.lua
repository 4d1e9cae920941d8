-- kiln.vision's pictures in files: torchvision.io's names over kiln.io. Decoding itself is C's.
local kiln = require "kiln"

local io = {
  decode_image = kiln.io.decode_image,
  encode_png = kiln.io.encode_png,
  encode_jpeg = kiln.io.encode_jpeg,
  encode_ppm = kiln.io.encode_ppm,
}

--- read_image(path [, mode]): uint8 [channels, height, width] of a PNG, JPEG, PPM or PGM file. The mode is "UNCHANGED"
--- (the default), "GRAY", "GRAY_ALPHA", "RGB" or "RGB_ALPHA".
function io.read_image(path, mode)
  local bytes = kiln.io.read_file(path, { raw = true })
  local ok, picture = pcall(kiln.io.decode_image, bytes, mode)
  if ok then return picture end
  kiln.fail("read_image: %s: %s", path, (tostring(picture):gsub("^.-decode_image: ", "")))
end

--- write_png(picture, path [, compression_level = 6])
function io.write_png(picture, path, compression_level)
  kiln.io.write_file(path, kiln.io.encode_png(picture, { compression_level = compression_level }))
end

--- write_jpeg(picture, path [, quality = 75])
function io.write_jpeg(picture, path, quality)
  kiln.io.write_file(path, kiln.io.encode_jpeg(picture, { quality = quality }))
end

--- write_ppm(picture, path): PPM of three channels, PGM of one.
function io.write_ppm(picture, path) kiln.io.write_file(path, kiln.io.encode_ppm(picture)) end

return io
