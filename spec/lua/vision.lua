-- kiln.vision: transforms as objects, chance that is seeded, refusals; models: options, weights from files, training. What
-- torchvision gives: golden_vision.lua.
local check = require "check"
local test, equal, raises = check.test, check.equal, check.raises
local F, T, M = kiln.vision.functional, kiln.vision.transforms, kiln.vision.models

local photo = kiln.arange(3 * 12 * 16):reshape(3, 12, 16):remainder(256):to "uint8"
local image = photo:float() / 255

test("transforms one after the other", function()
  local prepare = T.Compose { T.Resize(8), T.CenterCrop(8), function(x) return x:flip(-1) end, T.ToTensor(),
    T.Normalize({ 0.5, 0.5, 0.5 }, { 0.25, 0.25, 0.25 }), T.Lambda(function(x) return x + 1 end) }
  local y = prepare(photo)
  equal(y.shape, { 3, 8, 8 })
  local want = F.normalize(F.to_tensor(F.center_crop(F.resize(photo, 8), 8):flip(-1)), { 0.5, 0.5, 0.5 }, { 0.25, 0.25, 0.25 }) + 1
  check.truth(y:equal(want), "the same as the functions")
  check.truth(tostring(prepare):find("Normalize(mean 0.5, 0.5, 0.5; std 0.25, 0.25, 0.25)", 1, true), "its text")
  equal(T.Pad({ 1, 2 })(photo).shape, { 3, 16, 18 })
  equal(T.Grayscale(3)(photo).shape, { 3, 12, 16 })
  equal(T.ConvertImageDtype()(photo).dtype, "float32")
  equal(T.ToDtype("float64")(photo):max():item(), 255.0)
  equal(#T.FiveCrop(4)(photo), 5)
  check.truth(T.ToTensor { layout = "HWC" }(photo:permute(2, 3, 1)):equal(image), "channels last")
  equal(T.ToTensor()(photo[1]).shape, { 1, 12, 16 })
end)

test("chance is seeded, and keeps to its limits", function()
  local layers = { T.RandomCrop(6), T.RandomCrop(14, { padding = 1, pad_if_needed = true, padding_mode = "edge" }),
    T.RandomHorizontalFlip(), T.RandomVerticalFlip(), T.RandomResizedCrop(7), T.RandomGrayscale(0.5), T.RandomInvert(),
    T.ColorJitter { brightness = 0.5, contrast = 0.5, saturation = { 0.2, 3 }, hue = 0.5 }, T.RandomRotation(40), T.RandomErasing(0.9),
    T.RandomErasing(1, { value = "random" }), T.RandomApply({ T.Pad(1), T.Grayscale(3) }),
    T.RandomChoice({ T.Pad(1), T.Pad(2) }, { 1, 3 }), T.RandomOrder { T.Pad(1), T.CenterCrop(10), F.hflip } }
  local changed = 0
  for _, layer in ipairs(layers) do
    for seed = 1, 4 do
      kiln.manual_seed(seed)
      local once = layer(image)
      kiln.manual_seed(seed)
      check.truth(once:equal(layer(image)), layer.name .. ": repeated")
      check.truth(once:min():item() >= (layer.value == "random" and -10 or 0), layer.name .. ": its range")
      if once.shape[2] ~= 12 or once.shape[3] ~= 16 or not once:equal(image) then changed = changed + 1 end
    end
  end
  check.truth(changed > 35, "most of them do something")
  kiln.manual_seed(2)
  local flipped, places = 0, {}
  for _ = 1, 400 do
    if not T.RandomHorizontalFlip(0.25)(image):equal(image) then flipped = flipped + 1 end
    places[T.RandomCrop { 11, 13 }(photo)[{ 1, 1, 1 }]:item()] = true
  end
  check.truth(flipped > 60 and flipped < 140, "a quarter of 400")
  local n = 0
  for _ in pairs(places) do n = n + 1 end
  equal(n, 8) -- 2 rows, 4 columns
  check.truth(T.RandomCrop { 12, 16 }(photo):equal(photo), "the whole")
  kiln.manual_seed(3)
  for _ = 1, 50 do
    check.truth(T.RandomChoice({ function() return 1 end, function() return 2 end }, { 0, 1 })(image) == 2, "no weight, no choice")
    check.truth(T.RandomHorizontalFlip(0)(image) == image and T.RandomApply({ F.hflip }, 0)(image) == image, "never")
    equal(T.RandomResizedCrop(5, { scale = { 1, 1 }, ratio = { 40, 50 } })(photo).shape, { 3, 5, 5 })
  end
end)

test("batches, other dtypes, nothing to do", function()
  local batch = kiln.stack({ image, image:flip(-1) }, 1)
  for _, f in ipairs { function(x) return F.resize(x, { 5, 6 }) end, function(x) return F.rotate(x, 20) end,
                       function(x) return F.adjust_hue(x, 0.2) end, function(x) return F.pad(x, 2, { padding_mode = "symmetric" }) end,
                       function(x) return F.adjust_saturation(x, 0.2) end } do
    check.truth(f(batch)[1]:allclose(f(image), { atol = 1e-6 }), "each by itself")
  end
  equal(F.resize(image:half(), { 3, 4 }).dtype, "float16")
  equal(F.resize(image:double(), { 3, 4 }).dtype, "float64")
  equal(F.rotate(photo:short(), 10).dtype, "int16")
  check.truth(F.resize(photo, { 12, 16 }) == photo and F.adjust_hue(image[{ { 1, 1 } }], 0.1):size(1) == 1, "as it is")
  check.truth(F.adjust_brightness(photo, 1):equal(photo) and F.adjust_hue(image, 0):allclose(image, { atol = 1e-6 }), "factors of no effect")
  check.truth(F.resize(kiln.full({ 1, 9, 9 }, 7.0), { 4, 20 }):allclose(kiln.full({ 1, 4, 20 }, 7.0)), "weights sum to 1")
end)

test("transforms captured", function()
  local prepare = T.Compose { T.ToTensor(), T.RandomHorizontalFlip(), T.RandomCrop(10), T.Resize { 8, 9 }, T.Normalize({ 0.4 }, { 0.2 }) }
  local g = kiln.script(prepare, { inputs = { kiln.spec("uint8", { 3, 12, 16 }) } })
  for seed = 1, 4 do
    kiln.manual_seed(seed)
    local eager = prepare(photo)
    kiln.manual_seed(seed)
    check.truth(g(photo):allclose(eager, { atol = 1e-6 }), "seed " .. seed)
  end
end)

test("transforms that draw, captured: the same images, the same draws", function()
  local flips = { T.RandomHorizontalFlip(1), T.RandomVerticalFlip(1), T.RandomInvert(1) }
  local list = {
    T.RandomHorizontalFlip(), T.RandomVerticalFlip(), T.RandomInvert(), T.RandomGrayscale(0.5), T.RandomApply(flips), T.RandomChoice(flips),
    T.RandomChoice(flips, { 1, 0, 3 }), T.RandomOrder(flips), T.RandomCrop(8), T.RandomCrop(8, { padding = 2 }),
    T.RandomCrop(13, { pad_if_needed = true }), T.RandomResizedCrop(6), T.RandomResizedCrop({ 4, 7 }, { interpolation = "bicubic" }),
    T.RandomResizedCrop(6, { antialias = false }), T.RandomResizedCrop(7, { interpolation = "nearest" }),
    T.RandomErasing(0.7), T.RandomErasing(1, { value = "random" }), T.RandomErasing(1, { value = { 0.5, 0.1, 1 } }),
    T.ColorJitter { brightness = 0.5, contrast = 0.5, saturation = 0.5, hue = 0.2 }, T.RandomRotation(20),
    T.RandomRotation(90, { interpolation = "bilinear", fill = 0.5 }), T.RandomRotation(40, { expand = true }),
  }
  for i, transform in ipairs(list) do
    local g = kiln.script(transform)
    for seed = 1, 4 do
      kiln.manual_seed(seed)
      local want, draw = transform(image), kiln.rand(2)
      kiln.manual_seed(seed)
      local what = tostring(transform) .. " " .. i
      local got, same = g(image), kiln.rand(2)
      equal(got.shape, want.shape)
      check.truth(got:equal(want), what .. ": the image")
      check.truth(same:equal(draw), what .. ": the stream")
    end
  end
  raises(function() kiln.script(T.RandomCrop(20))(image) end, "RandomCrop: 20 x 20 is more than the image has")
end)

test("refusals of transforms", function()
  raises(function() F.resize(3, 4) end, "vision.lua:", "resize: an image is needed, a tensor [..., C, H, W], got number")
  raises(function() F.hflip(kiln.zeros(2, 2)) end, "hflip: an image is needed, a tensor [..., C, H, W], got one of 2 dimensions")
  raises(function() F.resize(image, { 1, 2, 3 }) end, "resize: the size must be a number or { height, width }, got a table of 3")
  raises(function() F.resize(image, 0) end, "resize: the size must be a positive integer, got 0")
  raises(function() F.resize(image, 4, { interpolation = "cubic" }) end, "interpolation must be one of 'bicubic', 'bilinear', 'nearest', 'nearest-exact', got cubic")
  raises(function() F.resize(image, 4, { max_size = 4 }) end, "resize: max_size must be above the size of the shorter edge, 4, got 4")
  raises(function() F.resize(image, 4, { mode = 1 }) end, "resize: there is no option 'mode'; there are interpolation, max_size, antialias")
  raises(function() F.resize(kiln.zeros(1, 0, 4), 4) end, "resize: the image has no pixels: 0 x 4")
  raises(function() F.pad(image, -1) end, "pad: padding must be whole numbers from 0 on, got -1")
  raises(function() F.pad(image, { 1, 2, 3 }) end, "pad: padding must be a number, { left and right")
  raises(function() F.pad(image, 20, { padding_mode = "symmetric" }) end, "pad: 20 and 20 pixels cannot be mirrored from 16")
  raises(function() F.pad(image, 1, { fill = { 1, 2 } }) end, "pad: 2 fill values for 3 channels")
  raises(function() F.five_crop(image, 13) end, "five_crop: 13 x 13 is more than the image has, 12 x 16")
  raises(function() F.normalize(photo, 0, 1) end, "normalize: a floating image is needed, got uint8; use to_tensor first")
  raises(function() F.normalize(image, { 1, 2 }, 1) end, "normalize: mean has 2 values, the image 3 channels")
  raises(function() F.normalize(image, 0, 0) end, "normalize: std must not be 0")
  raises(function() F.adjust_hue(image, 0.6) end, "adjust_hue: the factor must be from -0.5 to 0.5, got 0.6")
  raises(function() F.adjust_contrast(image, -1) end, "adjust_contrast: the factor must be a number from 0 on, got -1")
  raises(function() F.adjust_contrast(kiln.zeros(2, 3, 3), 1) end, "adjust_contrast: an image of 1 or 3 channels is needed, got 2")
  raises(function() F.to_dtype(image, "int32", { scale = true }) end, "to_dtype: float32 is too coarse for the range of int32")
  raises(function() T.Compose { 1 } end, "vision.lua:", "Compose: entry 1 must be a transform or a function, got number")
  raises(function() T.RandomCrop(14)(image) end, "RandomCrop: 14 x 14 is more than the image has, 12 x 16")
  raises(function() T.RandomHorizontalFlip(2) end, "RandomHorizontalFlip: the probability must be from 0 to 1, got 2")
  raises(function() T.ColorJitter { hue = 0.6 } end, "ColorJitter: hue must rise within -0.5 and 0.5, got -0.6 and 0.6")
  raises(function() T.ColorJitter { gamma = 1 } end, "ColorJitter: there is no option 'gamma'")
  raises(function() T.RandomResizedCrop(4, { scale = { 2, 1 } }) end, "RandomResizedCrop: scale must rise within 0")
  raises(function() T.RandomChoice({ F.hflip }, { 1, 2 }) end, "RandomChoice: 1 weights are needed, one for each transform")
  raises(function() T.Normalize({ 0.5 }) end, "Normalize: std must be a list of numbers")
end)

-- ---- models ----------------------------------------------------------------------------------------------------

test("a model's weights from a file", function()
  local path = os.tmpname()
  local model = M.lenet { num_classes = 4 }
  kiln.to_safetensors(path, model:state_dict())
  local again = M.lenet { weights = path }
  local x = kiln.randn(2, 1, 28, 28)
  equal(again(x).shape, { 2, 4 })
  check.truth(again(x):equal(model(x)), "the same")
  check.truth(M.lenet { weights = model:state_dict() }(x):equal(model(x)), "from a table")
  raises(function() M.lenet { weights = path, num_classes = 5 } end, "load_state_dict: fc3.bias is [4] there and [5] here")
  os.remove(path)
  raises(function() M.lenet { weights = path } end, "vision.lua:", "cannot open " .. path)
  raises(function() M.lenet { weights = 3 } end, "lenet: weights must be a path or a table of tensors, got number")
  raises(function() M.lenet { classes = 3 } end, "LeNet: there is no option 'classes'; there are num_classes, in_channels, image_size")
  raises(function() M.lenet(3) end, "lenet: options must be a table, got number")
  raises(function() M.LeNet { image_size = 8 } end, "LeNet: image_size must be an integer from 16 on, got 8")
  equal(M.lenet { image_size = 32, in_channels = 3 }(kiln.randn(1, 3, 32, 32)).shape, { 1, 10 })
end)

test("options and refusals of models", function()
  local net = M.ResNet(M.BasicBlock, { 1, 1, 1, 1 }, { num_classes = 3, width = 8, in_channels = 1, zero_init_residual = true })
  equal(net.layer3[1].bn2.weight:sum():item(), 0.0)
  equal(net:features(kiln.randn(1, 1, 40, 40)).shape, { 1, 64, 2, 2 })
  equal(net(kiln.randn(2, 1, 40, 40)).shape, { 2, 3 })
  local names = {}
  for name in pairs(net:state_dict()) do names[name] = true end
  check.truth(names["layer2.0.downsample.1.num_batches_tracked"] and names["bn1.running_var"] and names["fc.bias"], "its names")
  local spread = M.ResNet(M.Bottleneck, { 1, 1, 1, 1 }, { width = 32, num_classes = 2 }).layer4[1].conv2.weight
  check.near(spread:std():item(), math.sqrt(2 / (256 * 9)), 1e-3)
  local vit = M.VisionTransformer { image_size = 16, patch_size = 8, num_layers = 1, num_heads = 2, hidden_dim = 8, mlp_dim = 8,
    num_classes = 2, in_channels = 1 }
  check.near(vit.conv_proj.weight:std():item(), 1 / 8, 0.02)
  equal(vit(kiln.randn(3, 1, 16, 16)):abs():sum():item(), 0.0) -- the head starts with zeros
  raises(function() vit(kiln.randn(3, 1, 16, 24)) end, "the images are 16 x 24, the model's image_size is 16")
  raises(function() M.VisionTransformer { image_size = 10, patch_size = 4, num_layers = 1, num_heads = 1, hidden_dim = 4, mlp_dim = 4 } end,
    "VisionTransformer: patches of 4 do not divide an image of 10")
  raises(function() M.VisionTransformer {} end, "VisionTransformer: image_size must be a positive integer, got nil")
  raises(function() M.ResNet(M.BasicBlock, { 1, 1, 1 }) end, "ResNet: layers must be four numbers of blocks")
  raises(function() M.ResNet("basic", { 1, 1, 1, 1 }) end, "ResNet: the block must be models.BasicBlock or models.Bottleneck")
  raises(function() M.resnet18 { groups = 2 } end, "BasicBlock: groups, width_per_group and dilation are for Bottleneck")
  raises(function() M.mobilenet_v2 { inverted_residual_setting = { { 1 } } } end, "row 1 of inverted_residual_setting must have 4 numbers")
  check.truth(not pcall(M.resnet18, { weights = net:state_dict() }), "another width does not load")
end)

test("models train, captured too", function()
  local optim = kiln.optim
  for _, make in ipairs {
    function() return M.ResNet(M.BasicBlock, { 1, 1, 1, 1 }, { num_classes = 2, width = 4 }) end,
    function() return M.VisionTransformer { image_size = 32, patch_size = 16, num_layers = 1, num_heads = 2, hidden_dim = 8, mlp_dim = 8, num_classes = 2 } end,
  } do
    kiln.manual_seed(4)
    local net = make()
    local opt = optim.SGD(net:parameters(), { lr = 0.05 })
    local x = kiln.randn(4, 3, 32, 32)
    local labels = kiln.tensor { 1, 2, 1, 2 }
    local function step(images, classes)
      opt:zero_grad()
      local loss = kiln.cross_entropy(net(images), classes)
      loss:backward()
      opt:step()
      return loss
    end
    local captured = kiln.script(step)
    local first, last = captured(x, labels):item(), nil
    for _ = 1, 15 do last = captured(x, labels):item() end
    check.truth(last < first * 0.9, ("%s: loss %g after %g; it"):format(net.name, last, first))
  end
end)
